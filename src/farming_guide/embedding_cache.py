"""Embeddings that were paid for once, kept on disk."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vectorstore.errors import ConfigurationError
from vectorstore.types import Vector

__all__ = ["EmbeddingCache"]

_KEYS_PER_STATEMENT = 500


class EmbeddingCache:
    """A SQLite file from (model, SHA-256 of the text) to float32 bytes; safe to share between threads.

    Texts are not kept, only their hashes. The file can be deleted at any time.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, check_same_thread=False, timeout=30)
            self._connection.execute("PRAGMA journal_mode=WAL")
            with self._connection:
                self._connection.execute(
                    "CREATE TABLE IF NOT EXISTS embedding"
                    " (model TEXT, text_hash BLOB, vector BLOB NOT NULL,"
                    " PRIMARY KEY (model, text_hash)) WITHOUT ROWID"
                )
        except (sqlite3.Error, OSError) as error:
            raise ConfigurationError(
                f"the embedding cache {path} cannot be opened ({error}): delete it or choose another"
            ) from error

    def read(self, model: str, texts: Sequence[str]) -> dict[str, Vector]:
        """The vectors that are known, by text."""
        by_hash = {_hash(text): text for text in texts}
        hashes = list(by_hash)
        known: dict[str, Vector] = {}
        with self._lock:
            for start in range(0, len(hashes), _KEYS_PER_STATEMENT):
                part = hashes[start : start + _KEYS_PER_STATEMENT]
                marks = ",".join("?" * len(part))
                rows = self._connection.execute(
                    f"SELECT text_hash, vector FROM embedding WHERE model = ? AND text_hash IN ({marks})",  # noqa: S608 - only question marks are spliced in
                    (model, *part),
                )
                for text_hash, blob in rows:
                    known[by_hash[bytes(text_hash)]] = np.frombuffer(blob, dtype="<f4").astype(
                        np.float32
                    )
        return known

    def write(self, model: str, vectors: Mapping[str, Vector]) -> None:
        """Keep the vectors of these texts."""
        rows = [(model, _hash(text), v.astype("<f4").tobytes()) for text, v in vectors.items()]
        with self._lock, self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO embedding VALUES (?, ?, ?)", rows)

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._connection.close()


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
