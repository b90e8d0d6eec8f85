"""Which store answers a read: the one that is drawn if it may and can, else the other one.

A store may answer by the read rule, and unless its breaker is open. If neither may, the read waits for
them to make progress, until its deadline.
"""

from __future__ import annotations

import math
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from typing import TypeVar

from shadow.breaker import Breaker
from shadow.config import RouterSettings
from shadow.core.phases import FAISS, POSTGRESQL, Phase, Route
from shadow.core.read_rule import refusal
from shadow.events import EventLog
from shadow.lag import LagClock
from shadow.writes.faiss_follower import FaissFollower
from shadow.writes.postgresql_follower import PostgresqlFollower, PostgresqlLink
from vectorstore.errors import DeadlineExceeded, InvalidInput, StoreUnavailable, Unsupported
from vectorstore.port import Replica

__all__ = ["MayNotAnswer", "ReadPath", "drawn"]

T = TypeVar("T")

log = EventLog()


CLOSED = "the router is closed"
FORKED = (
    "this router was opened before a fork: open one in each process, after it was forked (with gunicorn "
    "in post_fork, or without preload_app)"
)


class MayNotAnswer(StoreUnavailable):
    """A store is not the one to answer: it is behind, not asked yet, slow at a bulk read, or not open here.

    Nothing that its breaker should hear of.
    """


def drawn(route: Route) -> str:
    """The store that answers a read first, by the route's share."""
    share = route.postgresql_share
    if share <= 0.0:
        return FAISS
    if share >= 1.0:
        return POSTGRESQL
    return POSTGRESQL if random.random() < share else FAISS  # noqa: S311 - a share, not a secret


class ReadPath:
    """Chooses the stores of the reads of one process. Safe between threads.

    ``route`` is the one that the process follows, ``breakers`` are those of the stores, by name.
    """

    def __init__(
        self,
        *,
        faiss: FaissFollower,
        postgresql: PostgresqlFollower,
        link: PostgresqlLink,
        lag: LagClock,
        route: Route,
        settings: RouterSettings,
        fast_ms: float,
    ) -> None:
        """``fast_ms``: an answer within this is fast enough, so that who allows less may be impatient."""
        self._faiss = faiss
        self._postgresql = postgresql
        self._link = link
        self._lag = lag
        self._settings = settings
        self._fast_ms = fast_ms
        # Why this process asks no store through here; None: it does.
        self._shut: str | None = None
        _opened.add(self)
        self._progress = threading.Condition()
        self.route = route
        self.breakers = {
            name: Breaker(
                failures_max=settings.breaker_failures, pause_ms=settings.breaker_pause_ms
            )
            for name in (FAISS, POSTGRESQL)
        }

    def progressed(self) -> None:
        """Wake the readers that wait for a store to catch up."""
        with self._progress:
            self._progress.notify_all()

    def close(self) -> None:
        """Ask no store any more."""
        self._shut = CLOSED

    def disown(self) -> None:
        """Ask no store any more in this process, a child that was forked with the router open.

        What a fork copies has none of its threads and may have any of its locks, and its connections are
        the parent's: on one that two processes use, each may be given the other's answer.
        """
        self._shut = FORKED

    @property
    def forked(self) -> bool:
        """Whether this process was forked with the router open: what it has is the parent's."""
        return self._shut is FORKED

    def require_open(self) -> None:
        """Raise MayNotAnswer in a router that was closed, or in a child that was forked with it open."""
        if self._shut is not None:
            raise MayNotAnswer(self._shut)

    def store(self, name: str) -> Replica:
        """The store to ask; raises StoreUnavailable, or MayNotAnswer for one that is not asked yet."""
        # As require_open, without the call: this stands in the way of every search.
        if self._shut is not None:
            raise MayNotAnswer(self._shut)
        if not self.breakers[name].allows():
            raise StoreUnavailable(f"{name} failed repeatedly and is left alone for a moment")
        if name == FAISS:
            if self.route.phase is Phase.FINAL or self._postgresql.standing.state == "final":
                raise StoreUnavailable("the migration is final: faiss follows no more")
            return self._faiss.store
        standing = self._postgresql.standing
        if not standing.asked:
            raise MayNotAnswer("this process has not asked postgresql yet")
        if not standing.following:
            raise StoreUnavailable(
                f"postgresql does not follow the journal ({standing.error or standing.state})"
            )
        return self._link.store()

    def behind(self, applied_seq: int, floor: int) -> str | None:
        """Why what a store has applied is not enough to answer, by the read rule; None if it is."""
        if applied_seq >= floor and applied_seq >= self._lag.head():
            return None
        return refusal(
            applied_seq=applied_seq,
            floor_seq=floor,
            oldest_unapplied_ms=self._lag.oldest_unapplied_ms(applied_seq),
            staleness_ms_max=self._settings.staleness_ms_max,
        )

    def require(self, applied_seq: int, floor: int) -> None:
        """Raise MayNotAnswer for a store that is :meth:`behind`."""
        behind = self.behind(applied_seq, floor)
        if behind is not None:
            raise MayNotAnswer(behind)

    def failed(self, name: str, error: Exception, allowed_ms: float | None = None) -> bool:
        """Take note that a store failed; false if only its caller, who allowed so long, was impatient."""
        allowed = math.inf if allowed_ms is None else allowed_ms
        if isinstance(error, DeadlineExceeded) and allowed < self._fast_ms:
            # A few such callers would take the store from everybody.
            return False
        breaker = self.breakers[name]
        if not breaker.is_open:
            log.warning("store_failed", store=name, error=f"{type(error).__name__}: {error}")
        breaker.failed()
        return True

    def read(
        self,
        read: Callable[[Replica, float], T],
        *,
        first: str,
        floor: int,
        timeout_ms: float | None,
        bulk: bool,
    ) -> T:
        """What a store that may answer reads; ``read`` is told how long it may take, ms.

        It has the deadline of a search. A ``bulk`` read takes as long as what it reads is large, which
        says nothing about the store: once the store has said how far it is, within that deadline, such a
        read has bulk_timeout_ms, or what is left of the caller's ``timeout_ms``. If that does not do, the
        other store answers, and the breaker does not hear of it.
        """
        bulk_ms = self._settings.bulk_timeout_ms if bulk and timeout_ms is None else 0.0

        def ask(store: Replica, left_ms: float) -> T:
            deadline = time.perf_counter() + left_ms / 1e3
            # What was applied before the call is the least that the call can see.
            applied_seq = store.applied_seq(timeout_ms=left_ms)
            self.require(applied_seq, floor)
            deadline = max(deadline, time.perf_counter() + bulk_ms / 1e3)
            try:
                result = read(store, _left_ms(deadline))
                replaced = (
                    store.name == POSTGRESQL
                    and store.applied_seq(timeout_ms=_left_ms(deadline)) < applied_seq
                )
            except DeadlineExceeded as error:
                if bulk:
                    raise MayNotAnswer(str(error)) from error
                raise
            if replaced:
                # Cursor and rows are two statements here, and this was another table's between them:
                # one that is being filled anew (which raises), or an older copy.
                raise MayNotAnswer("its table was replaced during the read")
            return result

        started = time.perf_counter()
        allowed_ms = self._settings.timeout_ms if timeout_ms is None else timeout_ms
        try:
            result = ask(self.store(first), allowed_ms)
        except (InvalidInput, Unsupported):
            raise
        except MayNotAnswer as refused:
            why = str(refused)
        except Exception as error:  # noqa: BLE001 - whatever fails a store, the other one answers
            why = str(error) or type(error).__name__
            self.failed(first, error, timeout_ms)
        else:
            self.breakers[first].succeeded()
            return result
        return self.otherwise(first, why, started, timeout_ms, ask)

    def otherwise(
        self,
        first: str,
        why: str,
        started: float,
        timeout_ms: float | None,
        ask: Callable[[Replica, float], T],
    ) -> T:
        """Ask the other store, then both in turn as they make progress, until the deadline.

        ``ask`` is told what is left of it, ms, and raises MayNotAnswer for a store that is behind.
        FAISS knows no deadline: its answer is in memory, and is fetched even when no time is left.
        """
        self.require_open()
        turn = second = POSTGRESQL if first == FAISS else FAISS
        reasons = {first: why}
        allowed_ms = self._settings.timeout_ms if timeout_ms is None else timeout_ms
        deadline = started + allowed_ms / 1e3
        while True:
            left_ms = _left_ms(deadline)
            try:
                if left_ms or turn == FAISS:
                    result = ask(self.store(turn), left_ms)
                    self.breakers[turn].succeeded()
                    return result
                reasons.setdefault(turn, "no time was left to ask it")
            except (InvalidInput, Unsupported):
                raise
            except MayNotAnswer as refused:
                reasons[turn] = str(refused)
            except Exception as error:  # noqa: BLE001 - whatever fails a store, the other one answers
                reasons[turn] = str(error) or type(error).__name__
                self.failed(turn, error, left_ms)
            left_s = deadline - time.perf_counter()
            if left_s <= 0:
                raise DeadlineExceeded(
                    "no store may answer this read. "
                    + "; ".join(f"{name}: {reasons[name]}" for name in sorted(reasons))
                )
            with self._progress:
                self._progress.wait(min(left_s, self._settings.poll_ms / 1e3))
            turn = first if turn == second else second


_opened: weakref.WeakSet[ReadPath] = weakref.WeakSet()


def _disown_all() -> None:
    for one in list(_opened):
        one.disown()


# Told by the fork itself: to look up the process's number would be a system call of every search.
os.register_at_fork(after_in_child=_disown_all)


def _left_ms(deadline: float) -> float:
    """What is left until then (``time.perf_counter()``), ms."""
    return max(0.0, (deadline - time.perf_counter()) * 1e3)
