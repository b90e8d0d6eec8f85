"""Records as PostgreSQL's binary COPY stream, built in small blocks.

Format: PostgreSQL documentation, COPY, "Binary Format". Blocks of 16 rows are near the best size: one
byte swap for all their vectors, and still small enough for the caches.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np

from vectorstore.canonical import canonical_json
from vectorstore.errors import InvalidInput
from vectorstore.types import Record

__all__ = ["COPY_COLUMNS", "copy_stream"]

COPY_COLUMNS = "id, seq, embedding, text, metadata"

_BLOCK_ROWS = 16
_HEADER = b"PGCOPY\n\xff\r\n\x00" + struct.pack(">ii", 0, 0)
_TRAILER = struct.pack(">h", -1)
_FIELDS_AND_LENGTH = struct.Struct(">hi")
_SEQ_AND_VECTOR_HEAD = struct.Struct(">iqiHH")
_LENGTH = struct.Struct(">i")
_LENGTH_AND_JSONB_VERSION = struct.Struct(">iB")


def copy_stream(records: Sequence[Record], dimension: int) -> Iterator[bytes]:
    """The stream in chunks. Raises InvalidInput for an embedding that is not of shape (dimension,)."""
    yield _HEADER
    for start in range(0, len(records), _BLOCK_ROWS):
        yield _block(records[start : start + _BLOCK_ROWS], dimension)
    yield _TRAILER


def _block(records: Sequence[Record], dimension: int) -> bytes:
    for record in records:
        if record.embedding.shape != (dimension,):
            raise InvalidInput(
                f"record {record.id!r}: the vector has shape {record.embedding.shape}; "
                f"this store holds {dimension} dimensions"
            )
    vectors = np.stack([record.embedding for record in records]).astype(">f4").tobytes()
    width = 4 * dimension
    parts: list[bytes] = []
    for place, record in enumerate(records):
        record_id = record.id.encode()
        text = record.text.encode()
        metadata = canonical_json(record.metadata).encode()
        parts += (
            _FIELDS_AND_LENGTH.pack(5, len(record_id)),
            record_id,
            _SEQ_AND_VECTOR_HEAD.pack(8, record.seq, 4 + width, dimension, 0),
            vectors[place * width : (place + 1) * width],
            _LENGTH.pack(len(text)),
            text,
            _LENGTH_AND_JSONB_VERSION.pack(1 + len(metadata), 1),
            metadata,
        )
    return b"".join(parts)
