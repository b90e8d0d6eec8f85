"""The router: one vector store in front of two.

Reads are answered by the primary under the read rule; if it may not or cannot, by the other store; each
sampled query is offered to the mirror, which never makes a reader wait. Writes go to the journal, whose
commit is the acknowledgement, and from there to both stores.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any, TypeVar

from shadow.breaker import Breaker
from shadow.config import RouterSettings
from shadow.core.phases import FAISS, POSTGRESQL, Phase, Route
from shadow.core.read_rule import refusal
from shadow.errors import JournalFull
from shadow.events import EventLog
from shadow.lag import LagClock
from shadow.mirror import Mirror
from shadow.write_path import Entries, WritePath
from shadow.writes.faiss_follower import FaissFollower
from shadow.writes.journal import Journal
from shadow.writes.own_writes import OwnWrites
from shadow.writes.postgresql_follower import PostgresqlFollower, PostgresqlLink
from vectorstore.errors import DeadlineExceeded, InvalidInput, StoreUnavailable, Unsupported
from vectorstore.filters import Filter
from vectorstore.port import Replica
from vectorstore.types import Answer, Metric, Query, Record
from vectorstore.validation import check_batch

__all__ = ["Router"]

T = TypeVar("T")

log = EventLog()


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
        self._link = link
        self._mirror = mirror
        self._lag = lag
        self._route = route
        self._settings = settings
        self._fast_ms = fast_ms
        self._dimension = dimension
        self._metric = metric
        self._on_close = on_close
        # Told the seconds of every search that succeeded: must cost no more than an append.
        self._on_read = on_read
        self._open = True
        self._progress = threading.Condition()
        self._breakers = {
            name: Breaker(
                failures_max=settings.breaker_failures, pause_ms=settings.breaker_pause_ms
            )
            for name in (FAISS, POSTGRESQL)
        }
        self._writes = WritePath(
            journal=journal,
            faiss=faiss,
            postgresql=postgresql,
            own_writes=OwnWrites(journal, link, pause_s=settings.poll_ms / 1e3),
            lag=lag,
            route=lambda: self._route,
            breaker=self._breakers[POSTGRESQL],
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
        return self._route

    def follow_route(self, route: Route) -> None:
        """Take over a newer route; readers under way finish under theirs."""
        if route.version > self._route.version:
            self._route = route

    def progressed(self) -> None:
        """Wake the readers that wait for a store to catch up."""
        with self._progress:
            self._progress.notify_all()

    # Reads

    def search(self, query: Query) -> Answer:
        """The nearest k rows; see :meth:`vectorstore.port.VectorStore.search`.

        Raises InvalidInput for a bad query, DeadlineExceeded or StoreUnavailable with both stores'
        reasons when neither may answer before the deadline.
        """
        # Every microsecond here is on the path of every query: hence the plain comparisons.
        route = self._route
        first = FAISS if route.postgresql_share <= 0.0 else self._draw(route)
        sampled = route.mirrors and self._mirror.samples(route)
        floor = self._floor(route)
        if query.min_seq > floor:
            floor = query.min_seq
        if first == POSTGRESQL and query.timeout_ms is None:
            query = replace(query, timeout_ms=self._settings.timeout_ms)
        started = time.perf_counter()
        try:
            answer = self._store(first).search(query)
        except (InvalidInput, Unsupported):
            raise
        except _MayNotAnswer as refused:
            why = str(refused)
        except Exception as error:  # noqa: BLE001 - whatever fails a store, the other one answers
            why = str(error) or type(error).__name__
            if self._failed(first, error, query.timeout_ms) and sampled:
                self._mirror.offer_failure(route, query, first)
        else:
            ended = time.perf_counter()
            self._on_read(ended - started)
            behind = self._refusal(answer.applied_seq, floor)
            if behind is None:
                self._breakers[first].succeeded()
                if sampled:
                    self._mirror.offer(route, query, answer, (ended - started) * 1e3)
                return answer
            # Not a failure: it is behind, which lag tells, and the other store answers meanwhile.
            why = behind

        def ask(store: Replica, left_ms: float) -> Answer:
            answer = store.search(replace(query, timeout_ms=left_ms))
            self._require(answer.applied_seq, floor)
            return answer

        return self._otherwise(first, why, started, query.timeout_ms, ask)

    def search_many(self, queries: Sequence[Query]) -> list[Answer]:
        """The answers to several queries, in order, all by one store."""
        if not queries:
            return []
        route = self._route
        first = self._draw(route)
        floor = max(self._floor(route), *(query.min_seq for query in queries))
        sampled = [self._mirror.samples(route) for _ in queries]
        timeouts = [query.timeout_ms for query in queries if query.timeout_ms is not None]
        allowed_ms = min(timeouts) if timeouts else None
        if first == POSTGRESQL and allowed_ms is None:
            queries = [replace(one, timeout_ms=self._settings.timeout_ms) for one in queries]
        started = time.perf_counter()
        try:
            answers = self._store(first).search_many(queries)
        except (InvalidInput, Unsupported):
            raise
        except _MayNotAnswer as refused:
            why = str(refused)
        except Exception as error:  # noqa: BLE001 - whatever fails a store, the other one answers
            why = str(error) or type(error).__name__
            if self._failed(first, error, allowed_ms):
                for query in compress(queries, sampled):
                    self._mirror.offer_failure(route, query, first)
        else:
            each_s = (time.perf_counter() - started) / len(queries)
            for _ in queries:
                self._on_read(each_s)
            behind = self._refusal(min(answer.applied_seq for answer in answers), floor)
            if behind is None:
                self._breakers[first].succeeded()
                for query, answer in compress(zip(queries, answers, strict=True), sampled):
                    self._mirror.offer(route, query, answer, each_s * 1e3)
                return answers
            why = behind

        def ask(store: Replica, left_ms: float) -> list[Answer]:
            answers = store.search_many([replace(one, timeout_ms=left_ms) for one in queries])
            self._require(min(answer.applied_seq for answer in answers), floor)
            return answers

        return self._otherwise(first, why, started, allowed_ms, ask)

    def get(self, ids: Sequence[str]) -> list[Record]:
        """The records that exist among ``ids``, in the order asked."""
        return self._read(lambda store: store.get(ids))

    def scan(self, *, after: str = "", limit: int = 1000) -> list[Record]:
        """Up to ``limit`` records whose id follows ``after`` in byte order."""
        return self._read(lambda store: store.scan(after=after, limit=limit))

    def count(self, filter: Filter | None = None) -> int:
        """How many records there are, or how many the filter matches."""
        return self._read(lambda store: store.count(filter))

    def describe(self) -> Mapping[str, Any]:
        """The route, the lag, and the live settings of the store that answers.

        ``lag_entries``: what the store that is furthest behind has not applied; None while PostgreSQL
        does not follow the journal.
        """
        route = self._route
        settings = self._read(lambda store: dict(store.describe()))
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

    def _read(self, read: Callable[[Replica], T]) -> T:
        """What a store that may answer reads. The stores bound such a read by a timeout of their own."""
        route = self._route
        first = self._draw(route)
        floor = self._floor(route)

        def ask(store: Replica, _: float) -> T:
            # What was applied before the call is the least that the call can see.
            applied_seq = store.applied_seq()
            self._require(applied_seq, floor)
            result = read(store)
            if store.name == POSTGRESQL and store.applied_seq() < applied_seq:
                # Cursor and rows are two statements here, and this was another table's between them:
                # one that is being filled anew (which raises), or an older copy.
                raise _MayNotAnswer("its table was replaced during the read")
            return result

        started = time.perf_counter()
        try:
            result = ask(self._store(first), math.inf)
        except (InvalidInput, Unsupported):
            raise
        except _MayNotAnswer as refused:
            why = str(refused)
        except Exception as error:  # noqa: BLE001 - whatever fails a store, the other one answers
            why = str(error) or type(error).__name__
            self._failed(first, error)
        else:
            self._breakers[first].succeeded()
            return result
        return self._otherwise(first, why, started, None, ask, bounded_by_store=True)

    def _floor(self, route: Route) -> int:
        """The seq that an answer of this process must reach, under this route."""
        acknowledged = self._writes.acknowledged
        return acknowledged if acknowledged > route.flip_seq else route.flip_seq

    def _draw(self, route: Route) -> str:
        share = route.postgresql_share
        if share <= 0.0:
            return FAISS
        if share >= 1.0:
            return POSTGRESQL
        return POSTGRESQL if random.random() < share else FAISS  # noqa: S311 - a share, not a secret

    def _store(self, name: str) -> Replica:
        if not self._open:
            raise StoreUnavailable("the router is closed")
        if not self._breakers[name].allows():
            raise StoreUnavailable(f"{name} failed repeatedly and is left alone for a moment")
        if name == FAISS:
            if self._route.phase is Phase.FINAL or self._postgresql.standing.state == "final":
                raise StoreUnavailable("the migration is final: faiss follows no more")
            return self._faiss.store
        standing = self._postgresql.standing
        if not standing.asked:
            raise _MayNotAnswer("this process has not asked postgresql yet")
        if not standing.following:
            raise StoreUnavailable(
                f"postgresql does not follow the journal ({standing.error or standing.state})"
            )
        return self._link.store()

    def _refusal(self, applied_seq: int, floor: int) -> str | None:
        if applied_seq >= floor and applied_seq >= self._lag.head():
            return None
        return refusal(
            applied_seq=applied_seq,
            floor_seq=floor,
            oldest_unapplied_ms=self._lag.oldest_unapplied_ms(applied_seq),
            staleness_ms_max=self._settings.staleness_ms_max,
        )

    def _failed(self, name: str, error: Exception, allowed_ms: float | None = None) -> bool:
        """Take note that a store failed; false if only its caller, who allowed so long, was impatient."""
        allowed = math.inf if allowed_ms is None else allowed_ms
        if isinstance(error, DeadlineExceeded) and allowed < self._fast_ms:
            # A few such callers would take the store from everybody.
            return False
        breaker = self._breakers[name]
        if not breaker.is_open:
            log.warning("store_failed", store=name, error=f"{type(error).__name__}: {error}")
        breaker.failed()
        return True

    def _require(self, applied_seq: int, floor: int) -> None:
        behind = self._refusal(applied_seq, floor)
        if behind is not None:
            raise _MayNotAnswer(behind)

    def _otherwise(
        self,
        first: str,
        why: str,
        started: float,
        timeout_ms: float | None,
        ask: Callable[[Replica, float], T],
        *,
        bounded_by_store: bool = False,
    ) -> T:
        """Ask the other store, then both in turn as they make progress, until the deadline.

        ``ask`` is told what is left of it, ms, and raises _MayNotAnswer for a store that is behind.
        FAISS knows no deadline: its answer is in memory, and is fetched even when no time is left.
        """
        if not self._open:
            raise StoreUnavailable("the router is closed")
        turn = second = POSTGRESQL if first == FAISS else FAISS
        reasons = {first: why}
        allowed_ms = self._settings.timeout_ms if timeout_ms is None else timeout_ms
        deadline = started + allowed_ms / 1e3
        while True:
            left_ms = max(0.0, (deadline - time.perf_counter()) * 1e3)
            try:
                if left_ms or turn == FAISS:
                    result = ask(self._store(turn), left_ms)
                    self._breakers[turn].succeeded()
                    return result
                reasons.setdefault(turn, "no time was left to ask it")
            except (InvalidInput, Unsupported):
                raise
            except _MayNotAnswer as refused:
                reasons[turn] = str(refused)
            except Exception as error:  # noqa: BLE001 - whatever fails a store, the other one answers
                reasons[turn] = str(error) or type(error).__name__
                self._failed(turn, error, None if bounded_by_store else left_ms)
            left_s = deadline - time.perf_counter()
            if left_s <= 0:
                raise DeadlineExceeded(
                    "no store may answer this read. "
                    + "; ".join(f"{name}: {reasons[name]}" for name in sorted(reasons))
                )
            with self._progress:
                self._progress.wait(min(left_s, self._settings.poll_ms / 1e3))
            turn = first if turn == second else second

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
        if not self._open:
            raise StoreUnavailable("the router is closed")
        if not entries:
            return self._lag.head()
        return self._writes.write(entries, op_id)

    def close(self) -> None:
        """Stop the threads of this process; what is acknowledged stays."""
        if self._open:
            self._open = False
            self._writes.close()
            self._on_close()


class _MayNotAnswer(StoreUnavailable):
    """A store that is behind, or not asked yet, may not answer: nothing that its breaker should hear of."""
