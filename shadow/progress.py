"""How long something will take, and how fast a table grows: by what was seen since one began to look."""

from __future__ import annotations

import time

__all__ = ["GrowthClock", "PaceClock"]

# Before that a rate says nothing.
GROWTH_S_MIN = 60.0


class PaceClock:
    """How long something will take that is counted, at its pace since it was first seen."""

    def __init__(self) -> None:
        self._began: tuple[str, float, int] | None = None

    def left_s(self, what: str, done: int, total: int) -> float | None:
        """Seconds; None until there is a pace. Another ``what``, or a count that fell, begins anew."""
        now = time.monotonic()
        if self._began is None or self._began[0] != what or done < self._began[2]:
            self._began = (what, now, done)
        _, since, first = self._began
        pace = (done - first) / (now - since) if now > since else 0.0
        return max(0, total - done) / pace if pace > 0 else None


class GrowthClock:
    """Remembers how large something was when it was first seen."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def look(self, size_bytes: int) -> float | None:
        """Bytes an hour since then; None for the first minute."""
        now = time.monotonic()
        if self._first is None:
            self._first = (now, size_bytes)
        since, first = self._first
        return None if now - since < GROWTH_S_MIN else (size_bytes - first) / (now - since) * 3600
