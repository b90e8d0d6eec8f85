"""Vectors on PostgreSQL's binary wire: two big-endian int16 (length, 0), then big-endian float32.

Source: ``vector_recv`` and ``vector_send`` in pgvector's ``src/vector.c``. NumPy swaps the bytes, which
is faster than a loop over values, and values come back bit for bit.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format
from psycopg.types import TypeInfo

from vectorstore.types import Vector

__all__ = ["decode_vector", "encode_vector", "register_vectors"]

_HEAD = struct.Struct(">HH")


def encode_vector(vector: Vector) -> bytes:
    """The wire form of a vector of shape (d,)."""
    return _HEAD.pack(vector.shape[0], 0) + vector.astype(">f4").tobytes()


def decode_vector(data: Buffer) -> Vector:
    """The vector of shape (d,) that the wire form holds, in native byte order, writable."""
    return np.frombuffer(data, dtype=">f4", offset=4).astype(np.float32)


def register_vectors(connection: psycopg.Connection[Any]) -> None:
    """Teach a connection to exchange NumPy arrays as ``vector`` and to read jsonb quickly.

    Raises psycopg.ProgrammingError if the database has no vector type.
    """
    info = TypeInfo.fetch(connection, "vector")
    if info is None:
        raise psycopg.ProgrammingError("type vector not found")
    info.register(connection)
    dumper = type("_VectorDumper", (_BinaryDumper,), {"oid": info.oid})
    connection.adapters.register_dumper(np.ndarray, dumper)
    connection.adapters.register_loader(info.oid, _BinaryLoader)
    connection.adapters.register_loader("jsonb", _JsonbLoader)


class _BinaryDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Vector) -> Buffer:
        return encode_vector(obj)


class _BinaryLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> Vector:
        return decode_vector(data)


class _JsonbLoader(Loader):
    """json.loads without its detection of encodings and white space: jsonb is printed in one way.

    Not orjson, which turns integers beyond 64 bits into floats.
    """

    format = Format.BINARY
    _decode = staticmethod(json.JSONDecoder().raw_decode)

    def load(self, data: Buffer) -> Any:
        # The first byte is the format's version.
        return self._decode(str(data[1:], "utf-8"))[0]
