"""The vectors of texts that were embedded anew, kept in the target folder of the run."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from vectorstore.errors import ConfigurationError
from vectorstore.types import Vector

__all__ = ["FILE_NAME", "ReembeddedTexts"]

FILE_NAME = "reembedded.db"
KEYS_PER_STATEMENT = 500

_SCHEMA = """
CREATE TABLE IF NOT EXISTS model (name TEXT NOT NULL, dimension INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS embedded (
    text_hash BLOB PRIMARY KEY,
    vector    BLOB NOT NULL
) WITHOUT ROWID;
"""


class ReembeddedTexts:
    """SHA-256 of a text to its vector, of one model. One process at a time. Texts are not kept.

    The file may be deleted when the folder was taken in: it saves the cost of a later run.
    """

    def __init__(self, folder: Path, *, model: str, dimension: int) -> None:
        """Open the file of ``folder``; ConfigurationError if it holds vectors of another model."""
        path = folder / FILE_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=0.5)
            # Held until closed: two runs at once would pay twice.
            self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._connection.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
        except (sqlite3.Error, OSError) as error:
            raise ConfigurationError(
                f"{path} cannot be opened ({error}): another run may be using it; wait for it, or name "
                "another folder"
            ) from error
        found = self._connection.execute("SELECT name, dimension FROM model").fetchone()
        if found is None:
            self._connection.execute("INSERT INTO model VALUES (?, ?)", (model, dimension))
        elif found != (model, dimension):
            self._connection.close()
            raise ConfigurationError(
                f"{folder} holds vectors of {found[0]} with {found[1]} dimensions, and this is {model} "
                f"with {dimension}: name another folder"
            )

    def missing(self, texts: Sequence[str]) -> list[str]:
        """The texts whose vectors are not kept yet, in order."""
        known = {row[0] for row in self._connection.execute("SELECT text_hash FROM embedded")}
        return [text for text in texts if _hash(text) not in known]

    def vectors(self, texts: Sequence[str]) -> dict[str, Vector]:
        """Text to vector, (d,) float32, of those that are kept."""
        by_hash = {_hash(text): text for text in texts}
        hashes = list(by_hash)
        found: dict[str, Vector] = {}
        for start in range(0, len(hashes), KEYS_PER_STATEMENT):
            part = hashes[start : start + KEYS_PER_STATEMENT]
            marks = ",".join("?" * len(part))
            rows = self._connection.execute(
                f"SELECT text_hash, vector FROM embedded WHERE text_hash IN ({marks})",  # noqa: S608 - only question marks are spliced in
                part,
            )
            for text_hash, vector in rows:
                found[by_hash[text_hash]] = np.frombuffer(vector, dtype="<f4").astype(np.float32)
        return found

    def add(self, texts: Sequence[str], vectors: Vector) -> None:
        """Keep the vectors (n, d) of texts, all or none."""
        rows = [
            (_hash(text), vector.astype("<f4").tobytes())
            for text, vector in zip(texts, vectors, strict=True)
        ]
        self._connection.execute("BEGIN")
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO embedded VALUES (?, ?)", rows)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> ReembeddedTexts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
