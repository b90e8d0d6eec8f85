"""Group commit: many callers, one durable transaction, each caller its own result.

A caller that finds nobody leading becomes the leader: it takes what is queued, itself included,
commits it together, names the oldest caller that queued meanwhile as the next leader, sees to what
follows from its group, and hands out the outcomes. Nobody leads for more than one group, so no caller
pays for others without end. In a crowd of callers a leader waits a moment for those of the last group.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from shadow.errors import JournalUnavailable
from vectorstore.errors import VectorStoreError

__all__ = ["GroupCommit"]

GROUP_REQUESTS_MAX = 128
# Groups of so many are a crowd of writers; smaller ones come about by chance, and nobody waits for them.
GATHER_REQUESTS_MIN = 8
GATHER_S_MAX = 0.002

Request = TypeVar("Request")
Result = TypeVar("Result")


class _Ticket(Generic[Request, Result]):
    """One caller's place in the queue. ``wake``, of one that waits, is held until it is served or must
    lead."""

    __slots__ = ("leads", "outcome", "request", "wake")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.outcome: Result | VectorStoreError | None = None
        self.leads = False
        self.wake: threading.Lock | None = None


class GroupCommit(Generic[Request, Result]):
    """Runs ``commit`` on groups of requests, one group at a time.

    ``commit`` returns one outcome per request, in order: the result, or the error of that caller
    alone. ``then`` is told requests and outcomes before the callers are, while the next group may be
    committing already; it must not raise. The queue is bounded by the number of threads, since every
    caller waits for its outcome. ``gather_s_max``: see :meth:`_gather`.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Request]], Sequence[Result | VectorStoreError]],
        then: Callable[[Sequence[Request], Sequence[Result | VectorStoreError]], None],
        *,
        gather_s_max: float = GATHER_S_MAX,
    ) -> None:
        self._commit = commit
        self._then = then
        self._gather_s_max = gather_s_max
        self._lock = threading.Lock()
        self._queue: list[_Ticket[Request, Result]] = []
        self._led = False
        self._arrived = threading.Condition(self._lock)
        self._gathering = False
        # The group whose callers were let go last; nobody is on the way if a group began since.
        self._last_count = 0
        self._last_s = 0.0

    def submit(self, request: Request) -> Result:
        """The result of ``request`` once its group is durable; raises that request's own error."""
        ticket: _Ticket[Request, Result] = _Ticket(request)
        try:
            with self._lock:
                self._queue.append(ticket)
                if self._gathering and len(self._queue) >= self._last_count:
                    self._arrived.notify()
                if self._led:
                    ticket.wake = wake = threading.Lock()
                    wake.acquire()
                else:
                    self._led = ticket.leads = True
            if ticket.wake is not None:
                ticket.wake.acquire()
            if ticket.leads:
                self._lead()
        except BaseException:
            self._abandon(ticket)
            raise
        outcome = ticket.outcome
        if isinstance(outcome, VectorStoreError):
            raise outcome
        if outcome is None:
            raise RuntimeError("a group ended without an outcome for one of its requests")
        return outcome

    def _abandon(self, ticket: _Ticket[Request, Result]) -> None:
        """An interrupt (Ctrl-C) reached a caller before its group: it must not take the lead along."""
        with self._lock:
            if ticket in self._queue:
                self._queue.remove(ticket)
                if ticket.leads:
                    self._hand_over()

    def _lead(self) -> None:
        """Commit one group: the head of the queue, which holds the leader's own ticket first."""
        with self._lock:
            if self._last_count >= GATHER_REQUESTS_MIN:
                self._gather()
            group = self._queue[:GROUP_REQUESTS_MAX]
            del self._queue[:GROUP_REQUESTS_MAX]
            self._last_count = 0
        requests = [ticket.request for ticket in group]
        outcomes: Sequence[Result | VectorStoreError] = ()
        started = time.monotonic()
        try:
            outcomes = self._commit(requests)
        finally:
            if len(outcomes) != len(group):
                # The commit itself broke off (an interrupt, a defect): nobody may hang, and
                # nobody may believe that the write was acknowledged.
                outcomes = [
                    JournalUnavailable(
                        "the group commit was interrupted, so this write was not acknowledged and "
                        "may or may not be in the journal; retry it with the same op_id"
                    )
                    for _ in group
                ]
            took_s = time.monotonic() - started
            with self._lock:
                self._hand_over()
            try:
                self._then(requests, outcomes)
            finally:
                with self._lock:
                    self._last_count, self._last_s = len(group), took_s
                for ticket, outcome in zip(group, outcomes, strict=True):
                    ticket.outcome = outcome
                    if ticket.wake is not None:
                        ticket.wake.release()

    def _gather(self) -> None:
        """Wait for as many as were just let go, but no longer than they took. The lock is held.

        They are on their way. To commit one record beside them takes longer than to wait for them: each
        of its steps would queue with all of them for the interpreter.
        """
        self._gathering = True
        try:
            self._arrived.wait_for(
                lambda: len(self._queue) >= self._last_count, min(self._last_s, self._gather_s_max)
            )
        finally:
            self._gathering = False

    def _hand_over(self) -> None:
        """Name the next leader, if anybody waits. The lock is held."""
        self._led = bool(self._queue)
        if self._queue:
            successor = self._queue[0]
            successor.leads = True
            if successor.wake is not None:
                successor.wake.release()
