"""What an error of SQLite means for a write, said so that an operator can act on it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from shadow.errors import JournalUnavailable
from vectorstore.errors import ConfigurationError, StoreCorrupt, VectorStoreError

__all__ = ["is_code", "translation"]


def is_code(error: sqlite3.Error, name: str) -> bool:
    """Whether the error has this result code, or one that extends it."""
    return str(getattr(error, "sqlite_errorname", "")).startswith(name)


def translation(error: sqlite3.Error, path: Path) -> VectorStoreError:
    """Our error for the driver's; the caller chains them."""
    if is_code(error, "SQLITE_FULL"):
        return JournalUnavailable(
            f"the disk that holds {path} is full, so the write was refused. Nothing that was "
            "acknowledged is lost; writes go on by themselves when there is space"
        )
    if is_code(error, "SQLITE_IOERR"):
        return JournalUnavailable(
            f"the disk that holds {path} refused an operation ({error}), so the write was not "
            "acknowledged. Check its space, quota and health, and retry with the same op_id"
        )
    if is_code(error, "SQLITE_CORRUPT") or is_code(error, "SQLITE_NOTADB"):
        return StoreCorrupt(
            f"{path} is damaged or not a journal ({error}). Restore it from a backup"
        )
    if is_code(error, "SQLITE_READONLY") or is_code(error, "SQLITE_CANTOPEN"):
        return ConfigurationError(
            f"cannot write {path} ({error}). Give the process read and write permission on the file "
            "and its directory"
        )
    return JournalUnavailable(f"the journal {path} failed ({error}); nothing was acknowledged")
