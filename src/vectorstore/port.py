"""The one port: what every store, the router and the remote client can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from vectorstore.filters import Filter
from vectorstore.types import Answer, Change, Metric, Query, Record

__all__ = ["Replica", "VectorStore"]


@runtime_checkable
class VectorStore(Protocol):
    """Holds records and answers nearest-neighbour queries. Safe to share between threads.

    Writes are upserts and deletes by id; both return the sequence number of the last change made,
    which rises with every write. Every method may raise the errors of :mod:`vectorstore.errors`.

    ``timeout_ms`` is the caller's deadline of one call (a page of a scan, not the whole of it); without
    one a store's own limit holds. What cannot be cut, as a look into memory, may end later.
    """

    @property
    def name(self) -> str:
        """`faiss`, `postgresql`, `memory`, `router` or `remote`."""

    @property
    def dimension(self) -> int:
        """Length of every vector."""

    @property
    def metric(self) -> Metric:
        """How nearness is measured."""

    def search(self, query: Query) -> Answer:
        """The nearest k rows that the filter allows, nearest first; all there are if fewer."""

    def search_many(self, queries: Sequence[Query]) -> list[Answer]:
        """The answers to several queries, in order."""

    def upsert(self, records: Sequence[Record]) -> int:
        """Insert or replace by id, all or none; the last of equal ids in one batch wins."""

    def delete(self, ids: Sequence[str]) -> int:
        """Remove by id, all or none; an id that is not there is not an error."""

    def get(self, ids: Sequence[str], *, timeout_ms: float | None = None) -> list[Record]:
        """The records that exist among ``ids``, in the order asked."""

    def scan(
        self, *, after: str = "", limit: int = 1000, timeout_ms: float | None = None
    ) -> list[Record]:
        """Up to ``limit`` records whose id follows ``after`` in byte order of UTF-8."""

    def count(self, filter: Filter | None = None, *, timeout_ms: float | None = None) -> int:
        """How many records there are, or how many the filter matches."""

    def describe(self, *, timeout_ms: float | None = None) -> Mapping[str, Any]:
        """The live settings that change answers (index kind, ef_search, table, ...): JSON scalars."""

    def close(self) -> None:
        """Release what the store holds; further calls raise StoreUnavailable."""


@runtime_checkable
class Replica(VectorStore, Protocol):
    """A store that follows a journal instead of taking writes of its own."""

    def apply(self, changes: Sequence[Change]) -> int:
        """Apply journal entries in seq order and return the new applied seq.

        Entries at or below the applied seq are skipped; a record never goes back to a lower seq.
        The first new entry must be ``applied_seq() + 1``, else StoreCorrupt: there is a gap.
        """

    def applied_seq(self, *, timeout_ms: float | None = None) -> int:
        """The seq of the last entry applied: everything up to it is in the store."""
