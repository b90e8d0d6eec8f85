"""A process whose disk runs full while its router works, and what it saw of it; prints JSON.

``how`` says what makes the disk full: ``ballast`` fills the file system of the state directory, which must
be a small one of its own; ``limit`` forbids this process to write any file beyond its first bytes, as a
quota does, and needs no privilege.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import structlog

from shadow.backups.shelf import BackupShelf
from shadow.backups.taking import take_backup
from shadow.core.phases import Phase
from shadow.errors import JournalUnavailable
from shadow.writes.snapshots import BACKFILL_HOLD
from tests.fakes.file_limit import file_limit
from tests.fakes.running import QUERY, Reader, Running, record_of, running, until
from vectorstore.errors import VectorStoreError

__all__ = ["Report"]

LIMIT_BYTES = 1_024
CHUNK_BYTES = 4_096
LEFT_BYTES = 64 << 10
REFUSALS = 20
WRITES_MAX = 5_000
READS = 200


@dataclass
class Report:
    """What happened, in the order of the fields."""

    refusals: list[str] = field(default_factory=list)
    reads_while_full: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    snapshot_error: str = ""
    snapshot_in_force: bool = False
    backup_error: str = ""
    backfill_error: str = ""
    unfinished: list[str] = field(default_factory=list)
    holds: list[str] = field(default_factory=list)
    postgresql_state: str = ""
    first_write_after: str = ""
    missing: list[str] = field(default_factory=list)
    acknowledged: int = 0
    rows: int = 0
    compared_before: int = 0
    compared_while_full: int = 0
    compared_after: int = 0


def main(told: str) -> None:
    """Run it all on the state directory, PostgreSQL and way of filling that ``told`` names."""
    options = json.loads(told)
    directory = Path(options["directory"])
    full = {
        "ballast": lambda: _ballast(directory.parent),
        "limit": lambda: file_limit(LIMIT_BYTES),
    }[options["how"]]
    report = Report()
    with (
        running(
            directory, options["dsn"], options["table"], mirror={"events": "each", "rate": 1.0}
        ) as migration,
        (directory / "events.log").open("w") as events,
    ):
        structlog.configure(logger_factory=structlog.WriteLoggerFactory(events))
        _live_through(migration, full, report)
        structlog.reset_defaults()
        # What it holds cannot always be flushed; it is no part of what is tested.
        with suppress(OSError):
            events.flush()
    print(json.dumps(asdict(report)))


def _live_through(migration: Running, full: Callable[[], Any], report: Report) -> None:
    router, operator = migration.router, migration.operator
    acknowledged: dict[str, str] = {}

    def write(number: int, version: int) -> None:
        record = record_of(number, version=version)
        router.upsert([record])
        acknowledged[record.id] = record.text

    for number in range(100):
        write(number, 0)
    migration.fill()
    operator.cutover.ramp(0.5, who="test", why="both stores answer")
    until("the ramp", lambda: router.route.phase is Phase.RAMP)
    reader = Reader(migration)
    until("comparisons", lambda: _read(migration) and _compared(operator) >= 10)
    report.compared_before = _compared(operator)
    with reader.reading():
        with full():
            number = 0
            while len(report.refusals) < REFUSALS and number < WRITES_MAX:
                number += 1
                try:
                    write(number % 150, number)
                except JournalUnavailable as error:
                    report.refusals.append(str(error))
            seen = len(reader.stores)
            until("reads", lambda: len(reader.stores) >= seen + READS)
            report.reads_while_full = dict(Counter(reader.stores[seen:]))
            report.compared_while_full = _compared(operator)
            _try_to_keep(migration, report)
        until("the first write", lambda: _first_write(write, report))
        for number in range(200, 300):
            write(number, 1)
        until("comparisons again", lambda: _compared(operator) > report.compared_while_full)
        report.rows = migration.proves_equal()
        assert operator.snapshots.make(operator.load_faiss().store) is not None
    report.faults = reader.faults
    report.compared_after = _compared(operator)
    held = {record.id: record.text for record in router.scan(limit=10_000)}
    report.missing = [name for name, text in acknowledged.items() if held.get(name) != text]
    report.acknowledged = len(acknowledged)


def _first_write(write: Callable[[int, int], None], report: Report) -> bool:
    """The very first one has to succeed: nothing needs to be done by hand."""
    try:
        write(199, 1)
    except JournalUnavailable as error:
        report.first_write_after = str(error)
        return False
    report.first_write_after = report.first_write_after or "acknowledged"
    return True


def _try_to_keep(migration: Running, report: Report) -> None:
    """What else wants to write to that disk fails clearly and leaves everything as it was."""
    operator = migration.operator
    before = operator.snapshots.newest()
    try:
        operator.snapshots.make(operator.load_faiss().store)
    except VectorStoreError as error:
        report.snapshot_error = str(error)
    report.snapshot_in_force = operator.snapshots.newest() == before
    whole = BackupShelf(operator.directory).timestamps()
    try:
        take_backup(
            directory=operator.directory,
            journal=operator.journal,
            snapshots=operator.snapshots,
            kept=1,
            postgresql=operator.link.open,
        )
    except VectorStoreError as error:
        report.backup_error = str(error)
    try:
        migration.fill()
    except VectorStoreError as error:
        report.backfill_error = str(error)
    assert BackupShelf(operator.directory).timestamps() == whole
    report.unfinished = [
        path.name
        for folder in ("backups", "snapshots")
        for path in (operator.directory / folder).iterdir()
        if path.name.startswith(".")
    ]
    report.holds = [name for name in operator.journal.holds() if name == BACKFILL_HOLD]
    report.postgresql_state = operator.postgresql.look().state


def _read(migration: Running) -> bool:
    return bool(migration.router.search(QUERY).hits)


def _compared(operator: Any) -> int:
    era = operator.evidence.era()
    if era is None:
        return 0
    counts = operator.evidence.counts(era.number, "postgresql")
    return sum(
        sum(values.values()) for (figure, _), values in counts.items() if figure == "success"
    )


@contextmanager
def _ballast(disk: Path) -> Iterator[None]:
    """Next to nothing is left on the file system for the length of the block."""
    path = disk / "ballast"
    with path.open("wb", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(b"x" * CHUNK_BYTES)
        file.truncate(file.tell() - LEFT_BYTES)
        yield
    path.unlink()


if __name__ == "__main__":
    main(sys.argv[1])
