"""The journal's file: connections, transactions, checkpoints, and what goes wrong with a file.

Durability rests on settings that are asserted when the file is opened: write-ahead log,
``synchronous=FULL`` (the log is synced before a commit returns) and ``fullfsync`` (on macOS fsync alone
leaves the data in the drive's cache).

One connection writes and is guarded by a lock; a few read. Another process that writes is met with a
short poll, because SQLite's own back-off sleeps for up to 100 ms where a transaction takes 0.2 ms.
Nothing here may cross a fork: open the journal in the child.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path

from shadow.errors import JournalBusy, JournalUnavailable
from shadow.writes.journal_transaction import WriteTransaction
from shadow.writes.sqlite_failure import is_code, translation
from vectorstore.durable import sync_directory
from vectorstore.errors import ConfigurationError

__all__ = ["PAGE_SIZE_BYTES", "JournalFile"]

FORMAT = 2
BUSY_TIMEOUT_MS = 10_000
POLL_MS_MIN, POLL_MS_MAX = 0.05, 0.5
IDLE_READERS_MAX = 8
PAGE_SIZE_BYTES = 4096
CHECKPOINT_BUSY_MS = 50
LOG_PAGES_MAX = 2048

# Pragmas with the value that each must read back.
DURABLE = {"journal_mode": "wal", "synchronous": 2, "fullfsync": 1, "checkpoint_fullfsync": 1}


class JournalFile:
    """One SQLite file as one process sees it. Safe to share between threads, not across a fork."""

    def __init__(self, directory: Path) -> None:
        """Open or create ``journal.db`` in ``directory``.

        Raises ConfigurationError if the directory or its file system cannot hold a journal, and
        StoreCorrupt if the file is not one.
        """
        self.path = directory / "journal.db"
        self._pid = os.getpid()
        self._closed = False
        self._write_lock = threading.Lock()
        self._watch_lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        try:
            self._create(directory)
        except OSError as error:
            raise ConfigurationError(
                f"cannot create a journal in {directory}: {error.strerror}. Give the process a "
                "directory on a local disk that it may write to"
            ) from error
        with self._translated():
            self._writer = self._connect()
            self._watcher = self._connect()
            self._check_format()
            # From here on the writer polls by itself, see the module's docstring.
            self._writer.execute("PRAGMA busy_timeout = 0")
        self._identity = self._file_identity()
        self._transaction = WriteTransaction(
            self._writer,
            self._write_lock,
            self.path,
            begin=self._begin,
            busy=self._busy,
            lock_s_max=BUSY_TIMEOUT_MS / 1e3,
        )

    # -- transactions ------------------------------------------------------------------------------

    def writing(self) -> WriteTransaction:
        """One durable transaction, see :class:`WriteTransaction`; entered with the connection.

        Raises JournalBusy if others hold the lock for ``BUSY_TIMEOUT_MS``, JournalUnavailable if the
        disk is full or fails; then nothing of the transaction is acknowledged.
        """
        self._check_open()
        return self._transaction

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A consistent view of the file for the length of the block."""
        self._check_open()
        with self._translated():
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connect()
                connection.execute("PRAGMA query_only = ON")
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if self._closed or len(self._idle) >= IDLE_READERS_MAX:
                    connection.close()
                else:
                    self._idle.append(connection)

    def data_version(self) -> int:
        """A number that changes after every commit, by this process or another.

        Asked of one connection that never writes, so that all threads of a process may compare them.
        """
        self._check_open()
        with self._watch_lock, self._translated():
            return int(self._watcher.execute("PRAGMA data_version").fetchone()[0])

    def used_bytes(self, connection: sqlite3.Connection) -> int:
        """Bytes of the pages in use, as ``connection`` sees them; freed pages are used again."""
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        free = connection.execute("PRAGMA freelist_count").fetchone()[0]
        return int(pages - free) * PAGE_SIZE_BYTES

    # -- checkpoints -------------------------------------------------------------------------------

    def log_bytes(self) -> int:
        """Size of the log's file; what it holds of old may be written over."""
        log = self.path.with_name(f"{self.path.name}-wal")
        return log.stat().st_size if log.exists() else 0

    def checkpoint(self) -> bool:
        """Copy the log into the database, so that it starts over; False if it outgrew its limit.

        Writers go on meanwhile, so that some of the log may remain. Only a log of more than
        ``LOG_PAGES_MAX`` pages makes them wait, for that rest and one sync. A log that starts over is
        written in place, which syncs faster than one that grows.
        """
        self._check_open()
        with self._translated():
            connection = self._connect()
            try:
                _, logged, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if logged > LOG_PAGES_MAX:
                    # What was appended during the copy keeps the log from starting over.
                    connection.execute(f"PRAGMA busy_timeout = {CHECKPOINT_BUSY_MS}")
                    # This process's writers are held off here; those of others, by SQLite's lock.
                    with self._write_lock:
                        _, logged, copied = connection.execute(
                            "PRAGMA wal_checkpoint(FULL)"
                        ).fetchone()
                return bool(logged == copied)
            finally:
                connection.close()

    def close(self) -> None:
        """Close every connection. In a child that was forked with the file open this does nothing."""
        if self._closed or os.getpid() != self._pid:
            return
        with self._write_lock, self._watch_lock:
            self._closed = True
            self._writer.close()
            self._watcher.close()
            while self._idle:
                self._idle.pop().close()

    # -- opening -----------------------------------------------------------------------------------

    def _create(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.path.exists():
            # Made aside and linked: to open and close the database itself would drop the locks
            # that another thread of this process holds on it (POSIX locks belong to the process).
            aside = directory / f".journal.{os.getpid()}.{threading.get_ident()}"
            os.close(os.open(aside, os.O_CREAT | os.O_WRONLY, 0o600))
            with suppress(FileExistsError):
                os.link(aside, self.path)
            aside.unlink()
        sync_directory(directory)
        # Its own name too, where the directory above it may be opened.
        with suppress(PermissionError):
            sync_directory(directory.parent)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_MS / 1e3, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute(f"PRAGMA page_size = {PAGE_SIZE_BYTES}")
            for name, value in DURABLE.items():
                self._until_free(connection, f"PRAGMA {name} = {value}")
                actual = connection.execute(f"PRAGMA {name}").fetchone()[0]
                if actual != value:
                    raise ConfigurationError(
                        f"{self.path}: SQLite reports {name} = {actual} where {value} is needed for "
                        "durable writes. Put the journal on a local disk (not a network file system)"
                    )
            # The checkpoint is made off the path of writers; deleted pages need no overwriting.
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("PRAGMA secure_delete = OFF")
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_format(self) -> None:
        found = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            schema = resources.files("shadow.writes").joinpath("journal_schema.sql").read_text()
            self._writer.executescript(f"BEGIN IMMEDIATE;\n{schema}\nCOMMIT;")
        elif found != FORMAT:
            raise ConfigurationError(
                f"{self.path} has format {found}; this version reads format {FORMAT}. "
                "Use the version of shadow-cutover that wrote it"
            )

    def _begin(self) -> None:
        self._until_free(self._writer, "BEGIN IMMEDIATE")
        # A write into a file that was moved away or replaced would be acknowledged and lost.
        self._check_same_file()

    # -- guards ------------------------------------------------------------------------------------

    def _until_free(self, connection: sqlite3.Connection, statement: str) -> None:
        """Run a statement that needs a lock, polling until it is free or the time is up."""
        deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1e3
        pause_ms = POLL_MS_MIN
        while True:
            try:
                connection.execute(statement)
                return
            except sqlite3.OperationalError as error:
                if not is_code(error, "SQLITE_BUSY"):
                    raise
                if time.monotonic() >= deadline:
                    raise self._busy() from error
            time.sleep(pause_ms / 1e3)
            pause_ms = min(2 * pause_ms, POLL_MS_MAX)

    def _file_identity(self) -> tuple[int, int]:
        status = self.path.stat()
        return status.st_dev, status.st_ino

    def _check_same_file(self) -> None:
        try:
            same = self._file_identity() == self._identity
        except FileNotFoundError:
            same = False
        if not same:
            raise JournalUnavailable(
                f"{self.path} was removed or replaced while this process had it open, so nothing "
                "was written. Restart the process"
            )

    def _check_open(self) -> None:
        if self._closed:
            raise JournalUnavailable(f"the journal {self.path} is closed")
        if os.getpid() != self._pid:
            raise JournalUnavailable(
                f"the journal {self.path} was opened before a fork. Open it again in the child"
            )

    def _busy(self) -> JournalBusy:
        return JournalBusy(
            f"the write lock of {self.path} was held by others for {BUSY_TIMEOUT_MS} ms, so nothing "
            "was written. Look for a stopped process that has the file open, and retry"
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn the driver's errors into ours, chained."""
        try:
            yield
        except sqlite3.Error as error:
            raise translation(error, self.path) from error
