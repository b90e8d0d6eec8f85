"""A lock between the processes of one machine, released by the kernel when its holder dies."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["process_lock"]


@contextmanager
def process_lock(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold the lock file at ``path`` for the length of the block.

    Yields whether the lock was obtained; with ``wait`` it always is, in time.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
