"""What the journal says of itself, asked and changed inside a transaction of the caller's."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Sequence

from shadow.errors import ForeignHost, ForeignIncarnation, JournalGap
from shadow.writes.host import Host
from shadow.writes.journal_entry import STORED_COLUMNS, StoredRow, change_of
from shadow.writes.journal_file import JournalFile
from vectorstore.types import Change, Metric

__all__ = ["check_place", "enter", "last_changes", "mark_at"]

IDS_PER_STATEMENT = 500


def enter(
    file: JournalFile, host: Host, adopt_host: bool, now: float
) -> tuple[str, tuple[int, Metric] | None]:
    """Check whose journal this is, and sync it; its incarnation, and what its vectors are if bound.

    The write is needed even if nothing changed: a process that was killed between writing the log
    and syncing it leaves entries that a reader sees but the disk may not hold yet.
    """
    fields = (host.boot_id, host.machine_id, host.name)
    with file.writing() as connection:
        connection.execute(
            "INSERT OR IGNORE INTO state"
            " (one, head, base, incarnation, boot_id, machine_id, host_name, opened_at)"
            " VALUES (1, 0, 0, ?, ?, ?, ?, ?)",
            (uuid.uuid4().hex, *fields, now),
        )
        incarnation, dimension, metric, *found = connection.execute(
            "SELECT incarnation, dimension, metric, boot_id, machine_id, host_name FROM state"
        ).fetchone()
        owner = Host(*found)
        if not (adopt_host or host.is_same(owner)):
            raise ForeignHost(
                f"the journal {file.path} belongs to the machine {owner.name!r}; this is "
                f"{host.name!r}. Its processes share memory, so two machines on one file would "
                "damage it. If the disk has moved and nothing runs on the other machine, open "
                "it with adopt_host; for several machines use the journal in PostgreSQL"
            )
        connection.execute(
            "UPDATE state SET boot_id = ?, machine_id = ?, host_name = ?, opened_at = ?",
            (*fields, now),
        )
    return incarnation, None if dimension is None else (dimension, Metric(metric))


def check_place(connection: sqlite3.Connection, seq: int) -> None:
    """``seq`` must lie where the journal can go on from."""
    head, base = connection.execute("SELECT head, base FROM state").fetchone()
    if seq < base:
        raise JournalGap(
            f"the entries after {seq} are gone: the journal is truncated up to {base}. Reload "
            "from a snapshot or backfill"
        )
    if seq > head:
        raise ForeignIncarnation(
            f"{seq} lies above the journal's head {head}: it counts in another journal, or this "
            "one is an old copy. Nothing was applied: rebuild the store from this journal's data"
        )


def mark_at(connection: sqlite3.Connection, seq: int) -> int | None:
    """The mark of the entry ``seq``; None if the journal does not know it (any more)."""
    found = connection.execute("SELECT mark FROM entry WHERE seq = ?", (seq,)).fetchone()
    if found is None:
        found = connection.execute(
            "SELECT base_mark FROM state WHERE base = ?", (seq,)
        ).fetchone() or (None,)
    return None if found[0] is None else int(found[0])


def last_changes(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, Change]:
    """The last entry of each of ``ids`` that has one here. Reads the ids of all entries."""
    found: dict[str, Change] = {}
    for start in range(0, len(ids), IDS_PER_STATEMENT):
        part = ids[start : start + IDS_PER_STATEMENT]
        places = ", ".join("?" * len(part))
        rows = connection.execute(
            f"SELECT {STORED_COLUMNS} FROM entry WHERE seq IN "  # noqa: S608 - question marks
            f"(SELECT max(seq) FROM entry WHERE id IN ({places}) GROUP BY id)",
            tuple(part),
        )
        for row in map(StoredRow._make, rows):
            found[row.id] = change_of(row)
    return found
