"""Locks between the processes of one machine, released by the kernel when their holder dies."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from vectorstore.errors import ConfigurationError

__all__ = ["hold_lock", "process_lock"]

_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def hold_lock(path: Path, *, shared: bool = False, wait: bool = False) -> IO[str] | None:
    """Take the lock file at ``path``, alone or with others that share it; ``None`` if it is taken.

    Closing what is returned gives the lock back. A child that inherits the file keeps the lock. Raises
    ConfigurationError where this account may not write.
    """
    try:
        file = path.open("a")
    except OSError as error:
        if error.errno not in _FORBIDDEN:
            raise
        raise ConfigurationError(
            f"cannot write to {path}: {error.strerror}; this account needs a state_directory that it may "
            "write to: set another, or give it the right"
        ) from error
    try:
        fcntl.flock(
            file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        )
    except BlockingIOError:
        file.close()
        return None
    except BaseException:
        file.close()
        raise
    return file


@contextmanager
def process_lock(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold the lock file at ``path`` for the length of the block.

    Yields whether the lock was obtained; with ``wait`` it always is, in time.
    """
    held = hold_lock(path, wait=wait)
    if held is None:
        yield False
        return
    with held:
        try:
            yield True
        finally:
            # Closing alone would leave it with a child that was forked meanwhile, for as long as it lives.
            fcntl.flock(held, fcntl.LOCK_UN)
