"""The journal: the durable, ordered log of writes. Its commit is the acknowledgement of a write.

A write's place in the log is its ``seq``, taken from a counter row in the transaction that inserts the
entry, so it never repeats and never skips. Batches of several threads share one transaction. Several
processes of one machine share the file; each opens its own ``Journal`` (after a fork too), and what one
of them committed the others can read at once. What cannot be held by every store is refused here.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shadow.writes.checkpointer import Checkpointer
from shadow.writes.host import Host
from shadow.writes.journal_append import OPERATION_SECONDS, Appended, Appender, oldest_holder
from shadow.writes.journal_file import JournalFile
from shadow.writes.journal_state import check_place, enter, mark_at
from shadow.writes.journal_view import WARNING_SHARE, JournalUsage, JournalView
from vectorstore.errors import ConfigurationError
from vectorstore.types import Change, Metric, Record

__all__ = ["WARNING_SHARE", "Appended", "Journal", "JournalUsage"]

SIZE_BYTES_MAX_DEFAULT = 1 << 30
TRUNCATE_ENTRIES_MAX = 1000


class Journal(JournalView):
    """The log of writes of one migration, in ``journal.db`` of a directory: appended to and truncated."""

    def __init__(
        self, file: JournalFile, appender: Appender, checkpointer: Checkpointer, *, bytes_max: int
    ) -> None:
        """Use :meth:`open`."""
        super().__init__(file, bytes_max=bytes_max)
        self._appender = appender
        self._checkpointer = checkpointer

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

    def hold(self, name: str, seq: int | None = None) -> None:
        """Keep every entry after ``seq`` (None: all there are) until :meth:`release`.

        Raises as :meth:`set_cursor`.
        """
        with self._file.writing() as connection:
            if seq is None:
                (seq,) = connection.execute("SELECT base FROM state").fetchone()
            else:
                check_place(connection, seq)
            connection.execute("INSERT OR REPLACE INTO hold VALUES (?, ?)", (name, seq))

    def release(self, name: str) -> None:
        """End a hold; one that is not there is not an error."""
        with self._file.writing() as connection:
            connection.execute("DELETE FROM hold WHERE name = ?", (name,))

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

    @staticmethod
    def seal_in(connection: sqlite3.Connection) -> None:
        """Take no more entries, for good (finalize): appends raise JournalSealed.

        In a transaction of the caller's on :attr:`path`, which decides on something else besides.
        """
        connection.execute("UPDATE state SET sealed = 1")

    def unseal(self) -> None:
        """Take entries again: a finalize did not get through."""
        with self._file.writing() as connection:
            connection.execute("UPDATE state SET sealed = 0")

    def ask_reload(self) -> None:
        """Ask every process to load its FAISS copy anew from the newest snapshot."""
        with self._file.writing() as connection:
            connection.execute("UPDATE state SET reloads = reloads + 1")

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
