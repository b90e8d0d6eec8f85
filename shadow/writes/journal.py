"""The journal: the durable, ordered log of writes. Its commit is the acknowledgement of a write.

A write's place in the log is its ``seq``, taken from a counter row in the transaction that inserts the
entry, so it never repeats and never skips. Batches of several threads share one transaction. Several
processes of one machine share the file; each opens its own ``Journal`` (after a fork too), and what one
of them committed the others can read at once. What cannot be held by every store is refused here.
"""

from __future__ import annotations

import errno
import sqlite3
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from shadow.writes.checkpointer import Checkpointer
from shadow.writes.host import Host
from shadow.writes.journal_append import OPERATION_SECONDS, Appended, Appender, oldest_holder
from shadow.writes.journal_entry import STORED_COLUMNS, StoredRow, change_of
from shadow.writes.journal_file import JournalFile
from shadow.writes.journal_state import check_place, enter, last_changes, mark_at
from vectorstore.durable import sync_file
from vectorstore.errors import ConfigurationError, StoreCorrupt
from vectorstore.types import Change, Metric, Record

__all__ = ["WARNING_SHARE", "Appended", "Journal", "JournalUsage"]

SIZE_BYTES_MAX_DEFAULT = 1 << 30
READ_BYTES_MAX = 16 << 20
TRUNCATE_ENTRIES_MAX = 1000
WARNING_SHARE = 0.8
OPERATION_OVERHEAD_BYTES = 50


@dataclass(frozen=True, slots=True)
class JournalUsage:
    """How full the journal is: bytes in use, the limit, entries kept; ``warning`` from 80 %."""

    bytes: int
    bytes_max: int
    entries: int
    warning: bool


class Journal:
    """The log of writes of one migration, in ``journal.db`` of a directory."""

    def __init__(
        self, file: JournalFile, appender: Appender, checkpointer: Checkpointer, *, bytes_max: int
    ) -> None:
        """Use :meth:`open`."""
        self._file = file
        self._appender = appender
        self._checkpointer = checkpointer
        self._bytes_max = bytes_max

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        size_bytes_max: int = SIZE_BYTES_MAX_DEFAULT,
        clock: Callable[[], float] = time.time,
        host: Host | None = None,
        adopt_host: bool = False,
    ) -> Journal:
        """Open the journal of ``directory``, or create it with a fresh incarnation id.

        ``host`` is this machine unless told otherwise. A journal of another machine is refused with
        ForeignHost; ``adopt_host`` takes it over, for a disk that moved. Raises ConfigurationError if
        the place cannot hold a journal, StoreCorrupt if the file is not one.
        """
        file = JournalFile(directory)
        try:
            incarnation, vectors = enter(file, host or Host.this(), adopt_host, clock())
        except BaseException:
            file.close()
            raise
        checkpointer = Checkpointer(file)
        appender = Appender(
            file,
            checkpointer,
            incarnation=incarnation,
            vectors=vectors,
            size_bytes_max=size_bytes_max,
            clock=clock,
        )
        return cls(file, appender, checkpointer, bytes_max=size_bytes_max)

    @property
    def incarnation(self) -> str:
        """The id of this history; a restore starts another one."""
        return self._appender.incarnation

    @property
    def mark(self) -> int:
        """The mark of the entries that this process appends."""
        return self._appender.mark

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

    def bind(self, dimension: int, metric: Metric) -> None:
        """Record what the vectors are, once; later calls must say the same (ConfigurationError)."""
        with self._file.writing() as connection:
            found = connection.execute("SELECT dimension, metric FROM state").fetchone()
            if found == (None, None):
                connection.execute(
                    "UPDATE state SET dimension = ?, metric = ?", (dimension, str(metric))
                )
            elif found != (dimension, str(metric)):
                raise ConfigurationError(
                    f"the journal holds vectors of {found[0]} dimensions under {found[1]}, not "
                    f"{dimension} under {metric}: another model needs another state directory"
                )
        self._appender.vectors = (dimension, metric)

    # -- appending ---------------------------------------------------------------------------------

    def append(
        self, changes: Sequence[tuple[str, Record | None]], *, op_id: str | None = None
    ) -> Appended:
        """Make the changes durable, all or none, in order; returning is the acknowledgement.

        ``op_id``: a retry within 24 hours returns the seqs of the first call and writes nothing.
        Raises InvalidInput (also if the op_id came with another batch), JournalFull at the size
        limit, JournalUnavailable if the disk is full or fails, ForeignIncarnation if the journal was
        restored under this process. After an error nothing was acknowledged.
        """
        return self._appender.append(changes, op_id)

    def on_commit(self, tell: Callable[[Sequence[Change]], None]) -> None:
        """Let ``tell`` know of the entries that this process appends, once they are durable.

        It is called by one of the threads that appended them, before any of these returns, with entries
        that follow each other, perhaps by several threads at once. It must not raise.
        """
        self._appender.on_commit = tell

    # -- reading -----------------------------------------------------------------------------------

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

    # -- marks and truncation ----------------------------------------------------------------------

    def set_cursor(self, store: str, seq: int) -> None:
        """Record that ``store`` has durably applied everything up to ``seq``.

        Raises JournalGap below the base, ForeignIncarnation above the head.
        """
        with self._file.writing() as connection:
            check_place(connection, seq)
            connection.execute("INSERT OR REPLACE INTO cursor VALUES (?, ?)", (store, seq))

    def drop_cursor(self, store: str) -> None:
        """Let go of a store: truncation no longer waits for it, and it will need a backfill."""
        with self._file.writing() as connection:
            connection.execute("DELETE FROM cursor WHERE store = ?", (store,))

    def cursors(self) -> dict[str, int]:
        """How far each store has applied."""
        with self._file.reading() as connection:
            return dict(connection.execute("SELECT store, seq FROM cursor").fetchall())

    def hold(self, name: str, seq: int) -> None:
        """Keep every entry after ``seq`` until :meth:`release`. Raises as :meth:`set_cursor`."""
        with self._file.writing() as connection:
            check_place(connection, seq)
            connection.execute("INSERT OR REPLACE INTO hold VALUES (?, ?)", (name, seq))

    def release(self, name: str) -> None:
        """End a hold; one that is not there is not an error."""
        with self._file.writing() as connection:
            connection.execute("DELETE FROM hold WHERE name = ?", (name,))

    def holds(self) -> dict[str, int]:
        """The holds in force, by name."""
        with self._file.reading() as connection:
            return dict(connection.execute("SELECT name, seq FROM hold").fetchall())

    def oldest_holder(self) -> tuple[str, int] | None:
        """The cursor or hold that truncation waits for, by name, and its seq."""
        with self._file.reading() as connection:
            return oldest_holder(connection)

    def truncate(self, upto: int) -> int:
        """Delete entries up to ``upto``, none above a cursor or hold; the number deleted.

        Works in short transactions, so that writers hardly wait. Forgets operations older than 24 h.
        """
        deleted = 0
        while True:
            with self._file.writing() as connection:
                head, base = connection.execute("SELECT head, base FROM state").fetchone()
                holder = oldest_holder(connection)
                limit = min(upto, head, head if holder is None else holder[1])
                low = min(limit, base + TRUNCATE_ENTRIES_MAX)
                if low > base:
                    mark = mark_at(connection, low)
                    connection.execute("DELETE FROM entry WHERE seq <= ?", (low,))
                    connection.execute("UPDATE state SET base = ?, base_mark = ?", (low, mark))
                    deleted += low - base
                # Only the first of them are looked at, not the whole day that is kept.
                forgotten = connection.execute(
                    "DELETE FROM operation WHERE appended_at < ? AND first_seq IN "
                    "(SELECT first_seq FROM operation ORDER BY first_seq LIMIT ?)",
                    (self._appender.clock() - OPERATION_SECONDS, TRUNCATE_ENTRIES_MAX),
                ).rowcount
            if low >= limit and forgotten < TRUNCATE_ENTRIES_MAX:
                return deleted

    def seal(self) -> int:
        """Take no more entries, for good (finalize); the head. Appends raise JournalSealed."""
        with self._file.writing() as connection:
            connection.execute("UPDATE state SET sealed = 1")
            return self.head_in(connection)

    def sealed(self) -> bool:
        """Whether a finalize has begun: no entry will be taken."""
        with self._file.reading() as connection:
            return bool(connection.execute("SELECT sealed FROM state").fetchone()[0])

    def unseal(self) -> None:
        """Take entries again: a finalize did not get through."""
        with self._file.writing() as connection:
            connection.execute("UPDATE state SET sealed = 0")

    def reloads(self) -> int:
        """How often every process was asked to load its FAISS copy anew."""
        with self._file.reading() as connection:
            return int(connection.execute("SELECT reloads FROM state").fetchone()[0])

    def reloads_and_head(self) -> tuple[int, int]:
        """:meth:`reloads` and :meth:`head` in one look."""
        with self._file.reading() as connection:
            found = connection.execute("SELECT reloads, head FROM state").fetchone()
        return int(found[0]), int(found[1])

    def ask_reload(self) -> None:
        """Ask every process to load its FAISS copy anew from the newest snapshot."""
        with self._file.writing() as connection:
            connection.execute("UPDATE state SET reloads = reloads + 1")

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

    # -- life --------------------------------------------------------------------------------------

    def restart_incarnation(self, *, cursors: Mapping[str, int] | None = None) -> str:
        """Begin a new history from what is here (a restore did), held back by ``cursors`` alone.

        Takes entries again if it was sealed. Every store, snapshot and process must be told.
        """
        incarnation = uuid.uuid4().hex
        with self._file.writing() as connection:
            connection.execute("DELETE FROM cursor")
            connection.execute("DELETE FROM hold")
            connection.executemany(
                "INSERT INTO cursor VALUES (?, ?)", list((cursors or {}).items())
            )
            connection.execute("UPDATE state SET incarnation = ?, sealed = 0", (incarnation,))
        self._appender.incarnation = incarnation
        return incarnation

    def close(self) -> None:
        """Stop the checkpoints and close the file; further calls raise JournalUnavailable."""
        self._checkpointer.stop()
        self._file.close()
