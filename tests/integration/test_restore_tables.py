"""Whose rows a restore replaces: never those of another migration unless somebody agreed to exactly that."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest import mock

import pytest
from psycopg import sql
from pydantic import SecretStr

from shadow.backups import restoring
from shadow.backups.loss import Loss
from shadow.backups.restoring import restore
from shadow.errors import RestoreRefused
from shadow.finalize import finalize
from shadow.opening import Migration
from shadow.writes.verify import Clean
from tests.integration.test_backups import take
from tests.plugins.migrations import SmallMigration, record
from vectorstore.errors import StoreUnavailable
from vectorstore.postgres.cursor import Cursor
from vectorstore.postgres.loading import begin_load
from vectorstore.postgres.store import PostgresStore

AWAY = {"dsn": SecretStr("postgresql://nobody@127.0.0.1:1/x"), "connect_timeout_ms": 300}


def backed_up(small: SmallMigration) -> str:
    """Twenty records in both stores, and a backup with rows; its timestamp."""
    small.filled()
    with small.opened() as migration:
        return take(migration).timestamp


def elsewhere(small: SmallMigration, directory: Path) -> SmallMigration:
    """A state directory that holds nothing but the backups, under the same settings."""
    other = small.in_directory(directory)
    shutil.copytree(small.settings.state_directory / "backups", directory / "backups")
    return other


def table_of(migration: Migration) -> tuple[Cursor, list[tuple[str, str]]]:
    store = migration.link.open()
    return store.cursor(), [(one.id, one.text) for one in store.scan()]


def back(small: SmallMigration, timestamp: str) -> str:
    """Go back, agree to everything; what is said of PostgreSQL."""
    done = restore(small.settings, timestamp, who="test", consent=lambda _: True)
    assert done is not None
    return done.postgresql


def test_a_trial_over_a_table_in_use_is_asked_about(
    small_migration: SmallMigration, tmp_path: Path
) -> None:
    """The table, its journal and how far it is are named before anyone agrees; who says no changes
    nothing, and the migration that uses the table goes on."""
    timestamp = backed_up(small_migration)
    trial = elsewhere(small_migration, tmp_path / "trial")
    told: list[Loss] = []

    def consent(loss: Loss) -> bool:
        told.append(loss)
        return False

    with small_migration.routed() as router, small_migration.opened() as migration:
        router.upsert([record("later")])
        migration.postgresql.follow()
        before = table_of(migration)
        assert before[0].seq == 21
        assert restore(trial.settings, timestamp, who="test", consent=consent) is None
        assert told[0].unknown_table
        for word in (trial.settings.postgresql.table, migration.journal.incarnation, "write 21"):
            assert word in told[0].sentence
        assert table_of(migration) == before
        assert migration.postgresql.look().state == "following"
    assert not (trial.settings.state_directory / "journal.db").exists()


def test_yes_is_no_consent_to_the_loss_of_a_table_in_use(
    small_migration: SmallMigration, tmp_path: Path
) -> None:
    """A script that tries restores with ``--yes`` under the settings of the running migration ends
    without having touched anything; with a table of its own it goes through."""
    timestamp = backed_up(small_migration)
    trial = elsewhere(small_migration, tmp_path / "trial")
    with small_migration.opened() as migration:
        before = table_of(migration)
        command = trial.command("restore", timestamp, "--yes")
        _, errors = command.communicate(timeout=60)
        assert command.returncode != 0
        assert "ROWS OF TABLE" in errors
        assert table_of(migration) == before
        table = f"{small_migration.settings.postgresql.table}_t"
        apart = trial.with_settings(postgresql={"table": table})
        command = apart.command("restore", timestamp, "--yes")
        _, errors = command.communicate(timeout=60)
        assert command.returncode == 0, errors
        with apart.opened() as tried:
            assert isinstance(apart.verified(tried), Clean)
            drop(tried.link.open())
        assert table_of(migration) == before


def drop(store: PostgresStore) -> None:
    table = store.settings.table
    names = [table, *(f"{table}_{part}" for part in ("cursor", "load", "schema"))]
    statement = sql.SQL("DROP TABLE {}").format(sql.SQL(", ").join(map(sql.Identifier, names)))
    store.transact(lambda connection: connection.execute(statement))


def finalized(small: SmallMigration) -> None:
    small.flipped()
    with small.opened() as migration:
        migration.postgresql.look()
        finalize(migration, who="test", why="test")
    with small.routed() as router:
        router.upsert([record("alone")])


def test_rows_that_are_nowhere_else_are_not_replaced(
    small_migration: SmallMigration, tmp_path: Path
) -> None:
    """After finalize no other state directory may take the table, whatever is answered."""
    timestamp = backed_up(small_migration)
    finalized(small_migration)
    trial = elsewhere(small_migration, tmp_path / "trial")
    with pytest.raises(RestoreRefused, match="is final"):
        back(trial, timestamp)
    assert not (trial.settings.state_directory / "journal.db").exists()
    with small_migration.routed() as router:
        assert router.get(["alone"])


def test_after_finalize_a_restore_that_did_not_reach_postgresql_is_run_again(
    small_migration: SmallMigration,
) -> None:
    """The directory remembers that the table was finalized from it."""
    timestamp = backed_up(small_migration)
    finalized(small_migration)
    with mock.patch.object(restoring, "replace_rows", side_effect=StoreUnavailable("it is away")):
        assert "it is away" in back(small_migration, timestamp)
    back(small_migration, timestamp)
    with small_migration.opened() as migration:
        assert isinstance(small_migration.verified(migration), Clean)
        assert migration.load_faiss().store.count() == 20


def test_a_table_that_changes_hands_after_it_was_asked_is_left_alone(
    small_migration: SmallMigration,
) -> None:
    """What was agreed to is found again under the lock that the rows are replaced under."""
    timestamp = backed_up(small_migration)
    with small_migration.opened() as migration:
        store, own = migration.link.open().settings, migration.journal.incarnation
    other = PostgresStore.open(store)

    def consent(loss: Loss) -> bool:
        assert not loss.unknown_table
        begin_load(other, incarnation="theirs", snapshot_id="s", seq=7)
        return True

    done = restore(small_migration.settings, timestamp, who="test", consent=consent)
    assert done is not None
    assert "something else uses it" in done.postgresql
    assert other.cursor() == Cursor("theirs", 0, "loading")
    other.close()
    with small_migration.opened() as migration:
        assert migration.journal.incarnation != own
        assert migration.load_faiss().store.count() == 20


def test_what_could_not_be_asked_was_not_agreed_to(
    small_migration: SmallMigration, tmp_path: Path
) -> None:
    """On an empty disk with PostgreSQL away, nothing says whose the table is: a backfill leaves it alone,
    and the same restore, which can ask now, brings it back."""
    timestamp = backed_up(small_migration)
    new = elsewhere(small_migration, tmp_path / "new")
    assert "the same restore again" in back(new.with_settings(postgresql=AWAY), timestamp)
    with small_migration.opened() as migration:
        before = table_of(migration)
        command = new.command("backfill")
        _, errors = command.communicate(timeout=60)
        assert command.returncode == 2, errors
        assert table_of(migration) == before
    back(new, timestamp)
    with new.opened() as migration:
        assert isinstance(new.verified(migration), Clean)
