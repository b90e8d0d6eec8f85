"""One run of the kill harness over routers, and what must be true after it."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from shadow.config import Settings
from shadow.core.phases import Phase, Request, Wanted
from shadow.opening import Migration, open_migration
from shadow.writes.verify import Clean, verify
from tests.faults.kill_harness import KillHarness, KillReport, Worker
from tests.faults.router_workers import fill
from vectorstore.errors import StoreUnavailable
from vectorstore.postgres.embedded import EmbeddedServer

__all__ = ["PostgresqlKiller", "check", "kill_routers", "settings_of"]

WORKERS = "tests.faults.router_workers"
LEVEL_WITHIN_S = 60.0
OPERATOR_ALIVE_S_MAX = 5.0


def settings_of(directory: Path, dsn: str) -> dict[str, Any]:
    """Settings of a small migration under ``directory``, as JSON."""
    return {
        "state_directory": str(directory / "state"),
        "faiss": {"dimension": 4},
        "postgresql": {"dsn": dsn, "table": "killed", "pool_size_max": 3},
        "journal": {"snapshot_entries": 100, "apply_batch_max": 20},
        "mirror": {"events": "off"},
        "gate": {"verify_every_s": 0},
        "log_level": "error",
    }


def kill_routers(
    directory: Path, settings: Mapping[str, Any], *, kills: int, seed: int, timeout_s: float = 180.0
) -> KillReport:
    """Three writers, a backfill and an operator, killed at random."""
    both = {"settings": dict(settings)}
    workers = [
        Worker(name, f"{WORKERS}:write", {**both, "name": name}) for name in ("one", "two", "three")
    ]
    workers.append(Worker("backfill", f"{WORKERS}:copy_again_and_again", both))
    # Who is killed before the copy is complete decides nothing.
    workers.append(Worker("operator", f"{WORKERS}:decide", both, alive_s_max=OPERATOR_ALIVE_S_MAX))
    harness = KillHarness(directory, workers, seed=seed, alive_s_max=1.5)
    return harness.run(kills=kills, timeout_s=timeout_s)


class PostgresqlKiller:
    """Stops the server at once, or kills one of its backends, at random times; and starts it again.

    ``pause_s_max`` is the longest time between two of these.
    """

    def __init__(self, directory: Path, *, seed: int, pause_s_max: float = 1.5) -> None:
        self._pause_s_max = pause_s_max
        self._directory = directory
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        self._server = EmbeddedServer(directory)
        self.dsn = self._server.start()
        self.kills: Counter[str] = Counter()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Kill for the length of the block; at its end the server runs."""
        thread = threading.Thread(target=self._run, name="postgresql killer")
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join()
            self._restart()

    def close(self) -> None:
        """Take the server down and remove it."""
        self._server.destroy()

    def stop_at_once(self) -> None:
        """An immediate shutdown: no checkpoint, recovery at the next start."""
        pid = self._server.pid
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)
        self.kills["immediate stop"] += 1

    def kill_backend(self) -> None:
        """SIGKILL of one backend, after which the server recovers by itself."""
        with suppress(psycopg.Error), psycopg.connect(self.dsn, connect_timeout=5) as connection:
            found = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' "
                "AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1"
            ).fetchone()
            if found is not None:
                os.kill(found[0], signal.SIGKILL)
                self.kills["backend"] += 1

    def _run(self) -> None:
        while not self._stopping.wait(self._random.uniform(0.3, self._pause_s_max)):
            if self._random.random() < 0.5:
                self.kill_backend()
            else:
                self.stop_at_once()
                self._stopping.wait(self._random.uniform(0.0, 1.0))
                self._restart()

    def _restart(self) -> None:
        """Another owner starts it, on the same port, as the next router process would."""
        deadline = time.monotonic() + LEVEL_WITHIN_S
        while True:
            server = EmbeddedServer(self._directory)
            try:
                assert server.start() == self.dsn, "the port was taken"
            except StoreUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
                continue
            self._server = server
            return


def check(settings: Mapping[str, Any], report: KillReport) -> Counter[str]:
    """No acknowledged write is lost, both stores hold the same truth, the journal has no gap."""
    migration = open_migration(Settings.model_validate(settings))
    tally: Counter[str] = Counter()
    try:
        rows = _level(migration)
        base, head = migration.journal.base(), migration.journal.head()
        entries = [change.seq for change in migration.journal.read(base, head - base + 1)]
        while entries and entries[-1] < head:
            entries += [c.seq for c in migration.journal.read(entries[-1], head)]
        assert entries == list(range(base + 1, head + 1)), "the journal has a gap"
        writers = [name for name in report.acknowledged if name in ("one", "two", "three")]
        acknowledged = [event for name in writers for event in report.acknowledged[name]]
        intended = [event for name in writers for event in report.intended[name]]
        seqs = [event["seq"] for event in acknowledged]
        assert len(set(seqs)) == len(seqs), "two writes were acknowledged under one number"
        assert max(seqs, default=0) <= head
        unanswered = {event["op"] for event in intended} - {event["op"] for event in acknowledged}
        for record_id in {event["id"] for event in intended}:
            last = max(
                (event for event in acknowledged if event["id"] == record_id),
                key=lambda event: event["seq"],
                default={"seq": 0, "text": None},
            )
            held = rows.get(record_id)
            maybe = {
                event["text"]
                for event in intended
                if event["id"] == record_id and event["op"] in unanswered
            }
            if held is None:
                assert last["text"] is None or None in maybe, f"{last} is lost"
            else:
                seq, text = held
                assert seq >= last["seq"], f"{last} is hidden behind {held}"
                expected = {last["text"]} if seq == last["seq"] else maybe
                assert text in expected, f"{record_id} holds {held}, expected one of {expected}"
        tally["acknowledged"] = len(acknowledged)
        tally["unanswered"] = len(unanswered)
        tally["backfills"] = sum("backfill" in e for e in report.acknowledged.get("backfill", ()))
        phases = [e["phase"] for e in report.acknowledged.get("operator", ()) if "phase" in e]
        tally["flips"] = phases.count(Phase.POSTGRESQL.value)
        tally["truncated to"] = base
        tally.update({f"killed inside a {k}": n for k, n in report.interrupted().items()})
    finally:
        migration.close()
    return tally


def _level(migration: Migration) -> dict[str, tuple[int, str]]:
    """Bring PostgreSQL level, prove by digests that both stores are the same, and return the rows."""
    deadline = time.monotonic() + LEVEL_WITHIN_S
    migration.routes.ask(Request(Wanted.FAISS, "check", "the run is over"))
    faiss = migration.load_faiss()
    while True:
        try:
            migration.postgresql.follow()
            if migration.postgresql.standing.following:
                break
            migration.cutover.step(who="check")
            fill(migration)
        except StoreUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    store = migration.link.open()
    result = verify(faiss=faiss, postgresql=store)
    assert isinstance(result, Clean), result
    rows = {row.id: (row.seq, row.text) for row in faiss.store.scan()}
    assert rows == {row.id: (row.seq, row.text) for row in store.scan()}
    return rows
