"""What an operator does, each in one call, for processes that are killed inside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from shadow.backups.restoring import restore as go_back
from shadow.config import Settings
from shadow.core.phases import Phase, Request, Wanted
from shadow.finalize import finalize as end
from shadow.opening import Migration, open_migration
from shadow.writes.backfill import POSTGRESQL_CURSOR
from shadow.writes.backfill import backfill as fill

__all__ = [
    "HELD",
    "backfill",
    "begin",
    "finalize",
    "flip",
    "restore",
    "roll_back",
    "snapshot",
    "truncate",
]

# A hold that keeps a running router from cutting the journal before the operation does.
HELD = "killed inside it"


@contextmanager
def _opened(settings: Mapping[str, Any]) -> Iterator[Migration]:
    migration = open_migration(Settings.model_validate(settings))
    try:
        yield migration
    finally:
        migration.close()


def begin(settings: Mapping[str, Any]) -> None:
    """Open the migration, the first time."""
    with _opened(settings):
        pass


def flip(settings: Mapping[str, Any]) -> None:
    """Make PostgreSQL the primary, whatever the evidence says."""
    _decide(settings, Wanted.POSTGRESQL, Phase.POSTGRESQL)


def roll_back(settings: Mapping[str, Any]) -> None:
    """Make FAISS the primary."""
    _decide(settings, Wanted.FAISS, Phase.SHADOW)


def _decide(settings: Mapping[str, Any], wanted: Wanted, phase: Phase) -> None:
    with _opened(settings) as migration:
        migration.routes.ask(Request(wanted, "operator", "killed inside it", "a test"))
        while migration.routes.current().phase is not phase:
            migration.postgresql.follow()
            migration.lag.refresh()
            migration.cutover.step(who="operator")


def snapshot(settings: Mapping[str, Any]) -> None:
    """Make one."""
    with _opened(settings) as migration:
        faiss = migration.load_faiss()
        assert migration.snapshots.make(faiss.store, reloads=faiss.reloads, wait=True) is not None


def truncate(settings: Mapping[str, Any]) -> None:
    """Let go of what :data:`HELD` kept, and cut the journal as far as both stores allow."""
    with _opened(settings) as migration:
        journal = migration.journal
        migration.postgresql.follow()
        journal.set_cursor(POSTGRESQL_CURSOR, migration.postgresql.standing.applied_seq)
        journal.release(HELD)
        journal.truncate(journal.head())


def backfill(settings: Mapping[str, Any]) -> None:
    """Fill PostgreSQL anew, or go on where it stopped."""
    with _opened(settings) as migration:
        fill(
            directory=migration.directory,
            journal=migration.journal,
            snapshots=migration.snapshots,
            store=migration.link.open(),
            current=lambda: migration.load_faiss().store,
            backups_kept=1,
        )


def finalize(settings: Mapping[str, Any]) -> None:
    """End the migration."""
    with _opened(settings) as migration:
        migration.postgresql.look()
        end(migration, who="operator", why="killed inside it")


def restore(settings: Mapping[str, Any], timestamp: str) -> None:
    """Go back to a backup, and agree to what is lost."""
    go_back(Settings.model_validate(settings), timestamp, who="operator", consent=lambda loss: True)
