"""Exact scans of both stores, within a budget: who was wrong, and how good each store is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from shadow.core.adjudication import Adjudication, Case, RowFacts, RowVersion, adjudicate
from shadow.core.comparison import Scored
from shadow.core.phases import FAISS
from shadow.writes.journal import Journal
from vectorstore.digests import row_digest
from vectorstore.errors import VectorStoreError
from vectorstore.port import Replica
from vectorstore.types import Answer, Hit, Metric, Query, Record
from vectorstore.validation import K_MAX

__all__ = ["Allowance", "ExactScans", "ExactStore", "Stores", "scored"]

TOLERANCE = 1e-5
TIMEOUT_FACTOR = 10.0
# Under a storm of writes one query more stays unjudged.
ROUNDS_MAX = 3


class ExactStore(Replica, Protocol):
    """A store that can also answer exactly, by looking at every row."""

    def search_exact(self, query: Query) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Stores:
    """Gives both stores as they are now; either may raise StoreUnavailable."""

    faiss: Callable[[], ExactStore]
    postgresql: Callable[[], ExactStore]

    def by_name(self, name: str) -> ExactStore:
        """The store of this name."""
        return self.faiss() if name == FAISS else self.postgresql()


class Allowance:
    """So many a second, saved up for one second at most."""

    def __init__(self, per_s_max: float) -> None:
        self._per_s_max = per_s_max
        self._left = per_s_max
        self._refilled_at = time.monotonic()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether one more may be had now."""
        with self._lock:
            now = time.monotonic()
            more = (now - self._refilled_at) * self._per_s_max
            self._left = min(self._per_s_max, self._left + more)
            self._refilled_at = now
            if self._left < 1.0:
                return False
            self._left -= 1.0
            return True


class ExactScans:
    """Holds two answers to one query against exact scans of what each store holds."""

    def __init__(
        self, *, stores: Stores, journal: Journal, metric: Metric, timeout_ms: float
    ) -> None:
        self._stores = stores
        self._journal = journal
        self._metric = metric
        self._timeout_ms = timeout_ms * TIMEOUT_FACTOR

    def struck(self, *seqs: int) -> frozenset[str]:
        """Ids written between the least and the highest of the seqs that answers were read at."""
        low, high = min(seqs), max(seqs)
        return frozenset(self._journal.ids_between(low, high)) if low < high else frozenset()

    def scale(self, query: Query, hits: Sequence[Hit], store: str) -> float:
        """|q| |x| with the farthest hit as x: what rounding is relative to."""
        if self._metric is Metric.COSINE or not hits:
            return 1.0
        found = self._stores.by_name(store).get([hits[-1].id])
        length = float(np.linalg.norm(found[0].embedding)) if found else 1.0
        return max(1.0, float(np.linalg.norm(query.vector)) * length)

    def tolerance(self, query: Query, hits: Sequence[Hit], store: str) -> float:
        """How far two equal scores may lie apart."""
        return TOLERANCE * self.scale(query, hits, store)

    def judged(self, query: Query, ours: Answer, theirs: Answer) -> Adjudication | None:
        """Both answers held against the exact one; ``None`` if a store could not say.

        ``ours`` is the primary's. What was written since the earliest of the reads is struck.
        """
        try:
            return self._judged(query, ours, theirs)
        except VectorStoreError:
            return None

    def _judged(self, query: Query, ours: Answer, theirs: Answer) -> Adjudication | None:
        primary, shadow = self._stores.by_name(ours.store), self._stores.by_name(theirs.store)
        extra = 0
        for _ in range(ROUNDS_MAX):
            wide = replace(query, k=query.k + extra, timeout_ms=self._timeout_ms)
            exact = primary.search_exact(wide), shadow.search_exact(wide)
            answers = (ours, theirs, *exact)
            ids = sorted({hit.id for answer in answers for hit in answer.hits})
            held, held_there = _versions(primary.get(ids)), _versions(shadow.get(ids))
            struck = self.struck(*(answer.applied_seq for answer in answers), self._journal.head())
            # So many rows beyond the k-th were scanned that k are left when these are struck.
            if len(struck) <= extra or query.k + extra >= K_MAX:
                break
            extra = min(2 * len(struck), K_MAX - query.k)
        else:
            return None
        return adjudicate(
            Case(
                k=query.k,
                tolerance=self.tolerance(query, ours.hits, ours.store),
                primary=scored(ours.hits),
                shadow=scored(theirs.hits),
                primary_exact=scored(exact[0].hits),
                shadow_exact=scored(exact[1].hits),
                facts={one: RowFacts(held.get(one), held_there.get(one)) for one in ids},
                struck=struck,
            )
        )


def scored(hits: Sequence[Hit]) -> list[Scored]:
    """Hits as the pure comparison takes them."""
    return [(hit.id, hit.score) for hit in hits]


def _versions(records: Sequence[Record]) -> dict[str, RowVersion]:
    return {r.id: RowVersion(r.seq, f"{row_digest(r, 'crc32c'):016x}") for r in records}
