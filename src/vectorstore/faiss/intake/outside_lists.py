"""IVF indexes whose lists lie in a file of their own: FAISS's OnDiskInvertedLists.

Source of the format: faiss/invlists/OnDiskInvertedLists.cpp. ``ilod``, then the number of lists and the
bytes of a row (uint64 each, little-endian).
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

from vectorstore.errors import IntakeRefused
from vectorstore.faiss.engine import faiss

__all__ = ["has_outside_lists", "names_outside_lists", "outside_lists_refused"]

_MARK = b"ilod"
_SIZES = struct.Struct("<QQ")


def names_outside_lists(path: Path, dimension: int) -> bool:
    """Whether an index file of float32 rows names another one that holds its lists."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        at = memory.find(_MARK)
        while at >= 0:
            sizes = memory[at + len(_MARK) : at + len(_MARK) + _SIZES.size]
            if len(sizes) == _SIZES.size and _SIZES.unpack(sizes)[1] == 4 * dimension:
                return True
            at = memory.find(_MARK, at + 1)
    return False


def has_outside_lists(index: Any) -> bool:
    """Whether an IVF index that was read serves its lists from another file."""
    lists = faiss.downcast_InvertedLists(index.invlists)
    # By name: FAISS does not have the type on every system.
    return bool(type(lists).__name__ == "OnDiskInvertedLists")


def outside_lists_refused(path: Path) -> IntakeRefused:
    """What to say of such an index."""
    return IntakeRefused(
        f"{path} keeps its rows in another file (FAISS's OnDiskInvertedLists), which is not taken in. "
        "Where both files are in place, write it anew as one: index = faiss.read_index(...); lists = "
        "faiss.ArrayInvertedLists(index.nlist, index.code_size); lists.merge_from("
        "faiss.downcast_InvertedLists(index.invlists), 0); index.replace_invlists(lists); "
        "faiss.write_index(index, ...)"
    )
