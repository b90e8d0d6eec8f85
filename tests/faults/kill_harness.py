"""Worker processes that are killed with SIGKILL at random times, and what they had acknowledged.

A worker is a function, named ``package.module:function``, that takes an :class:`AckLog` and keyword
arguments. It says what it is about to write (``intend``) and, once the write was acknowledged to it,
``acknowledge``. Each line is one synced append, so what stands there survives the kill, and only the
last line can be torn. The harness keeps the workers running, kills and restarts them until the number
of kills is reached, then kills them all; a worker that ends by itself with an error is a failure.

The sequence of decisions follows from the seed, which is printed; what each kill interrupts does not.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.nursery import ROOT, Nursery, attribute

__all__ = ["ROOT", "AckLog", "KillHarness", "KillReport", "Worker", "run"]

READY_TIMEOUT_S = 30.0
POLL_S = 0.002

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Worker:
    """One process: its name, the function that it runs, and that function's keyword arguments (JSON).

    ``alive_s_max``: how long it lives at most after it is ready, if not as long as the others.
    """

    name: str
    target: str
    arguments: Mapping[str, Any]
    alive_s_max: float | None = None


@dataclass(frozen=True, slots=True)
class KillReport:
    """What happened: kills by worker, and each worker's events in the order it wrote them."""

    seed: int
    kills: Mapping[str, int]
    intended: Mapping[str, list[Event]]
    acknowledged: Mapping[str, list[Event]]

    def interrupted(self) -> Counter[str]:
        """How often a kill came between the beginning and the end of an operation, by its name."""
        begun = _operations(self.intended)
        begun.subtract(_operations(self.acknowledged))
        return begun

    def __str__(self) -> str:
        counts = ", ".join(
            f"{name}: {self.kills[name]} kills, {len(self.acknowledged[name])} acknowledged of "
            f"{len(self.intended[name])} intended"
            for name in self.kills
        )
        return f"seed {self.seed}: {counts}"


def _operations(events: Mapping[str, list[Event]]) -> Counter[str]:
    return Counter(
        event["operation"] for log in events.values() for event in log if "operation" in event
    )


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

    @contextmanager
    def doing(self, operation: str) -> Iterator[None]:
        """Say that an operation begins, and that it ended, well or badly: a kill inside is then seen."""
        self.intend(operation=operation)
        try:
            yield
        finally:
            self.acknowledge(operation=operation)

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

    def __init__(self, nursery: Nursery, worker: Worker, directory: Path, number: int) -> None:
        self.worker = worker
        self.number = number
        self.acks = directory / f"{worker.name}.acks"
        self.errors = directory / f"{worker.name}.stderr"
        self.kill_at: float | None = None
        self._spawned_at = time.monotonic()
        self._offset = self.acks.stat().st_size if self.acks.exists() else 0
        self._nursery = nursery
        self._pid = nursery.start(
            f"{__name__}:run",
            {
                "target": worker.target,
                "acks": str(self.acks),
                "life": number,
                "arguments": dict(worker.arguments),
            },
            stderr=self.errors,
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
        code = self._nursery.poll(self._pid)
        if code not in (None, 0):
            tail = self.errors.read_text(errors="replace")[-4000:]
            raise AssertionError(f"{self.worker.name} ended by itself with code {code}:\n{tail}")
        return code == 0

    def kill(self) -> None:
        # Until it is waited for, its number is given to no other process.
        if self._nursery.poll(self._pid) is None:
            os.kill(self._pid, signal.SIGKILL)
            self._nursery.wait(self._pid)


class KillHarness:
    """Runs workers and kills them. ``alive_s_max`` bounds how long one lives after it is ready."""

    def __init__(
        self,
        directory: Path,
        workers: Sequence[Worker],
        *,
        seed: int,
        alive_s_max: float = 0.4,
    ) -> None:
        self._directory = directory
        self._workers = list(workers)
        self._seed = seed
        self._random = random.Random(seed)
        self._alive_s_max = alive_s_max
        self._lives: dict[str, _Life] = {}

    def run(self, *, kills: int, timeout_s: float = 120.0) -> KillReport:
        """Kill ``kills`` times in all, restarting each time; then kill every worker and report."""
        print(f"kill harness: seed {self._seed}")
        counts = {worker.name: 0 for worker in self._workers}
        deadline = time.monotonic() + timeout_s
        nursery = self._nursery = Nursery()
        try:
            for worker in self._workers:
                self._start(worker)
            while sum(counts.values()) < kills:
                if time.monotonic() > deadline:
                    raise AssertionError(
                        f"{sum(counts.values())} of {kills} kills in {timeout_s} s"
                    )
                for life in list(self._lives.values()):
                    if sum(counts.values()) < kills:
                        self._step(life, counts)
                time.sleep(POLL_S)
        finally:
            for life in self._lives.values():
                life.kill()
            nursery.close()
        report = self._report(counts)
        print(f"kill harness: {report}")
        return report

    def _step(self, life: _Life, counts: dict[str, int]) -> None:
        if life.kill_at is None:
            if life.is_ready():
                longest_s = life.worker.alive_s_max or self._alive_s_max
                life.kill_at = time.monotonic() + self._random.uniform(0, longest_s)
        elif life.has_ended():
            self._start(life.worker)
        elif time.monotonic() >= life.kill_at:
            life.kill()
            counts[life.worker.name] += 1
            self._start(life.worker)

    def _start(self, worker: Worker) -> None:
        earlier = self._lives.get(worker.name)
        number = 0 if earlier is None else earlier.number + 1
        self._lives[worker.name] = _Life(self._nursery, worker, self._directory, number)

    def _report(self, counts: Mapping[str, int]) -> KillReport:
        intended: dict[str, list[Event]] = {}
        acknowledged: dict[str, list[Event]] = {}
        for worker in self._workers:
            events = AckLog.read(self._directory / f"{worker.name}.acks")
            intended[worker.name] = [e for e in events if e["kind"] == "intend"]
            acknowledged[worker.name] = [e for e in events if e["kind"] == "acknowledge"]
        return KillReport(self._seed, dict(counts), intended, acknowledged)


def run(target: str, acks: str, life: int, arguments: Mapping[str, Any]) -> None:
    """Be the worker ``target``."""
    log = AckLog(Path(acks), life=life)
    log.ready()
    getattr(*attribute(target))(log, **arguments)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4]))
