"""Restore goes back to a moment, says what is lost, begins a new history, and survives a kill."""

from __future__ import annotations

import random
import shutil
import signal
from unittest import mock

import pytest

from shadow.backups import restoring, switch
from shadow.backups.loss import Loss
from shadow.backups.restoring import Restored, restore
from shadow.core.phases import Phase
from shadow.errors import ForeignIncarnation, RestoreRefused
from shadow.finalize import finalize
from shadow.opening import Migration
from shadow.writes.verify import Clean
from tests.integration.test_backups import take
from tests.plugins.killing import Killing, Point
from tests.plugins.migrations import SmallMigration, record, until
from vectorstore.errors import StoreCorrupt, StoreUnavailable


def back(small: SmallMigration, timestamp: str) -> tuple[Restored, Loss]:
    told: list[Loss] = []

    def consent(loss: Loss) -> bool:
        told.append(loss)
        return True

    done = restore(small.settings, timestamp, who="test", consent=consent)
    assert done is not None
    return done, told[0]


def backed_up(small: SmallMigration) -> str:
    """Twenty records and five more writes that PostgreSQL has not applied, in a backup; its timestamp."""
    small.filled()
    with small.routed() as router:
        router.upsert([record("r-1", "before the backup")])
        router.delete(["r-2"])
    with small.opened() as migration:
        return take(migration).timestamp


def assert_as_backed_up(small: SmallMigration) -> None:
    with small.opened() as migration:
        store = migration.load_faiss().store
        assert store.count() == 19
        assert store.get(["r-1"])[0].text == "before the backup"
        assert isinstance(small.verified(migration), Clean)


def test_everything_is_back_and_the_loss_was_stated(small_migration: SmallMigration) -> None:
    """Both stores hold the backup's records, FAISS answers, the writes after it were counted before
    consent, and the state from before is kept."""
    timestamp = backed_up(small_migration)
    with small_migration.routed() as router:
        router.upsert([record(f"lost-{n}") for n in range(7)])
        router.delete(["r-1"])
    small_migration.flipped()
    done, loss = back(small_migration, timestamp)
    assert loss.writes == 8
    assert "8 WRITES" in loss.sentence
    assert (done.replaced / "journal.db").exists()
    assert_as_backed_up(small_migration)
    with small_migration.opened() as migration:
        assert migration.routes.current().phase is Phase.FAISS
        assert migration.verification() is None
        assert "restored" in [entry.what for entry in migration.routes.audit()]
    with small_migration.routed() as router:
        router.upsert([record("new")])
        until("the mirror of the new history", lambda: router.route.phase is Phase.SHADOW)


def test_without_consent_nothing_changes(small_migration: SmallMigration) -> None:
    """Who says no keeps everything."""
    timestamp = backed_up(small_migration)
    with small_migration.routed() as router:
        router.upsert([record("kept")])
    assert restore(small_migration.settings, timestamp, who="test", consent=lambda _: False) is None
    with small_migration.routed() as router:
        assert router.get(["kept"])


def test_a_restore_is_refused_while_a_router_runs(small_migration: SmallMigration) -> None:
    """The ground is not taken from under a running process."""
    timestamp = backed_up(small_migration)
    with small_migration.routed() as router:
        with pytest.raises(RestoreRefused, match="stop them first"):
            back(small_migration, timestamp)
        assert router.get(["r-1"])
    back(small_migration, timestamp)


def test_from_a_backup_alone_on_an_empty_disk(small_migration: SmallMigration) -> None:
    """With the state directory gone but for the backups, everything comes back from them."""
    timestamp = backed_up(small_migration)
    directory = small_migration.settings.state_directory
    for path in directory.iterdir():
        if path.name != "backups":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    _, loss = back(small_migration, timestamp)
    assert loss.writes is None
    assert_as_backed_up(small_migration)


def test_after_finalize_the_own_writes_of_postgresql_are_counted(
    small_migration: SmallMigration,
) -> None:
    """A finalized migration comes back too, and the writes that PostgreSQL took alone are in the loss."""
    timestamp = backed_up(small_migration)
    small_migration.flipped()
    with small_migration.opened() as migration:
        migration.postgresql.look()
        finalize(migration, who="test", why="test")
    with small_migration.routed() as router:
        router.upsert([record("alone-1"), record("alone-2")])
    _, loss = back(small_migration, timestamp)
    assert loss.writes == 2
    assert_as_backed_up(small_migration)


SWITCH = "shadow.backups.switch"
COPIES = "vectorstore.postgres.copies"
STAGES = {
    "a copy half ready": Point("shadow.backups.restoring:_adopt_snapshot"),
    "ready": Point("shadow.backups.restoring:switch"),
    "half set aside": Point("pathlib:Path.rename", nth=3),
    "set aside": Point(f"{SWITCH}:_mark", nth=2),
    "half in place": Point("pathlib:Path.rename", nth=7),
    "in place": Point(f"{SWITCH}:sync_directory", nth=6),
    "rows half loaded": Point(f"{COPIES}:_load", after=True),
    "rows loaded": Point(f"{COPIES}:ensure_index"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_restore_that_was_killed_leaves_a_whole_state(
    small_migration: SmallMigration, killing: Killing, stage: str
) -> None:
    """Wherever SIGKILL hits it, the next process finds the old state or the new one, whole; the same
    restore can be run again."""
    timestamp = backed_up(small_migration)
    with small_migration.routed() as router:
        router.upsert([record("after")])
    killing.cut_short(
        "tests.faults.operations:restore",
        STAGES[stage],
        small_migration.settings,
        timestamp=timestamp,
    )
    with small_migration.opened() as migration:
        store = migration.load_faiss().store
        old = bool(store.get(["after"]))
        assert old == (stage in ("a copy half ready", "ready"))
        assert store.count() == (20 if old else 19)
        fits = old or stage == "rows loaded"
        assert migration.postgresql.look().state == ("following" if fits else "foreign")
    back(small_migration, timestamp)
    assert_as_backed_up(small_migration)


def test_killed_restores_never_leave_half_a_state(small_migration: SmallMigration) -> None:
    """SIGKILL at random moments of real restores: every state found after it is whole."""
    timestamp = backed_up(small_migration)
    draw = random.Random(7)
    for _ in range(4):
        process = small_migration.command("restore", timestamp, "--yes")
        try:
            process.wait(timeout=draw.uniform(0.5, 2.5))
        except Exception:
            process.send_signal(signal.SIGKILL)
        process.communicate()
        with small_migration.opened() as migration:
            store = migration.load_faiss().store
            assert store.count() == 19
            assert store.get(["r-1"])[0].text == "before the backup"
            assert not migration.directory.joinpath("restore.json").exists()
    back(small_migration, timestamp)
    assert_as_backed_up(small_migration)


# What does not fit together is refused, with the way out, and nothing is applied.


def set_back(small: SmallMigration, *, whole: bool) -> None:
    """Write more, then put the state directory (``whole``) or the journal alone back to before that."""
    directory = small.settings.state_directory
    copy = directory.with_name("copy")
    shutil.copytree(directory, copy)
    with small.routed() as router:
        router.upsert([record(f"later-{n}") for n in range(5)])
    with small.opened() as migration:
        migration.postgresql.follow()
        migration.snapshots.make(migration.load_faiss().store)
    for name in ("journal.db-wal", "journal.db-shm"):
        (directory / name).unlink(missing_ok=True)
    if whole:
        shutil.rmtree(directory / "snapshots")
        shutil.copytree(copy / "snapshots", directory / "snapshots")
    shutil.copyfile(copy / "journal.db", directory / "journal.db")


def test_an_old_journal_under_newer_snapshots_is_refused(small_migration: SmallMigration) -> None:
    """Nothing starts on a journal that ends before the snapshot beside it."""
    small_migration.filled()
    set_back(small_migration, whole=False)
    with pytest.raises(ForeignIncarnation, match="shadow restore"), small_migration.routed():
        pass


@pytest.mark.parametrize("writes", [0, 2, 5, 40])
def test_an_old_journal_under_a_newer_postgresql_is_refused_for_good(
    small_migration: SmallMigration, writes: int
) -> None:
    """PostgreSQL is not used and nothing is applied to it, not even when the old journal has grown to
    the place where PostgreSQL stands, or beyond it."""
    small_migration.filled()
    set_back(small_migration, whole=True)
    with small_migration.routed() as router:
        for number in range(writes):
            router.upsert([record(f"other-{number}")])
    with small_migration.opened() as migration:
        migration.postgresql.follow()
        standing = migration.postgresql.look()
        assert standing.state == "foreign"
        assert "shadow backfill" in str(standing.error)
        held = migration.link.open()
        assert not held.get(["other-0"])
        assert held.get(["later-0"])
    small_migration.backfilled()
    with small_migration.opened() as migration:
        assert isinstance(small_migration.verified(migration), Clean)


def test_a_journal_from_before_the_finalize_does_not_own_a_final_table(
    small_migration: SmallMigration,
) -> None:
    """A table that takes writes of its own is not used by a journal that was not finalized."""
    small_migration.filled()
    small_migration.flipped()
    directory = small_migration.settings.state_directory
    copy = directory.with_name("copy")
    shutil.copytree(directory, copy)
    with small_migration.opened() as migration:
        migration.postgresql.look()
        finalize(migration, who="test", why="test")
    shutil.rmtree(directory)
    copy.rename(directory)
    with small_migration.routed() as router, small_migration.opened() as migration:
        standing = migration.postgresql.look()
        assert (standing.state, standing.following) == ("foreign", False)
        router.upsert([record("goes on")])
        assert router.get(["goes on"])
        assert not migration.link.open().get(["goes on"])


def table_set_back(migration: Migration, seq: int) -> None:
    """PostgreSQL as a copy of an earlier day has it."""
    migration.link.open().transact(
        lambda connection: connection.execute(
            f"UPDATE {migration.settings.postgresql.table}_cursor SET seq = {seq}"
        )
    )


def test_an_old_postgresql_under_a_truncated_journal_is_refused(
    small_migration: SmallMigration,
) -> None:
    """A copy whose next entries are gone is let go of, and the backfill is named."""
    small_migration.filled()
    with small_migration.routed() as router:
        router.upsert([record(f"more-{n}") for n in range(10)])
    with small_migration.opened() as migration:
        migration.postgresql.follow()
        migration.snapshots.make(migration.load_faiss().store)
        migration.snapshots.make(migration.load_faiss().store)
        migration.journal.set_cursor("postgresql", migration.journal.head())
        assert migration.journal.truncate(migration.journal.head())
        table_set_back(migration, 3)
        assert migration.postgresql.look().state == "foreign"
        migration.postgresql.follow()
        standing = migration.postgresql.look()
        assert not standing.following
        assert "shadow backfill" in str(standing.error)


def test_snapshots_that_no_longer_reach_the_journal_are_refused(
    small_migration: SmallMigration,
) -> None:
    """A snapshot from before a truncation does not load over the gap."""
    small_migration.filled()
    directory = small_migration.settings.state_directory
    shutil.copytree(directory / "snapshots", directory.with_name("old"))
    with small_migration.routed() as router:
        router.upsert([record(f"more-{n}") for n in range(10)])
    with small_migration.opened() as migration:
        migration.postgresql.follow()
        migration.snapshots.make(migration.load_faiss().store)
        migration.snapshots.make(migration.load_faiss().store)
        migration.journal.drop_cursor("postgresql")
        migration.journal.truncate(migration.journal.head())
    shutil.rmtree(directory / "snapshots")
    directory.with_name("old").rename(directory / "snapshots")
    with pytest.raises(StoreCorrupt, match="shadow restore"), small_migration.routed():
        pass


def test_while_a_restore_runs_nobody_enters(small_migration: SmallMigration) -> None:
    """A process that starts during a restore waits for its end, and is refused if that takes long."""
    timestamp = backed_up(small_migration)

    def consent(loss: Loss) -> bool:
        with (
            mock.patch.object(switch, "ENTER_S_MAX", 0.2),
            pytest.raises(RestoreRefused, match="running"),
        ):
            small_migration.opened().__enter__()
        return True

    assert restore(small_migration.settings, timestamp, who="test", consent=consent)


def test_with_postgresql_away_the_rest_is_restored(small_migration: SmallMigration) -> None:
    """FAISS and the journal come back, PostgreSQL is not used until it is made to fit."""
    timestamp = backed_up(small_migration)
    with mock.patch.object(restoring, "replace_rows", side_effect=StoreUnavailable("it is away")):
        done, _ = back(small_migration, timestamp)
    assert "shadow backfill" in done.postgresql
    with small_migration.routed() as router:
        assert router.get(["r-1"])[0].text == "before the backup"
    small_migration.backfilled()
    assert_as_backed_up(small_migration)
