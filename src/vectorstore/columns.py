"""Records as columns: what is read, digested or copied by the thousand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from vectorstore.errors import InvalidInput
from vectorstore.types import Metadata, Record

__all__ = ["RecordColumns"]


@dataclass(frozen=True, slots=True, eq=False)
class RecordColumns(Sequence[Record]):
    """A sequence of records that makes a record only of what is asked for.

    ``vectors`` is float32 of shape (n, d). It may be a view of memory that belongs to somebody else; the
    records made of it have copies.
    """

    ids: Sequence[str]
    vectors: npt.NDArray[np.float32]
    texts: Sequence[str]
    metadata: Sequence[Metadata]
    seqs: Sequence[int]

    @classmethod
    def of(cls, records: Sequence[Record], dimension: int) -> RecordColumns:
        """The columns of records. Raises InvalidInput for an embedding that is not (dimension,)."""
        if isinstance(records, RecordColumns) and records.vectors.shape[1] == dimension:
            return records
        for record in records:
            if record.embedding.shape != (dimension,):
                raise InvalidInput(
                    f"record {record.id!r}: the vector has shape {record.embedding.shape}; "
                    f"this store holds {dimension} dimensions"
                )
        vectors = np.empty((len(records), dimension), dtype=np.float32)
        for at, record in enumerate(records):
            vectors[at] = record.embedding
        return cls(
            [record.id for record in records],
            vectors,
            [record.text for record in records],
            [record.metadata for record in records],
            [record.seq for record in records],
        )

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> RecordColumns: ...
    def __getitem__(self, at: int | slice) -> Record | RecordColumns:
        if isinstance(at, slice):
            return RecordColumns(
                self.ids[at], self.vectors[at], self.texts[at], self.metadata[at], self.seqs[at]
            )
        vector = np.array(self.vectors[at])
        return Record(self.ids[at], vector, self.texts[at], self.metadata[at], self.seqs[at])
