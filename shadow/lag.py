"""How far each store lags, told without a look at the disk when nothing lags."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from shadow.writes.journal import Journal

__all__ = ["LagClock"]

# Heads seen within a moment count as seen at its beginning: so many moments are remembered, and an
# entry from before them is older than all of them.
MOMENT_S = 0.02
MOMENTS_MAX = 128


class LagClock:
    """Knows the journal's head, and how old the first entry is that a store has not applied.

    The head is looked up again when it was last seen more than ``head_age_ms_max`` ago, so that a
    process that was suspended does not take an old head for the present one.

    An entry says by the ``wall`` clock when it was made, and that clock may be set back. So an entry is
    also at least as old as the time since this process first saw it, by a ``clock`` that is never set.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        head_age_ms_max: float,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._head_age_s_max = head_age_ms_max / 1e3
        self._wall = wall
        self._clock = clock
        self._lock = threading.Lock()
        self._head = journal.head()
        self._seen = clock()
        self._moments: deque[tuple[float, int]] = deque(
            [(self._seen, self._head)], maxlen=MOMENTS_MAX
        )

    def refresh(self) -> int:
        """Look the head up and return it."""
        looked = self._clock()
        head = self._journal.head()
        with self._lock:
            self._rise(looked, head)
            self._seen = max(self._seen, looked)
            return self._head

    def head(self) -> int:
        """The head, at most ``head_age_ms_max`` old."""
        if self._clock() - self._seen > self._head_age_s_max:
            return self.refresh()
        return self._head

    def raise_to(self, seq: int) -> None:
        """Take note of a write of this process."""
        with self._lock:
            self._rise(self._clock(), seq)

    def _rise(self, at: float, head: int) -> None:
        if head <= self._head:
            return
        self._head = head
        began, _ = self._moments[-1]
        if at - began < MOMENT_S:
            self._moments[-1] = (began, head)
        else:
            self._moments.append((at, head))

    def oldest_unapplied_ms(self, applied_seq: int) -> float | None:
        """Age of the first entry after ``applied_seq``; ``None`` if there is none."""
        if applied_seq >= self.head():
            return None
        at = self._journal.appended_at(applied_seq + 1)
        if at is None:
            # An entry that was truncated is older than any that the journal still holds.
            return float("inf")
        return max(0.0, self._wall() - at, self._known_s(applied_seq + 1)) * 1e3

    def _known_s(self, seq: int) -> float:
        """For how long, at least, this process has known of the entry ``seq``."""
        with self._lock:
            first = next((at for at, head in self._moments if head >= seq), None)
        return 0.0 if first is None else self._clock() - first
