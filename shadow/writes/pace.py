"""How fast a backfill may go: a rate that is given, and the patience of whoever answers the reads."""

from __future__ import annotations

import time
from collections.abc import Callable

from shadow.read_latency import RecentReads

__all__ = ["SHARE_MIN", "Pace"]

SHARE_MIN = 0.02
"""The least share of its time that a backfill copies: slow as it may be, it ends."""

BACK_OFF, RECOVER = 0.5, 1.1


class Pace:
    """Says how long to wait after each block.

    Under ``p99_ms_max`` the loader copies all the time. Each time that the reads are seen to be slower
    it halves the share of its time that it copies, down to ``SHARE_MIN``; each time that they are fast
    enough it takes a tenth more. While nothing is read there is nobody to be slowed down.
    """

    def __init__(
        self,
        *,
        rows_per_s_max: float | None = None,
        p99_ms_max: float | None = None,
        reads: Callable[[], RecentReads | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``reads`` tells what reads took of late; it is asked after each block."""
        self._rows_per_s_max = rows_per_s_max
        self._p99_ms_max = p99_ms_max
        self._reads = reads
        self._clock = clock
        self._free_at = clock()
        self._seen_at: float | None = None
        self._share = 1.0

    @property
    def limited(self) -> bool:
        """Whether anything may ever have to be waited for."""
        return self._rows_per_s_max is not None or self._p99_ms_max is not None

    @property
    def asks(self) -> bool:
        """Whether it matters what reads take."""
        return self._p99_ms_max is not None

    @property
    def heard(self) -> bool:
        """Whether anybody ever told what reads take."""
        return self._seen_at is not None

    @property
    def share(self) -> float:
        """The share of its time that the loader may copy now, from ``SHARE_MIN`` to 1."""
        return self._share

    def after(self, rows: int, took_s: float) -> float:
        """Seconds to wait after a block of ``rows`` whose copying took so long."""
        wait_s = 0.0
        if self._rows_per_s_max is not None:
            now = self._clock()
            self._free_at = max(self._free_at, now - took_s) + rows / self._rows_per_s_max
            wait_s = self._free_at - now
        if self._p99_ms_max is not None:
            self._look(self._p99_ms_max)
            wait_s = max(wait_s, took_s * (1.0 / self._share - 1.0))
        return max(0.0, wait_s)

    def _look(self, p99_ms_max: float) -> None:
        found = self._reads()
        if found is None:
            self._share = 1.0
        elif found.at != self._seen_at:
            # Each reading counts once, however many blocks are copied before the next one.
            factor = BACK_OFF if found.p99_ms > p99_ms_max else RECOVER
            self._share = min(1.0, max(SHARE_MIN, self._share * factor))
            self._seen_at = found.at
