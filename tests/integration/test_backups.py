"""Backups are whole, checked, named by their moment, kept up to a number, and made while writes go on."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from psycopg import sql

from shadow.backups.manifest import BEFORE_BACKFILL, FULL, BackupManifest
from shadow.backups.shelf import BackupShelf
from shadow.backups.taking import take_backup
from shadow.errors import RestoreRefused
from shadow.opening import Migration
from shadow.writes.journal import Journal
from tests.fakes.file_limit import file_limit
from tests.plugins.migrations import SmallMigration, record, until
from vectorstore.errors import ConfigurationError, InvalidInput, StoreUnavailable
from vectorstore.postgres.copies import dump_rows
from vectorstore.postgres.loading import LoadProgress, begin_load


def take(migration: Migration, *, kept: int = 7, at: float | None = None) -> BackupManifest:
    ticks = itertools.count(at or 0)
    return take_backup(
        directory=migration.directory,
        journal=migration.journal,
        snapshots=migration.snapshots,
        kept=kept,
        postgresql=migration.link.open,
        **({} if at is None else {"clock": lambda: float(next(ticks))}),
    )


def test_a_backup_under_writes_is_consistent(
    small_migration: SmallMigration, tmp_path: Path
) -> None:
    """Made while a router writes, it holds a snapshot, rows and a journal that fit without a gap, and
    every file matches its checksum."""
    small_migration.filled()
    with small_migration.opened() as migration, small_migration.routed() as router:
        stop = threading.Event()

        def write() -> None:
            for number in itertools.count():
                if stop.is_set():
                    return
                router.upsert([record(f"w-{number % 50}", f"text {number}")])

        writer = threading.Thread(target=write)
        writer.start()
        try:
            made = take(migration)
        finally:
            stop.set()
            writer.join()
        path, manifest = BackupShelf(migration.directory).verified(made.timestamp)
    assert manifest == made
    assert manifest.kind == FULL
    assert manifest.postgresql is not None
    assert manifest.postgresql.rows >= 20
    assert max(manifest.snapshot_seq, manifest.postgresql.seq) <= manifest.head
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "journal.db").write_bytes((path / "journal.db").read_bytes())
    journal = Journal.open(copy)
    assert journal.head() == manifest.head
    after = min(manifest.snapshot_seq, manifest.postgresql.seq)
    assert len(journal.read(after, 10**6)) == manifest.head - after
    journal.close()


def test_a_damaged_backup_is_refused(small_migration: SmallMigration) -> None:
    """A flipped byte, a missing file and an unknown timestamp are told by name."""
    small_migration.filled()
    with small_migration.opened() as migration:
        made = take(migration)
        shelf = BackupShelf(migration.directory)
        rows = shelf.path / made.timestamp / "postgresql.copy"
        content = bytearray(rows.read_bytes())
        content[len(content) // 2] ^= 1
        rows.write_bytes(content)
        with pytest.raises(RestoreRefused, match=r"postgresql\.copy"):
            shelf.verified(made.timestamp)
        with pytest.raises(InvalidInput, match=made.timestamp):
            shelf.verified("20000101T000000Z")


def test_old_backups_go_and_each_kind_keeps_its_own(small_migration: SmallMigration) -> None:
    """Of each kind the newest are kept: backfills do not push scheduled backups out. A backfill makes
    one by itself, without rows."""
    small_migration.filled()
    with small_migration.opened() as migration:
        made = [take(migration, kept=2, at=1_000.0 * (1 + n)).timestamp for n in range(3)]
        kinds = {one.timestamp: one for one in BackupShelf(migration.directory).manifests()}
    assert set(made[1:]) <= kinds.keys()
    assert made[0] not in kinds
    automatic = [one for one in kinds.values() if one.kind == BEFORE_BACKFILL]
    assert len(automatic) == 1
    assert automatic[0].postgresql is None


def test_a_clock_that_was_set_back_takes_no_new_backup_away(
    small_migration: SmallMigration,
) -> None:
    """The backup that was just made stays, although its name is older than those of the others."""
    small_migration.filled()
    with small_migration.opened() as migration:
        made = [take(migration, kept=2, at=at).timestamp for at in (9_000.0, 9_500.0, 1_000.0)]
        left = BackupShelf(migration.directory).manifests()
    assert {one.timestamp for one in left if one.kind == FULL} == set(made[1:])


def test_a_login_that_is_refused_is_no_reason_to_have_no_backup(
    small_migration: SmallMigration,
) -> None:
    """FAISS and the journal hold everything; the backup says why PostgreSQL's rows are not in it."""
    small_migration.filled()
    with small_migration.opened() as migration:
        refused = mock.patch.object(
            type(migration.link), "open", side_effect=ConfigurationError("refused the login")
        )
        with refused:
            made = take(migration)
    assert (made.postgresql, made.without_rows) == (None, "refused the login")


def test_without_postgresql_the_backup_says_what_it_lacks(
    small_migration: SmallMigration,
) -> None:
    """PostgreSQL that is away or was never filled is no reason to have no backup."""
    with small_migration.routed() as router:
        router.upsert([record("a")])
    away = small_migration.with_settings(
        postgresql={
            "dsn": type(small_migration.settings.postgresql.dsn)(
                "postgresql://nobody@127.0.0.1:1/x"
            )
        }
    )
    with away.opened() as migration:
        made = take(migration)
        assert made.postgresql is None
        assert "cannot be reached" in made.without_rows
        assert made.head == 1


def test_a_backup_that_finds_no_room_leaves_nothing(small_migration: SmallMigration) -> None:
    """It is refused with one error, the one before it stays, and a backfill that needs it has not
    touched the table; what it held back in the journal is let go of by a running router."""
    with small_migration.routed() as router:
        router.upsert([record(f"r-{n}", "x" * 2_000) for n in range(100)])
    with small_migration.opened() as migration:
        migration.snapshots.make(migration.load_faiss().store)
        kept = take(migration)
        path = BackupShelf(migration.directory).path
        whole = (path / kept.timestamp / "journal.db").stat().st_size
        # The log starts over, so that the journal itself has room below the limit.
        assert migration.journal._file.checkpoint()
        with file_limit(whole - 4_096):
            with pytest.raises(StoreUnavailable, match="no backup could be written"):
                take(migration)
            with pytest.raises(StoreUnavailable, match="no backup could be written"):
                small_migration.backfilled()
        assert [one.name for one in path.iterdir()] == [kept.timestamp]
        assert migration.postgresql.look().state == "empty"
        with small_migration.routed():
            until("the release", lambda: "backfill" not in migration.journal.holds())
    small_migration.backfilled()
    with small_migration.opened() as migration:
        assert migration.link.open().count() == 100


def test_a_load_that_begins_during_a_backup_does_not_empty_it(
    small_migration: SmallMigration, tmp_path: Path
) -> None:
    """The rows are those of the cursor that the backup says, or the cursor says that there are none."""
    small_migration.filled()
    with small_migration.opened() as migration, ThreadPoolExecutor(1) as threads:
        store = migration.link.open()
        begun: list[Future[LoadProgress]] = []
        real = sql.SQL.format

        def late(text: sql.SQL, *arguments: Any, **options: Any) -> sql.Composed:
            if "TO STDOUT" in text.as_string(None) and not begun:
                begun.append(
                    threads.submit(begin_load, store, incarnation="other", snapshot_id="s", seq=0)
                )
                # Either it is done by then, or it waits for the lock of the reader.
                wait(begun, timeout=0.5)
            return real(text, *arguments, **options)

        with mock.patch.object(sql.SQL, "format", late):
            cursor, rows = dump_rows(store, tmp_path / "rows")
        assert (cursor.state, rows) == ("following", 20)
        assert begun[0].result(timeout=10)
