"""FAISS itself, as ``Any``: the stubs that it ships leave out half of what it can do.

The only module that imports FAISS, so that what blocks it or delays it is in one place.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["MAPPED", "WRITE_BYTES", "faiss", "write_index", "write_index_to"]

faiss: Any = importlib.import_module("faiss")

# The flag that maps an index into memory: since FAISS 1.11, and elsewhere than on Linux it is there and
# refused. Without it all of the index is read.
MAPPED: int = getattr(faiss, "IO_FLAG_MMAP_IFC", 0) if sys.platform == "linux" else 0

WRITE_BYTES = 1 << 20
"""A file's buffer, for what FAISS writes in small pieces."""


def write_index(index: Any, path: Path) -> None:
    """The index in a file; raises OSError if the disk takes no more."""
    with path.open("wb", buffering=WRITE_BYTES) as file:
        write_index_to(file, index)


def write_index_to(file: BinaryIO, index: Any, *, rows: bool = True) -> None:
    """The index to a file that is open; raises OSError if the disk takes no more.

    FAISS's own writer of files keeps to itself that the last bytes found no room, and a checksum taken
    afterwards would be that of a torn file. Without ``rows`` an HNSW index ends in four bytes that stand
    for them.
    """
    flags = 0 if rows else faiss.IO_FLAG_SKIP_STORAGE
    faiss.write_index(index, faiss.PyCallbackIOWriter(file.write), flags)
