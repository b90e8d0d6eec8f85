"""The router: one vector store in front of two.

Reads are answered by the primary under the read rule; if it may not or cannot, by the other store; each
sampled query is offered to the mirror, which never makes a reader wait. Writes go to the journal, whose
commit is the acknowledgement, and from there to both stores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any, TypeVar

from shadow.config import RouterSettings
from shadow.core.phases import FAISS, POSTGRESQL, Phase, Route
from shadow.errors import JournalFull
from shadow.lag import LagClock
from shadow.mirror import Mirror
from shadow.read_path import MayNotAnswer, ReadPath, drawn
from shadow.write_path import Entries, WritePath
from shadow.writes.faiss_follower import FaissFollower
from shadow.writes.journal import Journal
from shadow.writes.own_writes import OwnWrites
from shadow.writes.postgresql_follower import PostgresqlFollower, PostgresqlLink
from vectorstore.errors import InvalidInput, Unsupported
from vectorstore.filters import Filter
from vectorstore.port import Replica
from vectorstore.types import Answer, Metric, Query, Record, check_ms
from vectorstore.validation import check_batch

__all__ = ["Router"]

T = TypeVar("T")


class Router:
    """A :class:`~vectorstore.port.VectorStore` over FAISS and PostgreSQL. Safe between threads."""

    def __init__(
        self,
        *,
        journal: Journal,
        faiss: FaissFollower,
        postgresql: PostgresqlFollower,
        link: PostgresqlLink,
        mirror: Mirror,
        lag: LagClock,
        route: Route,
        settings: RouterSettings,
        fast_ms: float,
        dimension: int,
        metric: Metric,
        on_write: Callable[[], None],
        on_full: Callable[[JournalFull], bool],
        on_close: Callable[[], None],
        on_read: Callable[[float], None] = lambda _: None,
    ) -> None:
        """``fast_ms``: an answer within this is fast enough, so that who allows less may be impatient."""
        self._faiss = faiss
        self._postgresql = postgresql
        self._mirror = mirror
        self._lag = lag
        self._timeout_ms = settings.timeout_ms
        self._dimension = dimension
        self._metric = metric
        self._on_close = on_close
        # Told the seconds of every search that succeeded: must cost no more than an append.
        self._on_read = on_read
        self._open = True
        self._reads = ReadPath(
            faiss=faiss,
            postgresql=postgresql,
            link=link,
            lag=lag,
            route=route,
            settings=settings,
            fast_ms=fast_ms,
        )
        self._writes = WritePath(
            journal=journal,
            faiss=faiss,
            postgresql=postgresql,
            own_writes=OwnWrites(journal, link, pause_s=settings.poll_ms / 1e3),
            lag=lag,
            route=lambda: self._reads.route,
            breaker=self._reads.breakers[POSTGRESQL],
            on_write=on_write,
            on_full=on_full,
        )

    @property
    def name(self) -> str:
        return "router"

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def metric(self) -> Metric:
        return self._metric

    @property
    def route(self) -> Route:
        """The route that this process follows."""
        return self._reads.route

    def follow_route(self, route: Route) -> None:
        """Take over a newer route; readers under way finish under theirs."""
        if route.version > self._reads.route.version:
            self._reads.route = route

    def progressed(self) -> None:
        """Wake the readers that wait for a store to catch up."""
        self._reads.progressed()

    # Reads

    def search(self, query: Query) -> Answer:
        """The nearest k rows; see :meth:`vectorstore.port.VectorStore.search`.

        Raises InvalidInput for a bad query, DeadlineExceeded or StoreUnavailable with both stores'
        reasons when neither may answer before the deadline.
        """
        # Every microsecond here is on the path of every query: hence the plain comparisons.
        reads = self._reads
        route = reads.route
        first = FAISS if route.postgresql_share <= 0.0 else drawn(route)
        sampled = route.mirrors and self._mirror.samples(route)
        floor = self._floor(route)
        if query.min_seq > floor:
            floor = query.min_seq
        if first == POSTGRESQL and query.timeout_ms is None:
            query = replace(query, timeout_ms=self._timeout_ms)
        started = time.perf_counter()
        try:
            answer = reads.store(first).search(query)
        except (InvalidInput, Unsupported):
            raise
        except MayNotAnswer as refused:
            why = str(refused)
        except Exception as error:  # noqa: BLE001 - whatever fails a store, the other one answers
            why = str(error) or type(error).__name__
            if reads.failed(first, error, query.timeout_ms) and sampled:
                self._mirror.offer_failure(route, query, first)
        else:
            ended = time.perf_counter()
            self._on_read(ended - started)
            behind = reads.behind(answer.applied_seq, floor)
            if behind is None:
                reads.breakers[first].succeeded()
                if sampled:
                    self._mirror.offer(route, query, answer, (ended - started) * 1e3)
                return answer
            # Not a failure: it is behind, which lag tells, and the other store answers meanwhile.
            why = behind

        def ask(store: Replica, left_ms: float) -> Answer:
            if store.name == FAISS:
                # In memory, where to look is free and a search is not.
                reads.require(store.applied_seq(), floor)
            answer = store.search(replace(query, timeout_ms=left_ms))
            reads.require(answer.applied_seq, floor)
            return answer

        return reads.otherwise(first, why, started, query.timeout_ms, ask)

    def search_many(self, queries: Sequence[Query]) -> list[Answer]:
        """The answers to several queries, in order, all by one store."""
        if not queries:
            return []
        reads = self._reads
        route = reads.route
        first = drawn(route)
        floor = max(self._floor(route), *(query.min_seq for query in queries))
        sampled = [self._mirror.samples(route) for _ in queries]
        timeouts = [query.timeout_ms for query in queries if query.timeout_ms is not None]
        allowed_ms = min(timeouts) if timeouts else None
        if first == POSTGRESQL and allowed_ms is None:
            queries = [replace(one, timeout_ms=self._timeout_ms) for one in queries]
        started = time.perf_counter()
        try:
            answers = reads.store(first).search_many(queries)
        except (InvalidInput, Unsupported):
            raise
        except MayNotAnswer as refused:
            why = str(refused)
        except Exception as error:  # noqa: BLE001 - whatever fails a store, the other one answers
            why = str(error) or type(error).__name__
            if reads.failed(first, error, allowed_ms):
                for query in compress(queries, sampled):
                    self._mirror.offer_failure(route, query, first)
        else:
            each_s = (time.perf_counter() - started) / len(queries)
            for _ in queries:
                self._on_read(each_s)
            behind = reads.behind(min(answer.applied_seq for answer in answers), floor)
            if behind is None:
                reads.breakers[first].succeeded()
                for query, answer in compress(zip(queries, answers, strict=True), sampled):
                    self._mirror.offer(route, query, answer, each_s * 1e3)
                return answers
            why = behind

        def ask(store: Replica, left_ms: float) -> list[Answer]:
            if store.name == FAISS:
                reads.require(store.applied_seq(), floor)
            answers = store.search_many([replace(one, timeout_ms=left_ms) for one in queries])
            reads.require(min(answer.applied_seq for answer in answers), floor)
            return answers

        return reads.otherwise(first, why, started, allowed_ms, ask)

    def get(self, ids: Sequence[str], *, timeout_ms: float | None = None) -> list[Record]:
        """The records that exist among ``ids``, in the order asked."""
        return self._read(lambda store, ms: store.get(ids, timeout_ms=ms), timeout_ms)

    def scan(
        self, *, after: str = "", limit: int = 1000, timeout_ms: float | None = None
    ) -> list[Record]:
        """Up to ``limit`` records whose id follows ``after`` in byte order."""
        return self._read(
            lambda store, ms: store.scan(after=after, limit=limit, timeout_ms=ms),
            timeout_ms,
            bulk=True,
        )

    def count(self, filter: Filter | None = None, *, timeout_ms: float | None = None) -> int:
        """How many records there are, or how many the filter matches."""
        return self._read(
            lambda store, ms: store.count(filter, timeout_ms=ms), timeout_ms, bulk=True
        )

    def describe(self, *, timeout_ms: float | None = None) -> Mapping[str, Any]:
        """The route, the lag, and the live settings of the store that answers.

        ``lag_entries``: what the store that is furthest behind has not applied; None while PostgreSQL
        does not follow the journal.
        """
        route = self._reads.route
        settings = self._read(lambda store, ms: store.describe(timeout_ms=ms), timeout_ms)
        return {
            "phase": route.phase.value,
            "primary": route.primary,
            "lag_entries": self._lag_entries(route),
            **settings,
        }

    def _lag_entries(self, route: Route) -> int | None:
        standing = self._postgresql.standing
        if not standing.following:
            return None
        applied = [standing.applied_seq]
        if route.phase is not Phase.FINAL:
            applied.append(self._faiss.store.applied_seq())
        return max(0, self._lag.head() - min(applied))

    def _read(
        self, read: Callable[[Replica, float], T], timeout_ms: float | None, *, bulk: bool = False
    ) -> T:
        check_ms("timeout_ms", timeout_ms)
        reads = self._reads
        route = reads.route
        return reads.read(
            read, first=drawn(route), floor=self._floor(route), timeout_ms=timeout_ms, bulk=bulk
        )

    def _floor(self, route: Route) -> int:
        """The seq that an answer of this process must reach, under this route."""
        acknowledged = self._writes.acknowledged
        return acknowledged if acknowledged > route.flip_seq else route.flip_seq

    # Writes

    def upsert(self, records: Sequence[Record], *, op_id: str | None = None) -> int:
        """Insert or replace; the number returned is the acknowledgement: the write is durable.

        ``op_id`` makes a retry within 24 hours the same write. Raises InvalidInput and leaves no
        trace, or JournalFull / JournalUnavailable when the write could not be made durable.
        """
        check_batch(records)
        return self._write([(record.id, record) for record in records], op_id)

    def delete(self, ids: Sequence[str], *, op_id: str | None = None) -> int:
        """Remove by id; acknowledged as in :meth:`upsert`."""
        check_batch(ids)
        return self._write([(record_id, None) for record_id in ids], op_id)

    def _write(self, entries: Entries, op_id: str | None) -> int:
        self._reads.require_open()
        if not entries:
            return self._lag.head()
        return self._writes.write(entries, op_id)

    def close(self) -> None:
        """Stop the threads of this process; what is acknowledged stays. Does nothing in a forked child."""
        if self._open and not self._reads.forked:
            self._open = False
            self._reads.close()
            self._writes.close()
            self._on_close()
