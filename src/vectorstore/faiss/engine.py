"""FAISS itself, as ``Any``: the stubs that it ships leave out half of what it can do.

The only module that imports FAISS, so that what blocks it or delays it is in one place.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

__all__ = ["MAPPED", "faiss", "write_index"]

faiss: Any = importlib.import_module("faiss")

# The flag that maps an index into memory: since FAISS 1.11, and elsewhere than on Linux it is there and
# refused. Without it all of the index is read.
MAPPED: int = getattr(faiss, "IO_FLAG_MMAP_IFC", 0) if sys.platform == "linux" else 0

WRITE_BYTES = 1 << 20


def write_index(index: Any, path: Path) -> None:
    """The index in a file; raises OSError if the disk takes no more.

    FAISS's own writer of files keeps to itself that the last bytes found no room, and a checksum taken
    afterwards would be that of a torn file.
    """
    with path.open("wb", buffering=WRITE_BYTES) as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
