"""Texts on their way from LangChain into a store: checked, named, cut into batches."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vectorstore.errors import InvalidInput
from vectorstore.types import Record
from vectorstore.validation import BATCH_RECORDS_MAX

__all__ = ["TextBatch", "text_batches"]


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Texts that are embedded by one call and written by one upsert."""

    texts: list[str]
    metadatas: list[Mapping[str, Any]]
    ids: list[str]

    def records(self, vectors: Sequence[Sequence[float]]) -> list[Record]:
        """The records of this batch, given the vectors (n, d) of its texts."""
        if len(vectors) != len(self.texts):
            raise InvalidInput(
                f"the embedding made {len(vectors)} vectors of {len(self.texts)} texts"
            )
        return [
            # A copy, because the caller may go on changing what it handed over.
            Record(record_id, np.asarray(vector), text, copy.deepcopy(dict(metadata)))
            for record_id, vector, text, metadata in zip(
                self.ids, vectors, self.texts, self.metadatas, strict=True
            )
        ]


def text_batches(
    texts: Iterable[str],
    metadatas: Sequence[Mapping[str, Any]] | None,
    ids: Sequence[str | None] | None,
    *,
    batch_size: int = BATCH_RECORDS_MAX,
) -> list[TextBatch]:
    """The texts in batches of at most ``batch_size``; an id that is missing or None is a new UUID.

    Raises InvalidInput when there is not one metadata and one id for each text, or ``batch_size`` is
    outside 1 to ``BATCH_RECORDS_MAX``.
    """
    if not 1 <= batch_size <= BATCH_RECORDS_MAX:
        raise InvalidInput(f"batch_size is {batch_size}; it must be from 1 to {BATCH_RECORDS_MAX}")
    listed = list(texts)
    about = [{}] * len(listed) if metadatas is None else list(metadatas)
    given = [None] * len(listed) if ids is None else list(ids)
    if not len(listed) == len(about) == len(given):
        raise InvalidInput(
            f"there are {len(listed)} texts, {len(about)} metadatas and {len(given)} ids; "
            "give one of each"
        )
    names = [str(uuid.uuid4()) if name is None else name for name in given]
    return [
        TextBatch(listed[i : i + batch_size], about[i : i + batch_size], names[i : i + batch_size])
        for i in range(0, len(listed), batch_size)
    ]
