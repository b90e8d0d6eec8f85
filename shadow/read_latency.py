"""What reads take of late, told by the processes that answer to a backfill that asks.

Comparisons cannot say it: nothing is mirrored before there is a copy. So each router keeps the
latencies of its last reads in memory, which costs a reader one append, and writes their 99th percentile
twice a second into a folder of the state directory, which is only there while a backfill wants to know.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["ReadLatencies", "RecentReads", "asked_for", "recent_reads"]

FOLDER = "reads"
PUBLISH_S = 0.5
# A percentile of fewer reads than this is looked for over a longer time.
READS_MIN = 100
READS_KEPT_MAX = 2_000
WINDOW_S = 10.0
# What is older was left by a process that died or has nothing to read.
FRESH_S = 3.0


@dataclass(frozen=True, slots=True)
class RecentReads:
    """The 99th percentile of recent reads; ``at`` in seconds since the epoch."""

    p99_ms: float
    at: float


class ReadLatencies:
    """The latencies of one process's reads. ``add`` may be called by any thread, the rest by one."""

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = directory / FOLDER
        self._clock = clock
        self._published_at = 0.0
        self._new: deque[float] = deque(maxlen=READS_KEPT_MAX)
        self._kept: deque[tuple[float, list[float]]] = deque()
        self.add: Callable[[float], None] = self._new.append
        """Note the seconds that one read took."""

    def publish(self) -> None:
        """Tell a backfill that asks; costs one look at the folder otherwise. To be called often."""
        now = self._clock()
        if now - self._published_at < PUBLISH_S:
            return
        self._published_at = now
        if not self._folder.is_dir():
            self._new.clear()
            self._kept.clear()
            return
        # Readers append meanwhile: what was there is taken, one by one.
        fresh = [self._new.popleft() for _ in range(len(self._new))]
        if not fresh:
            return
        self._kept.append((now, fresh))
        p99_ms = 1e3 * float(np.quantile(self._recent(now), 0.99))
        written = self._folder / f".{os.getpid()}"
        # The backfill may end, and take the folder away, at any moment.
        with suppress(OSError):
            written.write_text(json.dumps({"p99_ms": p99_ms, "at": now}), encoding="ascii")
            written.replace(self._folder / str(os.getpid()))

    def _recent(self, now: float) -> list[float]:
        """The last reads: those since the last look, or more if they are few."""
        found: list[float] = []
        used = 0
        for at, latencies in reversed(self._kept):
            if len(found) >= READS_MIN or now - at > WINDOW_S:
                break
            found += latencies
            used += 1
        while len(self._kept) > used:
            self._kept.popleft()
        return found


@contextmanager
def asked_for(directory: Path) -> Iterator[None]:
    """Have the routers of this state directory tell what their reads take."""
    folder = directory / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def recent_reads(directory: Path, *, clock: Callable[[], float] = time.time) -> RecentReads | None:
    """What the slowest process told of late, or None if nothing was read."""
    found: list[RecentReads] = []
    for path in (directory / FOLDER).glob("[0-9]*"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads(path.read_text(encoding="ascii"))
            found.append(RecentReads(float(told["p99_ms"]), float(told["at"])))
    fresh = [one for one in found if clock() - one.at <= FRESH_S]
    if not fresh:
        return None
    return RecentReads(max(one.p99_ms for one in fresh), max(one.at for one in fresh))
