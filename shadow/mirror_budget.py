"""Keeps the mirror within its share of the processor, and says when it is busy.

The mirror's own time is that of its thread and of the process that asks for it. What it may take is a
share of one core; where the rest of the process is busy, a twentieth of that.
"""

from __future__ import annotations

import time

from shadow.asking_process import AskingProcess
from shadow.core.sampling import BudgetState, next_rate

__all__ = ["Budget"]

BUDGET_INTERVAL_S = 1.0
# A mirror that takes this share of a core for so long is better asked for by a process of its own.
BUSY_SHARE = 0.05
BUSY_INTERVALS = 3
# What is left of the budget when the rest of the process is busy: there, each moment is a reader's.
BUDGET_SHARE_MIN = 0.05


class Budget:
    """Which share of the rate the processor time that the mirror took allows."""

    def __init__(self, share_max: float, asking: AskingProcess | None) -> None:
        self._share_max = share_max
        self._asking = asking
        self._state = BudgetState(1.0)
        self._busy = 0
        self._measured = self._measure()

    def _measure(self) -> tuple[float, float, float, float]:
        asking_s = self._asking.cpu_s if self._asking else 0.0
        return time.monotonic(), time.thread_time(), asking_s, time.process_time()

    def rate(self) -> float:
        """The share in force; worked out anew once in an interval. Called by the mirror's thread."""
        if time.monotonic() - self._measured[0] < BUDGET_INTERVAL_S:
            return self._state.rate
        before, self._measured = self._measured, self._measure()
        elapsed_s, thread_s, asking_s, process_s = (
            now - then for now, then in zip(self._measured, before, strict=True)
        )
        idle_share = 1.0 - (process_s - thread_s) / elapsed_s
        self._state = next_rate(
            self._state,
            cpu_share=(thread_s + asking_s) / elapsed_s,
            share_max=self._share_max * max(BUDGET_SHARE_MIN, idle_share),
            rate_max=1.0,
        )
        self._busy = self._busy + 1 if thread_s >= BUSY_SHARE * elapsed_s else 0
        return self._state.rate

    @property
    def is_busy(self) -> bool:
        """Whether the mirror's thread has been busy for a while."""
        return self._busy >= BUSY_INTERVALS
