"""An index read from its file with room to grow, so that the first writes do not move all of it."""

from __future__ import annotations

from pathlib import Path

from vectorstore.faiss.engine import MAPPED, faiss
from vectorstore.faiss.index import RowIndex, wrapped_index

__all__ = ["read_with_room"]

BLOCK_ROWS = 4096


def read_with_room(path: Path) -> RowIndex:
    """Read an index that :func:`wrapped_index` takes; raises as that and FAISS's reader do.

    A flat one is copied out of its mapped file, so that it is never held twice. The others are read, and
    the vectors of HNSW are then moved once, before there is anybody to wait for it.
    """
    found = faiss.read_index(str(path), MAPPED)
    if isinstance(found, faiss.IndexFlat):
        mapped = wrapped_index(found)
        del found
        index = mapped.emptied()
        index.reserve(mapped.size)
        while index.size < mapped.size:
            index.append(mapped.block(index.size, index.size + BLOCK_ROWS))
            if MAPPED:
                # Pages of a file that were read count as memory until they are let go.
                mapped = wrapped_index(faiss.read_index(str(path), MAPPED))
        return index
    del found
    index = wrapped_index(faiss.read_index(str(path)))
    index.reserve(index.size)
    return index
