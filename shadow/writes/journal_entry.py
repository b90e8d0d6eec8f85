"""How one change is laid out in the journal, and what makes two batches the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vectorstore.canonical import canonical_json
from vectorstore.errors import InvalidInput
from vectorstore.types import Change, Record
from vectorstore.validation import check_id

__all__ = ["STORED_COLUMNS", "EntryRow", "StoredRow", "batch_digest", "change_of", "row_of"]

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
            + len(self.id)
            + len(self.text or "")
            + len(self.metadata or "")
            + len(self.embedding or b"")
        )


class StoredRow(NamedTuple):
    """One row as the journal's queries return it: :data:`STORED_COLUMNS`."""

    seq: int
    id: str
    mark: int
    text: str | None
    metadata: str | None
    embedding: bytes | None


def row_of(record_id: str, record: Record | None, *, dimension: int) -> EntryRow:
    """The stored form of a change. Raises InvalidInput if it could not be read back as it was."""
    check_id(record_id)
    if record is None:
        return EntryRow(record_id, None, None, None)
    if record.id != record_id:
        raise InvalidInput(f"the change of {record_id!r} carries the record {record.id!r}")
    embedding = record.embedding
    if embedding.dtype != np.float32 or embedding.shape != (dimension,):
        raise InvalidInput(
            f"record {record_id!r}: the journal holds float32 vectors of shape ({dimension},), not "
            f"{embedding.dtype} of {embedding.shape}: pass it through normalised_record first"
        )
    if "\0" in record.text:
        raise InvalidInput(f"the text of {record_id!r} holds a NUL character")
    try:
        record.text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"the text of {record_id!r} holds a lone surrogate") from error
    vector = embedding.astype("<f4", copy=False).tobytes()
    return EntryRow(record_id, record.text, canonical_json(record.metadata), vector)


def change_of(row: StoredRow) -> Change:
    """The change that a stored row stands for, its record carrying the seq."""
    if row.embedding is None or row.text is None or row.metadata is None:
        return Change(row.seq, row.id, None, row.mark)
    vector = np.frombuffer(row.embedding, dtype="<f4").astype(np.float32, copy=False)
    record = Record(row.id, vector, row.text, json.loads(row.metadata), row.seq)
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
