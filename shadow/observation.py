"""What a reader leaves for the mirror: a query that was answered, or that a store failed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from shadow.core.phases import FAISS, POSTGRESQL, Route
from vectorstore.types import Hit, Query

__all__ = ["Observation", "copied"]


class Observation(NamedTuple):
    """One query under the route that it was asked under. ``hits`` is ``None`` when ``answered_by`` failed."""

    route: Route
    query: Query
    answered_by: str
    hits: tuple[Hit, ...] | None
    latency_ms: float
    applied_seq: int
    at: float

    @property
    def judged(self) -> str:
        """The store that this is to judge: the one that did not answer."""
        return POSTGRESQL if self.answered_by == FAISS else FAISS


def copied(query: Query) -> Query:
    """The query as it was asked, whatever its caller does with the vector afterwards."""
    return Query(
        np.array(query.vector, dtype=np.float32),
        query.k,
        query.filter,
        label=query.label,
        spent_ms=query.spent_ms,
    )
