"""What a backfill begins from, and what it takes to do so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from pydantic import SecretStr

from shadow.backups.shelf import BackupShelf
from shadow.writes import backfill as filling
from shadow.writes.backfill import backfill
from shadow.writes.journal import Journal
from shadow.writes.snapshot_settings import SnapshotSettings
from shadow.writes.snapshots import SnapshotKeeper
from shadow.writes.verify import Clean
from tests.plugins.migrations import SmallMigration, record
from vectorstore.errors import ConfigurationError, StoreUnavailable
from vectorstore.faiss.index import FLAT, HNSW, IVF, IVF_TRAINING_ROWS
from vectorstore.faiss.manifest import MANIFEST_NAME, Manifest
from vectorstore.faiss.snapshot import load_snapshot, write_snapshot
from vectorstore.faiss.store import FaissStore
from vectorstore.postgres.loading import begin_load
from vectorstore.types import Metric, Record


def never() -> FaissStore:
    pytest.fail("the whole index was loaded")


def test_a_snapshot_that_is_little_behind_is_loaded_as_it_is(
    small_migration: SmallMigration,
) -> None:
    """For a few writes the index is not loaded and written anew: the journal brings them."""
    with small_migration.routed() as router:
        router.upsert([record(f"r-{n}") for n in range(100)])
    with small_migration.opened() as migration:
        assert migration.snapshots.make(migration.load_faiss().store)
    with small_migration.routed() as router:
        router.upsert([record("r-1", "new"), record("r-100")])
        router.delete(["r-2"])
    with small_migration.opened() as migration:
        done = backfill(
            directory=migration.directory,
            journal=migration.journal,
            snapshots=migration.snapshots,
            store=migration.link.open(),
            current=never,
        )
        assert (done.rows, done.seq) == (100, 100)
        found = small_migration.verified(migration)
        assert isinstance(found, Clean)
        assert found.rows == 100
        assert not migration.journal.holds()


class PrunedKeeper(SnapshotKeeper):
    """Snapshots of which the newest is pruned just after it was chosen: a router made another one."""

    make_another: Callable[[], object] | None = None

    def newest(self) -> Path:
        path = super().newest()
        if self.make_another is not None:
            self.make_another()
            self.make_another = None
        return path


def test_a_snapshot_that_is_pruned_as_it_is_chosen_is_not_loaded(
    small_migration: SmallMigration,
) -> None:
    """A router that keeps one snapshot makes another one meanwhile: that one is loaded."""
    with small_migration.routed() as router:
        router.upsert([record(f"r-{n}") for n in range(100)])
    with small_migration.opened() as migration:
        store = migration.load_faiss().store
        keeper = PrunedKeeper(migration.directory, migration.journal, kept=1)
        chosen = keeper.make(store)
        assert chosen is not None
        keeper.make_another = lambda: keeper.make(store)
        done = backfill(
            directory=migration.directory,
            journal=migration.journal,
            snapshots=keeper,
            store=migration.link.open(),
            current=never,
        )
        assert (done.rows, done.seq) == (100, 100)
        assert not chosen.exists()
        assert isinstance(small_migration.verified(migration), Clean)


def test_a_truncation_that_comes_as_it_begins_is_no_reason_to_give_up(
    small_migration: SmallMigration,
) -> None:
    """A router truncates its journal between a look at where that begins and the hold on what is left."""
    with small_migration.routed() as router:
        router.upsert([record(f"r-{n}") for n in range(100)])
    with small_migration.opened() as migration:
        assert migration.snapshots.make(migration.load_faiss().store)
        assert migration.snapshots.make(migration.load_faiss().store)
        look = Journal.base

        def overtaken(journal: Journal) -> int:
            found = look(journal)
            journal.truncate(journal.head())
            return found

        with mock.patch.object(Journal, "base", overtaken):
            done = backfill(
                directory=migration.directory,
                journal=migration.journal,
                snapshots=migration.snapshots,
                store=migration.link.open(),
                current=never,
            )
        assert (done.rows, done.seq) == (100, 100)


def test_a_backfill_that_cannot_begin_holds_nothing_back(small_migration: SmallMigration) -> None:
    """The disk has no room for the backup that comes first: the journal may be truncated as before."""
    with small_migration.routed() as router:
        router.upsert([record(f"r-{n}") for n in range(100)])
    with small_migration.opened() as migration:
        full = mock.patch.object(filling, "take_backup", side_effect=StoreUnavailable("full"))
        with full, pytest.raises(StoreUnavailable, match="full"):
            backfill(
                directory=migration.directory,
                journal=migration.journal,
                snapshots=migration.snapshots,
                store=migration.link.open(),
                current=lambda: migration.load_faiss().store,
            )
        assert migration.journal.holds() == {}


@pytest.mark.parametrize("state", ["following", "loading", "of its own"])
def test_the_table_of_another_is_left_alone(
    small_migration: SmallMigration, tmp_path: Path, state: str
) -> None:
    """Another migration's copy, also while it is filled, and rows that an application wrote by itself:
    the command says whose they are, changes nothing, and leaves nothing that holds the journal."""
    if state == "of its own":
        with small_migration.opened() as migration:
            migration.link.open().upsert([record("theirs")])
    else:
        small_migration.filled()
    with small_migration.opened() as migration:
        other = migration.link.open()
        if state == "loading":
            begin_load(other, incarnation=migration.journal.incarnation, snapshot_id="one", seq=20)
        before = other.cursor(), [(one.id, one.seq) for one in other.scan()]
        mine = small_migration.in_directory(tmp_path / "mine")
        with mine.routed() as router:
            router.upsert([record("mine")])
        command = mine.command("backfill")
        _, errors = command.communicate(timeout=60)
        assert command.returncode == 2, errors
        assert "belongs to another migration" in errors or "by no journal" in errors
        assert small_migration.settings.postgresql.table in errors
        assert (other.cursor(), [(one.id, one.seq) for one in other.scan()]) == before
    with mine.opened() as migration:
        assert not migration.journal.holds()
        assert not BackupShelf(migration.directory).timestamps()


def test_a_backfill_finds_out_where_the_table_is_emptied(
    small_migration: SmallMigration, tmp_path: Path
) -> None:
    """Whatever was seen before the lock, the snapshot and the backup: the rows of another migration stay,
    and nothing holds the journal afterwards."""
    small_migration.filled()
    mine = small_migration.in_directory(tmp_path / "mine")
    with mine.routed() as router:
        router.upsert([record("mine")])
    with small_migration.opened() as theirs, mine.opened() as migration:
        other = theirs.link.open()
        before = other.cursor(), [one.id for one in other.scan()]
        with pytest.raises(ConfigurationError, match="belongs to another migration"):
            backfill(
                directory=migration.directory,
                journal=migration.journal,
                snapshots=migration.snapshots,
                store=migration.link.open(),
                current=lambda: migration.load_faiss().store,
            )
        assert (other.cursor(), [one.id for one in other.scan()]) == before
        assert not migration.journal.holds()


def test_the_table_of_the_history_before_a_restore_is_its_own(
    small_migration: SmallMigration,
) -> None:
    """PostgreSQL was away during the restore, so that the table follows the history that was left."""
    restored_without_postgresql(small_migration)
    command = small_migration.command("backfill")
    printed, errors = command.communicate(timeout=60)
    assert command.returncode == 0, printed + errors
    with small_migration.opened() as migration:
        assert isinstance(small_migration.verified(migration), Clean)


def test_the_history_before_a_restore_is_known_without_its_backups(
    small_migration: SmallMigration,
) -> None:
    """A backfill that did not get to the table made a backup, and with that pruned the last one of the
    history that the table follows: the next one still knows it."""
    restored_without_postgresql(small_migration)
    with small_migration.opened() as migration:
        with (
            mock.patch.object(filling, "begin_load", side_effect=StoreUnavailable("it is away")),
            pytest.raises(StoreUnavailable),
        ):
            backfill(
                directory=migration.directory,
                journal=migration.journal,
                snapshots=migration.snapshots,
                store=migration.link.open(),
                current=lambda: migration.load_faiss().store,
                backups_kept=1,
            )
        left = {one.incarnation for one in BackupShelf(migration.directory).manifests()}
        assert left == {migration.journal.incarnation}
    command = small_migration.command("backfill")
    printed, errors = command.communicate(timeout=60)
    assert command.returncode == 0, printed + errors
    with small_migration.opened() as migration:
        assert isinstance(small_migration.verified(migration), Clean)


def restored_without_postgresql(small: SmallMigration) -> None:
    """Twenty records, and a restore to the backup before their backfill while PostgreSQL is away."""
    small.filled()
    with small.opened() as migration:
        left = migration.link.open().cursor().incarnation
        timestamp = BackupShelf(migration.directory).timestamps()[0]
    gone = small.with_settings(
        postgresql={
            "dsn": SecretStr("postgresql://nobody@127.0.0.1:1/x"),
            "connect_timeout_ms": 300,
        }
    )
    command = gone.command("restore", timestamp, "--yes")
    printed, errors = command.communicate(timeout=60)
    assert command.returncode == 0, printed + errors
    with small.opened() as migration:
        assert migration.link.open().cursor().incarnation == left != migration.journal.incarnation


@pytest.mark.parametrize("kind", [FLAT, HNSW, IVF])
def test_a_snapshot_tells_its_settings_as_the_store_does(tmp_path: Path, kind: str) -> None:
    """So that a command which does not load the store opens no era of its own."""
    vectors = np.random.default_rng(1).standard_normal((IVF_TRAINING_ROWS, 4)).astype(np.float32)
    store = FaissStore.empty(dimension=4, metric=Metric.L2, kind=kind)
    store.upsert([Record(f"r-{n}", vector, "", {}) for n, vector in enumerate(vectors)])
    store.delete(["r-7"])
    if kind != FLAT:
        store.set_breadth(23)
    path = write_snapshot(store, tmp_path, incarnation="one")
    told = SnapshotSettings(path, Manifest.read(path / MANIFEST_NAME)).describe()
    assert told == load_snapshot(path).describe() == store.describe()
