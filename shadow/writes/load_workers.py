"""Carries the parts of a load in processes of their own, at the pace that is allowed.

A process each, because building blocks and handing them to the driver keeps Python's interpreter busy,
and because PostgreSQL copies on one core per connection. The parent copies nothing: it gives leave for
each block and hears of each commit, so that a pace holds for all of them together.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from shadow.writes.pace import Pace
from shadow.writes.parts import Part
from vectorstore import errors
from vectorstore.errors import StoreUnavailable, VectorStoreError
from vectorstore.postgres.settings import PostgresSettings

__all__ = ["carry_in_processes", "default_workers"]

_DEFAULT_MAX = 4
# Leave given ahead while nothing limits the pace, so that no block waits for this process.
_AHEAD = 2
_READ_BYTES = 1 << 16
# A block under way when the others are stopped is finished or times out at the server.
_STOP_S = 35.0


def default_workers() -> int:
    """One process less than there are cores, so that one is left to answer; 1 to 4."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(_DEFAULT_MAX, cores - 1))


def carry_in_processes(
    parts: Sequence[Part],
    *,
    snapshot: Path,
    settings: PostgresSettings,
    workers: int,
    pace: Pace,
    on_rows: Callable[[int], None],
    lock: int,
) -> None:
    """Copy what is left of ``parts``, ``workers`` of them at a time.

    ``on_rows`` is told the rows of each block when it is committed, and 0 when a process is ready.
    ``lock`` is a file that the processes inherit: while one of them lives, it is locked. Raises the
    error of the first one that fails; the others are stopped, and what they committed stays.
    """
    waiting = deque(part for part in parts if part.left)
    running: set[_Worker] = set()
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    worker = _Worker(waiting.popleft(), snapshot, settings, lock)
                    running.add(worker)
                    selector.register(worker.reports, selectors.EVENT_READ, worker)
                due = min((one.due_at for one in running if one.due_at is not None), default=None)
                wait_s = None if due is None else max(0.0, due - time.monotonic())
                for key, _ in selector.select(wait_s):
                    worker = key.data
                    blocks = worker.heard()
                    if blocks is None:
                        selector.unregister(worker.reports)
                        running.remove(worker)
                        worker.ended()
                        continue
                    for rows, took_s in blocks:
                        on_rows(rows)
                        worker.answer(rows, took_s, pace)
                for worker in running:
                    if worker.due_at is not None and worker.due_at <= time.monotonic():
                        worker.permit()
        finally:
            for worker in running:
                worker.let_go()
            for worker in running:
                worker.stop()


class _Worker:
    """One process and the part that it copies."""

    def __init__(self, part: Part, snapshot: Path, settings: PostgresSettings, lock: int) -> None:
        self.due_at: float | None = None
        """When the next block may begin; None while one is under way."""
        self._left = part.left
        self._error: VectorStoreError | None = None
        self._unread = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "shadow.writes.load_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(lock,),
            # Ctrl-C reaches the whole group of a terminal: what it means is decided by this process alone.
            process_group=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._leave = self._process.stdin
        self.reports = self._process.stdout
        job = {"snapshot": str(snapshot), "settings": asdict(settings), "part": asdict(part)}
        self._began_at = time.monotonic()
        self._say(json.dumps(job).encode())

    def answer(self, rows: int, took_s: float, pace: Pace) -> None:
        """What follows a report: leave now or later, or none because the part is copied."""
        if not self._left:
            self.let_go()
        elif pace.limited and rows:
            self.due_at = time.monotonic() + pace.after(rows, took_s)
        else:
            for _ in range(1 if pace.limited or rows else _AHEAD):
                self.permit()

    def permit(self) -> None:
        """Give leave for one more block."""
        self.due_at = None
        self._began_at = time.monotonic()
        self._say(b"")

    def heard(self) -> list[tuple[int, float]] | None:
        """Rows and seconds of the blocks committed since (0 rows: ready); None when it has ended."""
        data = os.read(self.reports.fileno(), _READ_BYTES)
        if not data:
            return None
        *lines, self._unread = (self._unread + data).split(b"\n")
        blocks: list[tuple[int, float]] = []
        now = time.monotonic()
        for line in lines:
            told = json.loads(line)
            if "error" in told:
                kind = getattr(errors, told["error"], StoreUnavailable)
                self._error = kind(told["why"])
                continue
            self._left -= told["rows"]
            blocks.append((told["rows"], now - self._began_at))
            self._began_at = now
        return blocks

    def ended(self) -> None:
        """Take leave of a process that has ended; raises if its part is not copied."""
        self.let_go()
        self.reports.close()
        code = self._process.wait()
        if self._error is not None:
            raise self._error
        if self._left:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise StoreUnavailable(
                f"a process that copied rows ended by {how} with {self._left:,} rows of its part to "
                "go. What was committed stays: run `shadow backfill` again, and it goes on there; if "
                "memory is short, with --workers 1"
            )

    def let_go(self) -> None:
        """Give no more leave: the process ends after what it was allowed."""
        with suppress(BrokenPipeError):
            self._leave.close()

    def stop(self) -> None:
        """Wait for the end of a process that was let go of."""
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.reports.close()

    def _say(self, line: bytes) -> None:
        # A process that has died is met when its reports end.
        with suppress(BrokenPipeError):
            self._leave.write(line + b"\n")
            self._leave.flush()
