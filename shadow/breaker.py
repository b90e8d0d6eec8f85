"""A circuit breaker: a store that fails again and again is left alone for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Breaker"]


class Breaker:
    """Opens after ``failures_max`` failures in a row; after ``pause_ms`` lets one call try again."""

    def __init__(
        self, *, failures_max: int, pause_ms: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._failures_max = failures_max
        self._pause_s = pause_ms / 1e3
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._retry_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the store is being left alone at the moment."""
        return self._failures >= self._failures_max

    def allows(self) -> bool:
        """Whether to call the store now; when open, true for one caller per pause."""
        if self._failures < self._failures_max:
            return True
        with self._lock:
            now = self._clock()
            if now < self._retry_at:
                return False
            self._retry_at = now + self._pause_s
            return True

    def succeeded(self) -> None:
        """Record an answer: the breaker closes."""
        if self._failures:
            with self._lock:
                self._failures = 0

    def failed(self) -> None:
        """Record a failure."""
        with self._lock:
            self._failures += 1
            if self._failures == self._failures_max:
                self._retry_at = self._clock() + self._pause_s
