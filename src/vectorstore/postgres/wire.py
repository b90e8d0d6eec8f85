"""What travels between PostgreSQL and NumPy: vectors in binary by the pgvector package, and jsonb."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import psycopg
from pgvector import Vector as PgVector
from pgvector.psycopg import register_vector
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg.types import TypeInfo

from vectorstore.types import Vector

__all__ = ["register_vectors", "vector_bytes"]

_DIMENSION_AND_FLAGS = struct.Struct(">HH")


def vector_bytes(vector: Vector) -> bytes:
    """A float32 array of shape (d,) as PostgreSQL reads a ``vector``."""
    return _DIMENSION_AND_FLAGS.pack(len(vector), 0) + vector.astype(">f4").tobytes()


def register_vectors(connection: psycopg.Connection[Any]) -> TypeInfo:
    """Teach a connection to exchange NumPy arrays as ``vector`` and to read jsonb quickly.

    Returns what the type is called by in this database. Raises psycopg.ProgrammingError if the database has no vector type.
    """
    register_vector(connection)
    info = TypeInfo.fetch(connection, "vector")
    if info is None:
        raise psycopg.ProgrammingError("type vector not found")
    connection.adapters.register_loader(info.oid, _ArrayLoader)
    connection.adapters.register_loader("jsonb", _JsonbLoader)
    return info


class _ArrayLoader(Loader):
    """Vectors as float32 arrays of shape (d,), bit for bit, instead of pgvector's own objects."""

    format = Format.BINARY

    def load(self, data: Buffer) -> Vector:
        # pgvector before 0.5 gives the bytes in the order of the wire.
        return np.asarray(PgVector.from_binary(data).to_numpy(), dtype=np.float32)


class _JsonbLoader(Loader):
    """json.loads without its detection of encodings and white space: jsonb is printed in one way.

    Not orjson, which turns integers beyond 64 bits into floats.
    """

    format = Format.BINARY
    _decode = staticmethod(json.JSONDecoder().raw_decode)

    def load(self, data: Buffer) -> Any:
        # The first byte is the format's version.
        return self._decode(str(data[1:], "utf-8"))[0]
