"""An index read from its file with room to grow, so that the first writes do not move all of it."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

from vectorstore.errors import StoreCorrupt
from vectorstore.faiss.engine import faiss
from vectorstore.faiss.index import FLAT, RowIndex, empty_index, wrapped_index

__all__ = ["read_with_room"]

BLOCK_ROWS = 4096

# Source of the format: faiss/impl/index_write.cpp. Code, dimension, number of rows; the rows, float32,
# are the end of the file.
_HEAD = struct.Struct("<4siq")
_INNER_PRODUCT, _L2 = b"IxFI", b"IxF2"


def read_with_room(path: Path) -> RowIndex:
    """Read an index that :func:`wrapped_index` takes; raises as that and FAISS's reader do.

    The rows of a flat one are read into the room that they are given, so that they are never held twice.
    Those of HNSW are moved once, before there is anybody to wait for it.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD.size)
        if len(head) == _HEAD.size and head[:4] in (_INNER_PRODUCT, _L2):
            code, dimension, rows = _HEAD.unpack(head)
            index = empty_index(
                dimension=dimension, inner_product=code == _INNER_PRODUCT, kind=FLAT
            )
            index.reserve(rows)
            file.seek(-4 * dimension * rows, os.SEEK_END)
            while index.size < rows:
                wanted = min(BLOCK_ROWS, rows - index.size)
                block = np.fromfile(file, dtype="<f4", count=wanted * dimension)
                if block.size < wanted * dimension:
                    raise StoreCorrupt(f"{path} ends before row {rows:,}")
                index.append(block.reshape(wanted, dimension))
            return index
    index = wrapped_index(faiss.read_index(str(path)))
    index.reserve(index.size)
    return index
