"""What a restore would lose, said before anyone is asked to agree."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from shadow.backups.manifest import BackupManifest
from shadow.backups.present import known_histories, present_of
from shadow.errors import RestoreRefused
from vectorstore.errors import VectorStoreError
from vectorstore.postgres.cursor import Cursor

__all__ = ["Loss", "loss_of", "moment"]


@dataclass(frozen=True, slots=True)
class Loss:
    """The writes that come after a backup. ``writes`` is ``None`` where they cannot be counted.

    ``unknown_table``: whether PostgreSQL's rows would be replaced although nothing in the state directory
    says that they are copies of its journal.
    """

    writes: int | None
    last_at: float | None
    sentence: str
    unknown_table: bool = False


def loss_of(
    directory: Path, backup: BackupManifest, *, table: str, asked: Cursor | VectorStoreError
) -> Loss:
    """What is there now and would be gone: in the state directory, and in PostgreSQL's ``table``.

    ``asked`` is what PostgreSQL says of the table, or why it could not be asked. Raises RestoreRefused if
    the table takes writes of its own and was not finalized by this state directory.
    """
    known = known_histories(directory)
    loss = _of_journal(directory, backup, asked)
    if isinstance(asked, VectorStoreError):
        return loss
    if asked.state == "final" and not known.get(asked.incarnation):
        raise RestoreRefused(
            f"table {table} is final: it takes writes of its own, and nothing in {directory} says that it "
            "was finalized from here. A restore would replace rows that are nowhere else, so nothing was "
            "changed. Give another name (postgresql.table); or, if nobody needs those rows any more, drop "
            f"the tables {table}, {table}_cursor, {table}_load and {table}_schema, and run it again"
        )
    if asked.state == "empty" or asked.incarnation in known:
        return loss
    whose = (
        "the one that the backup is of"
        if asked.incarnation == backup.incarnation
        else "another one than the backup's"
    )
    return replace(
        loss,
        unknown_table=True,
        sentence=(
            f"{loss.sentence}. BUT THE ROWS OF TABLE {table} ARE REPLACED TOO: it is {asked.state} as a "
            f"copy of the journal {asked.incarnation} ({whose}) up to write {asked.seq:,}, and that journal "
            f"is not in {directory}. If a migration still uses that table from another state directory, it "
            "loses its copy: for a trial, give a table of its own (postgresql.table)"
        ),
    )


def _of_journal(directory: Path, backup: BackupManifest, asked: Cursor | VectorStoreError) -> Loss:
    since = f"the backup holds everything up to write {backup.head:,} of {moment(backup.made_at)}"
    try:
        present = present_of(directory)
    except sqlite3.Error as error:
        return Loss(
            None,
            None,
            f"{since}; the present journal cannot be read ({error}), so what was written after that "
            "cannot be counted: ALL OF IT IS LOST",
        )
    if present is None:
        return Loss(None, None, f"{since}; there is no present journal that could be lost")
    if present.incarnation != backup.incarnation or present.head < backup.head:
        final = isinstance(asked, Cursor) and asked.state == "final"
        own = ", AND SO IS WHAT POSTGRESQL TOOK BY ITSELF SINCE IT IS FINAL" if final else ""
        return Loss(
            None,
            present.last_at,
            f"{since}; the present state belongs to another history (another restore came between), "
            f"with {present.head:,} writes in all: EVERYTHING THAT IT HOLDS BEYOND THE BACKUP IS LOST{own}",
        )
    final_writes = _final_writes(asked, present.head) if present.sealed else 0
    if final_writes is None:
        return Loss(
            None,
            present.last_at,
            f"{since}; the migration is final and PostgreSQL cannot be asked how many writes it has "
            "taken by itself: ALL OF THEM, AND THOSE BEFORE IT SINCE THE BACKUP, ARE LOST",
        )
    writes = present.head - backup.head + final_writes
    if not writes:
        return Loss(0, present.last_at, f"{since}; nothing was written since, so nothing is lost")
    last_at = None if final_writes else present.last_at
    until = "" if last_at is None else f", the last one of {moment(last_at)}"
    return Loss(
        writes, present.last_at, f"{since}; {writes:,} WRITES CAME AFTER IT AND ARE LOST{until}"
    )


def moment(at: float) -> str:
    """A time for people, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _final_writes(asked: Cursor | VectorStoreError, head: int) -> int | None:
    """Writes that PostgreSQL took by itself after finalize; ``None`` if it cannot be asked."""
    if isinstance(asked, VectorStoreError):
        return None
    return max(0, asked.seq - head) if asked.state == "final" else 0
