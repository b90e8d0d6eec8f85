"""At the journal's size limit writes go on: whoever holds it up is helped or let go of."""

from __future__ import annotations

import pytest

from shadow.errors import JournalFull
from shadow.writes.verify import Clean
from tests.plugins.migrations import SmallMigration, record, until
from tests.plugins.tcp_proxy import TcpProxy

LIMIT_BYTES = 400_000
LONG = "x" * 2_000


def limited(small: SmallMigration, dsn: str | None = None) -> SmallMigration:
    sections = {"journal": {"size_bytes_max": LIMIT_BYTES, "snapshot_entries": 10_000}}
    if dsn is not None:
        secret = type(small.settings.postgresql.dsn)
        sections["postgresql"] = {"dsn": secret(dsn), "connect_timeout_ms": 500.0}
    return small.with_settings(**sections)


def test_with_postgresql_away_writes_go_on_and_it_needs_a_backfill(
    small_migration: SmallMigration, postgres_proxy: TcpProxy, proxied_dsn: str
) -> None:
    """Several times the limit is written while PostgreSQL is away. Not one write is refused; when it
    is back it is told to be detached, is not used, and a backfill brings it back."""
    small_migration.filled()
    small = limited(small_migration, proxied_dsn)
    postgres_proxy.refuse()
    with small.routed() as router:
        for number in range(600):
            router.upsert([record(f"w-{number % 40}", f"{number} {LONG}")])
        assert router.get(["w-39"])[0].text.startswith("599 ")
        assert router.count() == 60
        postgres_proxy.serve()
        with small.opened() as migration:
            until("the detachment", lambda: migration.postgresql.look().state == "detached")
            assert "shadow backfill" in str(migration.postgresql.standing.error)
            assert "postgresql" not in migration.journal.cursors()
            assert migration.journal.usage().bytes <= LIMIT_BYTES
            # What it had not applied is not applied half.
            assert migration.link.open().count() == 20
    small.backfilled()
    with small.opened() as migration:
        assert isinstance(small.verified(migration), Clean)
        assert migration.link.open().count() == 60


def test_new_snapshots_make_room_without_letting_anyone_go(
    small_migration: SmallMigration,
) -> None:
    """While PostgreSQL is level, what holds the journal up are old snapshots: new ones are made, and
    PostgreSQL goes on following."""
    small_migration.filled()
    small = limited(small_migration)
    with small.routed() as router, small.opened() as migration:
        for number in range(400):
            router.upsert([record(f"w-{number % 40}", f"{number} {LONG}")])
            if number % 20 == 0:
                migration.postgresql.follow()
                migration.journal.set_cursor(
                    "postgresql", migration.postgresql.standing.applied_seq
                )
        migration.postgresql.follow()
        assert migration.postgresql.look().state == "following"
        assert isinstance(small.verified(migration), Clean)


def test_a_batch_beyond_the_limit_lets_nobody_go(small_migration: SmallMigration) -> None:
    """A write that could never fit is refused, and PostgreSQL stays where it was."""
    small_migration.filled()
    small = limited(small_migration)
    with small.routed() as router, small.opened() as migration:
        cursors = migration.journal.cursors()
        with pytest.raises(JournalFull, match="limit"):
            router.upsert([record("big", "x" * LIMIT_BYTES)])
        assert migration.journal.cursors().keys() == cursors.keys()
        assert migration.postgresql.look().state == "following"
        router.upsert([record("small")])


def test_op_ids_that_fill_the_journal_let_nobody_go(small_migration: SmallMigration) -> None:
    """A day's op_ids count towards the limit. When it is they that fill it, to let PostgreSQL go would
    free nothing: the write is refused with an error that names them, and PostgreSQL goes on following."""
    small_migration.filled()
    small = limited(small_migration)
    with small.routed() as router, small.opened() as migration:

        def delete_on_and_on() -> None:
            for number in range(LIMIT_BYTES):
                router.delete(["nobody"], op_id=f"{number} {'o' * 180}")

        with pytest.raises(JournalFull, match="op_ids"):
            delete_on_and_on()
        migration.postgresql.follow()
        assert "postgresql" in migration.journal.cursors()
        assert migration.postgresql.look().state == "following"
        small_larger = small.with_settings(journal={"size_bytes_max": 2 * LIMIT_BYTES})
    with small_larger.routed() as router:
        router.upsert([record("goes on")])
