"""How far each store lags, told without a look at the disk when nothing lags."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from shadow.writes.journal import Journal

__all__ = ["LagClock"]


class LagClock:
    """Knows the journal's head, and how old the first entry is that a store has not applied.

    The head is looked up again when it was last seen more than ``head_age_ms_max`` ago, so that a
    process that was suspended does not take an old head for the present one.
    """

    def __init__(
        self, journal: Journal, *, head_age_ms_max: float, wall: Callable[[], float] = time.time
    ) -> None:
        self._journal = journal
        self._head_age_s_max = head_age_ms_max / 1e3
        self._wall = wall
        self._lock = threading.Lock()
        self._head = journal.head()
        self._seen = time.monotonic()

    def refresh(self) -> int:
        """Look the head up and return it."""
        looked = time.monotonic()
        head = self._journal.head()
        with self._lock:
            self._head = max(self._head, head)
            self._seen = max(self._seen, looked)
            return self._head

    def head(self) -> int:
        """The head, at most ``head_age_ms_max`` old."""
        if time.monotonic() - self._seen > self._head_age_s_max:
            return self.refresh()
        return self._head

    def raise_to(self, seq: int) -> None:
        """Take note of a write of this process."""
        with self._lock:
            self._head = max(self._head, seq)

    def oldest_unapplied_ms(self, applied_seq: int) -> float | None:
        """Age of the first entry after ``applied_seq``; ``None`` if there is none."""
        if applied_seq >= self.head():
            return None
        at = self._journal.appended_at(applied_seq + 1)
        # An entry that was truncated is older than any that the journal still holds.
        return float("inf") if at is None else max(0.0, (self._wall() - at) * 1e3)
