"""Worker processes that are killed with SIGKILL at random times, and what they had acknowledged.

A worker is a function, named ``package.module:function``, that takes an :class:`AckLog` and keyword
arguments. It says what it is about to write (``intend``) and, once the write was acknowledged to it,
``acknowledge``. Each line is one synced append, so what stands there survives the kill, and only the
last line can be torn. The harness keeps the workers running, kills and restarts them until the number
of kills is reached, then kills them all; a worker that ends by itself with an error is a failure.

The sequence of decisions follows from the seed, which is printed; what each kill interrupts does not.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["AckLog", "KillHarness", "KillReport", "Worker"]

ROOT = Path(__file__).resolve().parents[2]
READY_TIMEOUT_S = 30.0
POLL_S = 0.002

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Worker:
    """One process: its name, the function that it runs, and that function's keyword arguments (JSON)."""

    name: str
    target: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class KillReport:
    """What happened: kills by worker, and each worker's events in the order it wrote them."""

    seed: int
    kills: Mapping[str, int]
    intended: Mapping[str, list[Event]]
    acknowledged: Mapping[str, list[Event]]

    def __str__(self) -> str:
        counts = ", ".join(
            f"{name}: {self.kills[name]} kills, {len(self.acknowledged[name])} acknowledged of "
            f"{len(self.intended[name])} intended"
            for name in self.kills
        )
        return f"seed {self.seed}: {counts}"


class AckLog:
    """The append-only file of one worker, through all its lives.

    ``life`` counts the worker's starts from 0, so that a worker can make keys that never repeat.
    """

    def __init__(self, path: Path, *, life: int) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.life = life

    def intend(self, **event: Any) -> None:
        """Say what is about to be tried: a write that was not acknowledged may still be there."""
        self._append({"kind": "intend", **event})

    def acknowledge(self, **event: Any) -> None:
        """Say what was acknowledged: from here on it may not be lost."""
        self._append({"kind": "acknowledge", **event})

    def ready(self) -> None:
        """Tell the harness that the imports are done and the clock of the next kill may run."""
        self._append({"kind": "ready", "life": self.life})

    def _append(self, event: Event) -> None:
        # The newline comes first, so that a line torn by an earlier kill cannot swallow this one.
        os.write(self._file, b"\n" + json.dumps(event).encode())
        os.fdatasync(self._file)

    @staticmethod
    def read(path: Path) -> list[Event]:
        """Every whole event of a worker's file; torn lines were never complete and are left out."""
        events: list[Event] = []
        for line in path.read_bytes().split(b"\n") if path.exists() else []:
            try:
                events.append(json.loads(line))
            except ValueError:
                continue
        return events


class _Life:
    """A worker's current process, and when it is to be killed."""

    def __init__(
        self, worker: Worker, directory: Path, number: int, env: Mapping[str, str]
    ) -> None:
        self.worker = worker
        self.number = number
        self.acks = directory / f"{worker.name}.acks"
        self.errors = directory / f"{worker.name}.stderr"
        self.kill_at: float | None = None
        self._spawned_at = time.monotonic()
        self._offset = self.acks.stat().st_size if self.acks.exists() else 0
        with self.errors.open("ab") as stderr:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.faults.kill_harness",
                    worker.target,
                    str(self.acks),
                    str(number),
                    json.dumps(dict(worker.arguments)),
                ],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )

    def is_ready(self) -> bool:
        """Whether the worker said so; raises if it takes too long or ended with an error."""
        if self.acks.exists() and self.acks.stat().st_size > self._offset:
            return True
        if time.monotonic() - self._spawned_at > READY_TIMEOUT_S:
            raise AssertionError(f"{self.worker.name} was not ready in {READY_TIMEOUT_S} s")
        self.has_ended()
        return False

    def has_ended(self) -> bool:
        """Whether the worker ended by itself; raises with its stderr if that was an error."""
        code = self.process.poll()
        if code not in (None, 0):
            tail = self.errors.read_text(errors="replace")[-4000:]
            raise AssertionError(f"{self.worker.name} ended by itself with code {code}:\n{tail}")
        return code == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class KillHarness:
    """Runs workers and kills them. ``alive_s_max`` bounds how long one lives after it is ready."""

    def __init__(
        self,
        directory: Path,
        workers: Sequence[Worker],
        *,
        seed: int,
        alive_s_max: float = 0.4,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._directory = directory
        self._workers = list(workers)
        self._seed = seed
        self._random = random.Random(seed)
        self._alive_s_max = alive_s_max
        self._env = dict(env or {})
        self._lives: dict[str, _Life] = {}

    def run(self, *, kills: int, timeout_s: float = 120.0) -> KillReport:
        """Kill ``kills`` times in all, restarting each time; then kill every worker and report."""
        print(f"kill harness: seed {self._seed}")
        counts = {worker.name: 0 for worker in self._workers}
        deadline = time.monotonic() + timeout_s
        try:
            for worker in self._workers:
                self._start(worker)
            while sum(counts.values()) < kills:
                if time.monotonic() > deadline:
                    raise AssertionError(
                        f"{sum(counts.values())} of {kills} kills in {timeout_s} s"
                    )
                for life in list(self._lives.values()):
                    self._step(life, counts)
                time.sleep(POLL_S)
        finally:
            for life in self._lives.values():
                life.kill()
        report = self._report(counts)
        print(f"kill harness: {report}")
        return report

    def _step(self, life: _Life, counts: dict[str, int]) -> None:
        if life.kill_at is None:
            if life.is_ready():
                life.kill_at = time.monotonic() + self._random.uniform(0, self._alive_s_max)
        elif life.has_ended():
            self._start(life.worker)
        elif time.monotonic() >= life.kill_at:
            life.kill()
            counts[life.worker.name] += 1
            self._start(life.worker)

    def _start(self, worker: Worker) -> None:
        earlier = self._lives.get(worker.name)
        number = 0 if earlier is None else earlier.number + 1
        self._lives[worker.name] = _Life(worker, self._directory, number, self._env)

    def _report(self, counts: Mapping[str, int]) -> KillReport:
        intended: dict[str, list[Event]] = {}
        acknowledged: dict[str, list[Event]] = {}
        for worker in self._workers:
            events = AckLog.read(self._directory / f"{worker.name}.acks")
            intended[worker.name] = [e for e in events if e["kind"] == "intend"]
            acknowledged[worker.name] = [e for e in events if e["kind"] == "acknowledge"]
        return KillReport(self._seed, dict(counts), intended, acknowledged)


def _run(target: str, acks: str, life: str, arguments: str) -> None:
    module, _, function = target.partition(":")
    work = getattr(importlib.import_module(module), function)
    log = AckLog(Path(acks), life=int(life))
    log.ready()
    work(log, **json.loads(arguments))


if __name__ == "__main__":
    _run(*sys.argv[1:])
