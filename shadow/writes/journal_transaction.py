"""One durable transaction on the journal's file: the lock, BEGIN, COMMIT, and the way back."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from shadow.errors import JournalBusy
from shadow.writes.sqlite_failure import translation

__all__ = ["WriteTransaction"]


class WriteTransaction:
    """A block under it is one transaction: committed and synced when it ends, undone if it raises.

    One object serves all threads, one block at a time; a class, because a generator would cost more
    than the statements of a short transaction.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        lock: threading.Lock,
        path: Path,
        *,
        begin: Callable[[], None],
        busy: Callable[[], JournalBusy],
        lock_s_max: float,
    ) -> None:
        """``begin`` starts the transaction and refuses a file that it must not write to."""
        self._connection = connection
        self._lock = lock
        self._path = path
        self._begin = begin
        self._busy = busy
        self._lock_s_max = lock_s_max

    def __enter__(self) -> sqlite3.Connection:
        if not self._lock.acquire(timeout=self._lock_s_max):
            raise self._busy()
        try:
            self._begin()
        except BaseException as error:
            self._undo(error)
            raise
        return self._connection

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._undo(error)
            return
        try:
            self._connection.execute("COMMIT")
        except BaseException as failure:
            self._undo(failure)
            raise
        self._lock.release()

    def _undo(self, error: BaseException) -> None:
        try:
            with suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
        finally:
            self._lock.release()
        if isinstance(error, sqlite3.Error):
            raise translation(error, self._path) from error
