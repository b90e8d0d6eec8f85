"""Records as PostgreSQL's binary COPY stream, built in small blocks.

Format: PostgreSQL documentation, COPY, "Binary Format". Blocks of 16 rows are near the best size: one
byte swap for all their vectors, and still small enough for the caches.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from vectorstore.canonical import canonical_json
from vectorstore.columns import RecordColumns
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
    columns = RecordColumns.of(records, dimension)
    yield _HEADER
    # One buffer for all blocks: a fresh one for each would cost more than the swap.
    swapped = np.empty((_BLOCK_ROWS, dimension), dtype=">f4")
    for start in range(0, len(columns), _BLOCK_ROWS):
        yield _block(columns[start : start + _BLOCK_ROWS], swapped)
    yield _TRAILER


def _block(columns: RecordColumns, swapped: npt.NDArray[np.float32]) -> bytes:
    swapped[: len(columns)] = columns.vectors
    vectors = swapped.data.cast("B")
    dimension = swapped.shape[1]
    width = 4 * dimension
    parts: list[bytes | memoryview] = []
    at = 0
    for name, seq, body, values in zip(
        columns.ids, columns.seqs, columns.texts, columns.metadata, strict=True
    ):
        record_id = name.encode()
        text = body.encode()
        metadata = canonical_json(values).encode()
        parts += (
            _FIELDS_AND_LENGTH.pack(5, len(record_id)),
            record_id,
            _SEQ_AND_VECTOR_HEAD.pack(8, seq, 4 + width, dimension, 0),
            vectors[at : at + width],
            _LENGTH.pack(len(text)),
            text,
            _LENGTH_AND_JSONB_VERSION.pack(1 + len(metadata), 1),
            metadata,
        )
        at += width
    return b"".join(parts)
