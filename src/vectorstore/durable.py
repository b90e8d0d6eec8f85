"""Files that are on the disk when the call returns."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

__all__ = ["copy_durably", "make_directory", "sync_directory", "sync_file", "write_durably"]


def sync_file(descriptor: int) -> None:
    """Flush a file to the medium; on macOS fsync stops at the drive's cache, F_FULLFSYNC does not."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is None:
        os.fsync(descriptor)
    else:
        fcntl.fcntl(descriptor, full)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: a rename is not, before this."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_file(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """A directory for its owner alone, whose name is on the disk when the call returns.

    Also if it is there already: who made it may have been killed before the name was flushed. Missing
    directories above it are made as well.
    """
    if not path.parent.exists():
        make_directory(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    sync_directory(path.parent)


def write_durably(path: Path, content: bytes) -> None:
    """Write a whole file, readable by its owner alone, and flush it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        sync_file(file.fileno())


def copy_durably(source: Path, target: Path) -> None:
    """Copy a file, readable by its owner alone, and flush it."""
    with source.open("rb") as original:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(original, file, 1 << 20)
            file.flush()
            sync_file(file.fileno())
