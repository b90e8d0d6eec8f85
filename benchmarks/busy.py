"""How many of the machine's cores are busy, whoever keeps them so: the server's processes too."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["BusyCores"]

STAT = Path("/proc/stat")
IDLE, IO_WAIT = 3, 4


class BusyCores:
    """From its making until it is asked."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._before = _busy_s()

    def mean(self) -> float:
        """Cores that were busy on average; NaN where the system does not tell."""
        return (_busy_s() - self._before) / (time.perf_counter() - self._started)


def _busy_s() -> float:
    if not STAT.exists():
        return float("nan")
    # Without what the hypervisor gave to others: that is no work of this machine.
    ticks = [int(one) for one in STAT.read_text().splitlines()[0].split()[1:8]]
    return (sum(ticks) - ticks[IDLE] - ticks[IO_WAIT]) / os.sysconf("SC_CLK_TCK")
