"""Live queries kept so that they can be replayed: off by default, capped, expiring, mode 0600.

Vectors and k are kept; filters and labels, which may hold what people wrote, only if asked for. What
expires is overwritten in the file.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from shadow.config import EvidenceSettings
from vectorstore.filters import Filter
from vectorstore.types import Query

__all__ = ["CaptureBook"]

FILE_NAME = "captured.db"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS captured (
    id     INTEGER PRIMARY KEY,
    at     REAL NOT NULL,
    k      INTEGER NOT NULL,
    vector BLOB NOT NULL,
    filter TEXT,
    label  TEXT
);
CREATE INDEX IF NOT EXISTS captured_at ON captured (at);
"""


class CaptureBook:
    """The captured queries of one state directory. Safe between threads and processes."""

    def __init__(
        self,
        directory: Path,
        settings: EvidenceSettings,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the book; one whose capture is off is deleted, with what was in it."""
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        path = directory / FILE_NAME
        if settings.capture_max == 0:
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            return
        path.touch(mode=0o600)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA secure_delete=ON")
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=OFF")
        self._connection.executescript(_SCHEMA)

    def add(self, queries: Sequence[Query]) -> None:
        """Keep queries; what is too old or too many is deleted, the oldest first."""
        connection = self._connection
        if connection is None:
            return
        now, private = self._clock(), self._settings.capture_filters
        rows = [
            (
                now,
                query.k,
                np.asarray(query.vector, dtype=np.float32).tobytes(),
                json.dumps(query.filter.clauses) if private and query.filter else None,
                query.label if private else None,
            )
            for query in queries
        ]
        with self._lock, connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO captured (at, k, vector, filter, label) VALUES (?, ?, ?, ?, ?)", rows
            )
            self._expire(connection)
            connection.execute(
                "DELETE FROM captured WHERE id IN"
                " (SELECT id FROM captured ORDER BY id DESC LIMIT -1 OFFSET ?)",
                (self._settings.capture_max,),
            )

    def queries(self) -> list[Query]:
        """What is kept and not too old, the oldest first."""
        connection = self._connection
        if connection is None:
            return []
        with self._lock, connection:
            connection.execute("BEGIN IMMEDIATE")
            self._expire(connection)
            rows = connection.execute(
                "SELECT k, vector, filter, label FROM captured ORDER BY id"
            ).fetchall()
        return [
            Query(np.frombuffer(vector, dtype=np.float32), k, _filter(clauses), label=label)
            for k, vector, clauses, label in rows
        ]

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            with self._lock:
                self._connection.close()

    def _expire(self, connection: sqlite3.Connection) -> None:
        oldest = self._clock() - self._settings.capture_age_s_max
        connection.execute("DELETE FROM captured WHERE at < ?", (oldest,))


def _filter(clauses: str | None) -> Filter | None:
    if clauses is None:
        return None
    return Filter(tuple((key, tuple(values)) for key, values in json.loads(clauses)))
