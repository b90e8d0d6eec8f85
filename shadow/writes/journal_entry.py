"""How one change is laid out in the journal, and what makes two batches the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vectorstore.types import Change, Record, Vector

__all__ = [
    "STORED_COLUMNS",
    "EntryRow",
    "StoredRow",
    "batch_digest",
    "change_of",
    "row_of",
    "vector_of",
]

# What SQLite adds to one entry: record header, cell pointers, and the unused end of its pages.
ENTRY_OVERHEAD_BYTES = 256

STORED_COLUMNS = "seq, id, mark, text, metadata, embedding"


class EntryRow(NamedTuple):
    """One change as it is stored; ``text``, ``metadata`` and ``embedding`` are None for a delete."""

    id: str
    text: str | None
    metadata: str | None
    embedding: bytes | None

    @property
    def size_bytes(self) -> int:
        """Roughly what the entry takes in the file."""
        return (
            ENTRY_OVERHEAD_BYTES
            + _length_bytes(self.id)
            + _length_bytes(self.text or "")
            + _length_bytes(self.metadata or "")
            + len(self.embedding or b"")
        )


def _length_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


class StoredRow(NamedTuple):
    """One row as the journal's queries return it: :data:`STORED_COLUMNS`."""

    seq: int
    id: str
    mark: int
    text: str | None
    metadata: str | None
    embedding: bytes | None


def row_of(record: Record, metadata: str) -> EntryRow:
    """The stored form of a record and its metadata, both as ``encoded_record`` made them."""
    vector = record.embedding.astype("<f4", copy=False).tobytes()
    return EntryRow(record.id, record.text, metadata, vector)


def vector_of(embedding: bytes) -> Vector:
    """The vector of a stored row. It can be read and not changed: it lies in those bytes."""
    return np.frombuffer(embedding, dtype="<f4").astype(np.float32, copy=False)


def change_of(row: StoredRow) -> Change:
    """The change that a stored row stands for, its record carrying the seq."""
    if row.embedding is None or row.text is None or row.metadata is None:
        return Change(row.seq, row.id, None, row.mark)
    record = Record(row.id, vector_of(row.embedding), row.text, json.loads(row.metadata), row.seq)
    return Change(row.seq, row.id, record, row.mark)


def batch_digest(rows: Sequence[EntryRow]) -> bytes:
    """Sixteen bytes that tell whether a retried operation is the same batch.

    Every field is preceded by its length, so that no two batches share one encoding.
    """
    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        for field in row:
            value = field.encode() if isinstance(field, str) else field
            digest.update(b"-" if value is None else b"%d:" % len(value))
            digest.update(value or b"")
    return digest.digest()
