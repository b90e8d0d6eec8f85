"""SIGKILL in the middle of a flip, a snapshot, a truncation and a backfill: at points inside each.

Elsewhere kills come at random and hit these by luck. Here each is hit where it hurts, in a process of its
own, while a router goes on reading and writing. Finalize and restore: test_finalize.py, test_restore.py.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from shadow.core.phases import Phase
from tests.fakes.running import Reader, Running, record_of, running, until
from tests.faults.operations import HELD
from tests.plugins.killing import Killing, Point
from tests.plugins.migrations import SmallMigration, record

OPERATIONS = "tests.faults.operations"

SNAPSHOT = "vectorstore.faiss.snapshot"
BEGINNING = [
    Point("shadow.opening:begin"),
    Point("shadow.writes.journal:Journal.bind", after=True),
    Point(f"{SNAPSHOT}:write_snapshot"),
    Point(f"{SNAPSHOT}:write_snapshot", after=True),
    Point(f"{SNAPSHOT}:verify_snapshot"),
    Point("shadow.writes.journal:Journal.set_cursor", after=True),
]
TRIES_MAX = 20
DECIDING = [
    Point("shadow.routes:RouteBook._note", nth=2),
    Point("shadow.routes:RouteBook.change", after=True),
]
INSIDE: dict[str, list[Point]] = {
    "snapshot": [
        Point("vectorstore.faiss.index_file:_Rows.copy", after=True),
        Point("vectorstore.faiss.index_file:_Rows.end", after=True),
        Point(f"{SNAPSHOT}:write_durably", after=True),
        Point(f"{SNAPSHOT}:sync_directory", nth=2),
        Point(f"{SNAPSHOT}:verify_snapshot"),
        Point("shutil:rmtree"),
        Point("shadow.writes.journal:Journal.set_cursor"),
    ],
    "truncate": [
        Point("shadow.writes.journal:oldest_holder", nth=2),
        Point("shadow.writes.journal:mark_at", nth=2, after=True),
    ],
    "backfill": [
        Point("shadow.writes.backfill:take_backup"),
        Point("shadow.backups.taking:sums_of"),
        Point("shadow.writes.backfill:begin_load", after=True),
        Point("shadow.writes.parts:load_block", nth=2),
        Point("shadow.writes.parts:load_block", nth=2, after=True),
        Point("shadow.writes.backfill:finish_load"),
        Point("shadow.writes.backfill:finish_load", after=True),
        Point("shadow.writes.journal:Journal.release"),
    ],
}


class Writer:
    """Writes through the router all the time; ``acknowledged``: id to the text of its last write."""

    def __init__(self, migration: Running) -> None:
        self._migration = migration
        self.acknowledged: dict[str, str] = {}

    @contextmanager
    def writing(self) -> Iterator[None]:
        stopping = threading.Event()
        failed: list[BaseException] = []

        def write() -> None:
            for version in count(1):
                if stopping.wait(0.005):
                    return
                record = record_of(version % 40, version=version)
                try:
                    self._migration.router.upsert([record])
                except BaseException as error:
                    failed.append(error)
                    return
                self.acknowledged[record.id] = record.text

        thread = threading.Thread(target=write, name="writer")
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()
        assert not failed, failed
        held = {row.id: row.text for row in self._migration.router.scan(limit=100_000)}
        lost = {i: text for i, text in self.acknowledged.items() if held.get(i) != text}
        assert not lost, f"acknowledged and lost: {lost}"


def test_kills_inside_each_operation_lose_nothing(
    tmp_path: Path, postgresql_dsn: str, fresh_table: str, killing: Killing
) -> None:
    """Whatever was cut short, no acknowledged write is lost, no read fails or is older than the read rule
    allows, the next try carries the operation through, and both stores end up the same."""
    with running(tmp_path / "state", postgresql_dsn, fresh_table) as migration:
        journal = migration.operator.journal

        def much_to_cut_off() -> None:
            """More entries than one transaction cuts off, and two snapshots beyond them."""
            journal.hold(HELD, journal.base())
            for start in range(0, 2_500, 500):
                migration.router.upsert([record_of(100 + n) for n in range(start, start + 500)])
            for _ in range(2):
                killing.complete(f"{OPERATIONS}:snapshot", migration.settings)

        much_to_cut_off()
        migration.fill()
        writer, reader = Writer(migration), Reader(migration)

        def cut_short(operation: str, point: Point) -> None:
            """Kill it at the point, and carry it through after that."""
            target = f"{OPERATIONS}:{operation}"
            with reader.reading(), writer.writing():
                killing.cut_short(target, point, migration.settings)
                killing.complete(target, migration.settings)

        def decide(target: str, back: str, phase: Phase, point: Point) -> None:
            """The same for a decision, which the running router is sometimes quicker to carry out."""
            with reader.reading(), writer.writing():
                for _ in range(TRIES_MAX):
                    hit = killing.kills(f"{OPERATIONS}:{target}", point, migration.settings)
                    killing.complete(f"{OPERATIONS}:{target}", migration.settings)
                    until("the decision", lambda: migration.router.route.phase is phase)
                    if hit:
                        return
                    killing.complete(f"{OPERATIONS}:{back}", migration.settings)
            raise AssertionError(f"{target} never came to {point}")

        for operation, points in INSIDE.items():
            for point in points:
                if operation == "truncate":
                    much_to_cut_off()
                cut_short(operation, point)
        for point in DECIDING:
            decide("flip", "roll_back", Phase.POSTGRESQL, point)
            decide("roll_back", "flip", Phase.SHADOW, point)
        migration.proves_equal()
        base, head = journal.base(), migration.head()
        assert base > 0
        assert len(journal.read(base, head)) == head - base


@pytest.mark.parametrize("point", BEGINNING, ids=str)
def test_a_kill_at_the_very_beginning_loses_nothing(
    small_migration: SmallMigration, killing: Killing, point: Point
) -> None:
    """Who dies over the first snapshot leaves a directory that the next process uses, and whose journal
    is not cut off beyond what the snapshots hold."""
    killing.cut_short(f"{OPERATIONS}:begin", point, small_migration.settings)
    with small_migration.routed() as router, small_migration.opened() as migration:
        seq = router.upsert([record("first")])
        migration.journal.truncate(seq)
    with small_migration.routed() as router:
        assert [one.seq for one in router.get(["first"])] == [seq]
