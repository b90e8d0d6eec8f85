"""SQLite alone, as durable as the journal is: what an acknowledgement costs before any code of ours."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from vectorstore.canonical import canonical_json
from vectorstore.types import Record

__all__ = ["BareLog"]


class BareLog:
    """One table and a counter in a file with a write-ahead log, synced at each commit."""

    def __init__(self, path: Path) -> None:
        self._head = 0
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.executescript(
            """
            PRAGMA journal_mode = wal;
            PRAGMA synchronous = full;
            CREATE TABLE head (one INTEGER PRIMARY KEY, seq INTEGER NOT NULL);
            INSERT INTO head VALUES (1, 0);
            CREATE TABLE entry (
                seq INTEGER PRIMARY KEY, id TEXT, text TEXT, metadata TEXT, embedding BLOB
            );
            """
        )

    def append(self, records: list[Record]) -> None:
        """One durable transaction."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        rows = [
            (seq, one.id, one.text, canonical_json(one.metadata), one.embedding.tobytes())
            for seq, one in enumerate(records, self._head + 1)
        ]
        connection.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?)", rows)
        self._head = rows[-1][0]
        connection.execute("UPDATE head SET seq = ?", (self._head,))
        connection.execute("COMMIT")

    def empty(self) -> None:
        """Let the file's pages be used again."""
        self._connection.execute("DELETE FROM entry")

    def close(self) -> None:
        self._connection.close()
