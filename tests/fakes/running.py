"""A migration that runs: a router as the application has it, and an operator beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from psycopg import conninfo

from shadow.config import Settings
from shadow.core.phases import Phase, Request, Wanted
from shadow.opening import Migration, open_migration
from shadow.router import Router
from shadow.service import open_router
from shadow.writes.backfill import backfill
from shadow.writes.verify import Clean, verify
from vectorstore.types import Query, Record

__all__ = ["DIMENSION", "QUERY", "Reader", "Running", "record_of", "running", "through", "until"]

DIMENSION = 8
QUERY = Query(np.ones(DIMENSION, dtype=np.float32), k=10)
WITHIN_S = 60.0
STALENESS_MS_MAX = 1_000.0
# Between the look at the clock and the answer a machine under load may lose this much.
SLACK_MS = 250.0


@dataclass(frozen=True)
class Running:
    """``router`` takes reads and writes; ``operator`` has the same state directory open."""

    settings: Settings
    router: Router
    operator: Migration

    def fill(self) -> None:
        """Backfill, and wait until queries may be mirrored."""
        operator = self.operator
        backfill(
            directory=operator.directory,
            journal=operator.journal,
            snapshots=operator.snapshots,
            store=operator.link.open(),
            current=lambda: operator.load_faiss().store,
        )
        until("the phase shadow", lambda: self.router.route.phase is Phase.SHADOW)

    def ask(self, wanted: Wanted) -> None:
        """What the commands do: note the wish, and take the step if it may be taken."""
        force = "a test" if wanted is Wanted.POSTGRESQL else None
        self.operator.routes.ask(Request(wanted, "operator", "a test", force))
        if wanted is Wanted.POSTGRESQL:
            self.operator.postgresql.look()
        self.operator.lag.refresh()
        self.operator.cutover.step(who="operator")

    def flip(self) -> None:
        """Make PostgreSQL the primary and wait until the router answers from it."""
        self.ask(Wanted.POSTGRESQL)
        until("the flip", lambda: self.router.route.phase is Phase.POSTGRESQL)
        until("its answer", lambda: self.router.search(QUERY).store == "postgresql")

    def proves_equal(self) -> int:
        """Wait until PostgreSQL is level; the number of rows, which a verify found the same."""
        until("catching up", lambda: self.operator.postgresql.look().applied_seq == self.head())
        faiss = self.operator.load_faiss()
        store = self.operator.link.open()
        result = verify(faiss=faiss, postgresql=store)
        assert isinstance(result, Clean), result
        return result.rows

    def head(self) -> int:
        """The journal's head."""
        return self.operator.journal.head()


@contextmanager
def running(directory: Path, dsn: str, table: str, **sections: dict[str, Any]) -> Iterator[Running]:
    """A migration over an empty FAISS index in ``directory``; ``sections`` of settings over these."""
    settings = Settings.model_validate(
        {
            "state_directory": directory,
            "faiss": {"dimension": DIMENSION},
            "postgresql": {"dsn": dsn, "table": table, "connect_timeout_ms": 1_000},
            # Without evidence nothing is rolled back by statistics: what a test sees is the read rule.
            "mirror": {"events": "off", "rate": 0.0},
            "gate": {"verify_every_s": 0},
            **sections,
        }
    )
    application = open_router(settings)
    try:
        operator = open_migration(settings)
        try:
            yield Running(settings, application, operator)
        finally:
            operator.close()
    finally:
        application.close()


def through(dsn: str, port: int) -> str:
    """The same server by way of a proxy on ``port``."""
    return dsn.replace(f":{conninfo.conninfo_to_dict(dsn)['port']}/", f":{port}/")


def record_of(number: int, *, version: int = 0) -> Record:
    """A record whose vector follows from its number and version."""
    vector = np.random.default_rng((number, version)).normal(size=DIMENSION).astype(np.float32)
    return Record(f"r{number:06d}", vector, f"{number} {version}", {"version": version})


def until(what: str, met: Callable[[], bool], seconds: float = WITHIN_S) -> None:
    """Poll until ``met``."""
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds} s"
        time.sleep(0.01)


@dataclass
class Reader:
    """Reads all the time, and holds every answer against the read rule.

    ``acknowledged`` and ``deleted`` are kept by the writer: the highest seq that it was told, and ids
    that it deleted for good, with the seq of that.
    """

    running: Running
    acknowledged: int = 0
    deleted: dict[str, int] = field(default_factory=dict)
    stores: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read for the length of the block; a fault fails it."""
        stopping = threading.Event()

        def read() -> None:
            while not stopping.is_set():
                try:
                    self._read()
                except Exception as error:
                    self.faults.append(f"a read failed: {type(error).__name__}: {error}")
                stopping.wait(0.002)

        thread = threading.Thread(target=read, name="reader")
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()
        assert not self.faults, self.faults[:3]

    def _read(self) -> None:
        floor, gone, asked_at = self.acknowledged, dict(self.deleted), time.time()
        answer = self.running.router.search(QUERY)
        self.stores.append(answer.store)
        where = f"{answer.store} at {answer.applied_seq}"
        if answer.applied_seq < floor:
            self.faults.append(f"{where}, and {floor} was acknowledged")
        for hit in answer.hits:
            if hit.id in gone and gone[hit.id] <= floor:
                self.faults.append(f"{where} returned {hit.id}, deleted at {gone[hit.id]}")
        oldest = self.running.operator.journal.appended_at(answer.applied_seq + 1)
        if oldest is not None and (asked_at - oldest) * 1e3 > STALENESS_MS_MAX + SLACK_MS:
            self.faults.append(f"{where} lacks a write of {asked_at - oldest:.2f} s before")
