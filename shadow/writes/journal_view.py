"""The journal as it is read: entries, marks, cursors and holds, and how full it is."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from shadow.writes.journal_append import oldest_holder
from shadow.writes.journal_entry import STORED_COLUMNS, StoredRow, change_of
from shadow.writes.journal_file import JournalFile
from shadow.writes.journal_state import check_place, last_changes, mark_at
from vectorstore.durable import sync_file
from vectorstore.errors import ConfigurationError, StoreCorrupt
from vectorstore.types import Change, Metric

__all__ = ["WARNING_SHARE", "JournalUsage", "JournalView"]

READ_BYTES_MAX = 16 << 20
WARNING_SHARE = 0.8
OPERATION_OVERHEAD_BYTES = 50


@dataclass(frozen=True, slots=True)
class JournalUsage:
    """How full the journal is: bytes in use, the limit, entries kept; ``warning`` from 80 %."""

    bytes: int
    bytes_max: int
    entries: int
    warning: bool


class JournalView:
    """Reads the log of one migration. Every call sees one consistent state of it."""

    def __init__(self, file: JournalFile, *, bytes_max: int) -> None:
        """``bytes_max``: what it may take, for :meth:`usage`."""
        self._file = file
        self._bytes_max = bytes_max

    def vectors(self) -> tuple[int, Metric]:
        """Dimension and metric of the vectors, as bound."""
        with self._file.reading() as connection:
            dimension, metric = connection.execute("SELECT dimension, metric FROM state").fetchone()
        if dimension is None:
            raise ConfigurationError(f"{self._file.path} was not told what its vectors are yet")
        return int(dimension), Metric(metric)

    @property
    def path(self) -> Path:
        """The file, for what must share a transaction with the journal's head."""
        return self._file.path

    @staticmethod
    def head_in(connection: sqlite3.Connection) -> int:
        """The head as a transaction of the caller's on :attr:`path` sees it."""
        return int(connection.execute("SELECT head FROM state").fetchone()[0])

    def read(self, after: int, limit: int = 1000) -> list[Change]:
        """Up to ``limit`` entries that follow ``after``, in seq order; an empty list means level.

        It may hold fewer than ``limit`` before the end: a read stops at about 16 MiB. Raises
        JournalGap if entries after ``after`` were truncated, ForeignIncarnation if ``after`` lies
        above the head, StoreCorrupt if a seq is missing.
        """
        changes: list[Change] = []
        size_bytes = 0
        with self._file.reading() as connection:
            check_place(connection, after)
            rows = connection.execute(
                f"SELECT {STORED_COLUMNS} FROM entry WHERE seq > ? "  # noqa: S608 - a constant
                "ORDER BY seq LIMIT ?",
                (after, limit),
            )
            for expected, row in enumerate(map(StoredRow._make, rows), after + 1):
                if row.seq != expected:
                    raise StoreCorrupt(
                        f"entry {expected} is missing from {self._file.path}: restore a backup"
                    )
                changes.append(change_of(row))
                size_bytes += len(row.embedding or b"") + len(row.text or "")
                if size_bytes >= READ_BYTES_MAX:
                    break
        return changes

    def head(self) -> int:
        """The seq of the last entry ever made; 0 if there was none."""
        with self._file.reading() as connection:
            return int(connection.execute("SELECT head FROM state").fetchone()[0])

    def base(self) -> int:
        """Entries up to here are truncated."""
        with self._file.reading() as connection:
            return int(connection.execute("SELECT base FROM state").fetchone()[0])

    def appended_at(self, seq: int) -> float | None:
        """When the entry was made (Unix seconds); None if it is truncated or not there yet."""
        with self._file.reading() as connection:
            found = connection.execute(
                "SELECT appended_at FROM entry WHERE seq = ?", (seq,)
            ).fetchone()
        return None if found is None else float(found[0])

    def last_changes(self, ids: Sequence[str]) -> tuple[int, dict[str, Change]]:
        """The last entry of each of ``ids`` that still has one, and the head that this was true at.

        Reads the ids of every entry: for repairs, not for the path of a request.
        """
        with self._file.reading() as connection:
            return self.head_in(connection), last_changes(connection, ids)

    def mark_at(self, seq: int) -> int | None:
        """What tells the entry ``seq`` from that of another copy of this journal; None if unknown."""
        with self._file.reading() as connection:
            return mark_at(connection, seq)

    def ids_between(self, low: int, high: int) -> set[str]:
        """The ids written by entries with low < seq <= high. Raises JournalGap as :meth:`read`."""
        with self._file.reading() as connection:
            check_place(connection, low)
            rows = connection.execute(
                "SELECT id FROM entry WHERE seq > ? AND seq <= ?", (low, high)
            )
            return {row[0] for row in rows}

    def data_version(self) -> int:
        """A number that changes with every commit by any process: a poller's cheap signal.

        Comparable between the threads of one process, meaningless to another.
        """
        return self._file.data_version()

    def usage(self) -> JournalUsage:
        """How full the journal is."""
        with self._file.reading() as connection:
            head, base = connection.execute("SELECT head, base FROM state").fetchone()
            used = self._file.used_bytes(connection)
        warning = used >= WARNING_SHARE * self._bytes_max
        return JournalUsage(used, self._bytes_max, head - base, warning)

    def operations_bytes(self) -> int:
        """At least what the op_ids take of :meth:`usage`: no truncation frees it before their day is over.

        Reads all of them: for a journal at its limit, not for the path of a request.
        """
        with self._file.reading() as connection:
            count, chars = connection.execute(
                "SELECT count(*), coalesce(sum(length(op_id)), 0) FROM operation"
            ).fetchone()
        # Each stands in the table and in its index.
        return int(2 * chars + OPERATION_OVERHEAD_BYTES * count)

    def cursors(self) -> dict[str, int]:
        """How far each store has applied."""
        with self._file.reading() as connection:
            return dict(connection.execute("SELECT store, seq FROM cursor").fetchall())

    def holds(self) -> dict[str, int]:
        """The holds in force, by name."""
        with self._file.reading() as connection:
            return dict(connection.execute("SELECT name, seq FROM hold").fetchall())

    def oldest_holder(self) -> tuple[str, int] | None:
        """The cursor or hold that truncation waits for, by name, and its seq."""
        with self._file.reading() as connection:
            return oldest_holder(connection)

    def sealed(self) -> bool:
        """Whether a finalize has begun: no entry will be taken."""
        with self._file.reading() as connection:
            return bool(connection.execute("SELECT sealed FROM state").fetchone()[0])

    def reloads(self) -> int:
        """How often every process was asked to load its FAISS copy anew."""
        with self._file.reading() as connection:
            return int(connection.execute("SELECT reloads FROM state").fetchone()[0])

    def reloads_and_head(self) -> tuple[int, int]:
        """:meth:`reloads` and :meth:`head` in one look."""
        with self._file.reading() as connection:
            found = connection.execute("SELECT reloads, head FROM state").fetchone()
        return int(found[0]), int(found[1])

    def copy_to(self, path: Path) -> tuple[int, int]:
        """Write a consistent, synced copy to the new file ``path``; the copy's base and head.

        Raises OSError if the copy finds no room.
        """
        with self._file.reading() as connection:
            base, head = connection.execute("SELECT base, head FROM state").fetchone()
            with closing(sqlite3.connect(path, isolation_level=None)) as copy:
                try:
                    connection.backup(copy)
                except sqlite3.Error as error:
                    raise OSError(errno.EIO, f"the journal could not be copied: {error}") from error
        path.chmod(0o600)
        with path.open("rb") as file:
            sync_file(file.fileno())
        return int(base), int(head)
