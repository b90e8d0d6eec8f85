"""What a restore would lose, said before anyone is asked to agree."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from shadow.backups.manifest import BackupManifest
from vectorstore.errors import VectorStoreError
from vectorstore.postgres.cursor import Cursor

__all__ = ["Loss", "loss_of", "moment"]


@dataclass(frozen=True, slots=True)
class Loss:
    """The writes that come after a backup. ``writes`` is ``None`` where they cannot be counted."""

    writes: int | None
    last_at: float | None
    sentence: str


def loss_of(directory: Path, backup: BackupManifest, cursor: Callable[[], Cursor | None]) -> Loss:
    """What is there now and would be gone. Looks at the present journal without opening it for writing.

    ``cursor`` asks PostgreSQL, which alone knows the writes that came after a finalize.
    """
    since = f"the backup holds everything up to write {backup.head:,} of {moment(backup.made_at)}"
    path = directory / "journal.db"
    if not path.exists():
        return Loss(None, None, f"{since}; there is no present state that could be lost")
    try:
        incarnation, head, sealed, last_at = _present(path)
    except sqlite3.Error as error:
        return Loss(
            None,
            None,
            f"{since}; the present journal cannot be read ({error}), so what was written after that "
            "cannot be counted: ALL OF IT IS LOST",
        )
    final = _final_writes(cursor, head) if sealed else 0
    if incarnation != backup.incarnation or head < backup.head:
        return Loss(
            None,
            last_at,
            f"{since}; the present state belongs to another history (another restore came between), "
            f"with {head:,} writes in all: EVERYTHING THAT IT HOLDS BEYOND THE BACKUP IS LOST",
        )
    if final is None:
        return Loss(
            None,
            last_at,
            f"{since}; the migration is final and PostgreSQL cannot be asked how many writes it has "
            "taken by itself: ALL OF THEM, AND THOSE BEFORE IT SINCE THE BACKUP, ARE LOST",
        )
    writes = head - backup.head + final
    if not writes:
        return Loss(0, last_at, f"{since}; nothing was written since, so nothing is lost")
    until = "" if last_at is None or final else f", the last one of {moment(last_at)}"
    return Loss(writes, last_at, f"{since}; {writes:,} WRITES CAME AFTER IT AND ARE LOST{until}")


def moment(at: float) -> str:
    """A time for people, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _present(path: Path) -> tuple[str, int, bool, float | None]:
    with closing(sqlite3.connect(path)) as connection:
        incarnation, head, sealed = connection.execute(
            "SELECT incarnation, head, sealed FROM state"
        ).fetchone()
        found = connection.execute(
            "SELECT appended_at FROM entry WHERE seq = ?", (head,)
        ).fetchone()
    return incarnation, head, bool(sealed), None if found is None else float(found[0])


def _final_writes(cursor: Callable[[], Cursor | None], head: int) -> int | None:
    """Writes that PostgreSQL took by itself after finalize; ``None`` if it cannot be asked."""
    try:
        found = cursor()
    except VectorStoreError:
        return None
    if found is None:
        return None
    return max(0, found.seq - head) if found.state == "final" else 0
