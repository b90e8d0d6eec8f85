"""A quota without privileges: this process may write no file beyond a size."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["file_limit"]


@contextmanager
def file_limit(size_bytes: int) -> Iterator[None]:
    """For the length of the block a write beyond ``size_bytes`` of any file fails, with EFBIG.

    It holds for the whole process, so nothing else may be writing in it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
