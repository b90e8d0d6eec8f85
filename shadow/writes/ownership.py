"""Whether a table may be filled: a backfill replaces all of its rows."""

from __future__ import annotations

from pathlib import Path

from shadow.backups.shelf import BackupShelf
from shadow.writes.journal import Journal
from vectorstore.errors import ConfigurationError
from vectorstore.postgres.store import PostgresStore

__all__ = ["require_own_table"]


def require_own_table(directory: Path, journal: Journal, store: PostgresStore) -> None:
    """Raise ConfigurationError if the rows of the table are not copies of this journal's.

    Its own are also those of the histories that this one was restored from: a backup of each is on the
    shelf, because every backfill makes one before it touches the table.
    """
    cursor = store.cursor()
    table = store.settings.table
    own = {journal.incarnation, *(one.incarnation for one in BackupShelf(directory).manifests())}
    if cursor.incarnation in own or cursor.state == "empty":
        return
    whose = (
        f"follows the journal {cursor.incarnation}, and this one is {journal.incarnation}: it belongs to "
        "another migration, or to a state directory that was deleted"
        if cursor.incarnation
        else "holds rows that were written to it by no journal"
    )
    raise ConfigurationError(
        f"table {table} {whose}. A backfill would replace its rows, so nothing was changed. Give another "
        f"name (postgresql.table); or, if nobody needs those rows any more, drop the tables {table}, "
        f"{table}_cursor, {table}_load and {table}_schema, and run it again"
    )
