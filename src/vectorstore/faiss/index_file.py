"""An index written to a file while searches and writes go on.

A write that waits while gigabytes go to the disk is more than a late write: a copy that has lacked one
for too long may not answer. So rows are copied block by block, and only what must be of one moment holds
writes off: of a flat index the rows that were changed meanwhile, of an HNSW index its graph. An IVF index
is written in one go.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vectorstore.faiss.collection import Collection
from vectorstore.faiss.engine import WRITE_BYTES, faiss, write_index_to
from vectorstore.faiss.index import FLAT, HNSW, RowIndex, Rows2D

__all__ = ["index_written"]

BLOCK_BYTES = 4 << 20
"""How much is copied under one hold."""

CHANGED_MAX = 64
"""So few changed rows are copied while writes are held off."""

PASSES_MAX = 8
"""How many times changed rows are copied anew, before writes are held off for the rest."""

# Source of the format: faiss/impl/index_write.cpp. The number of rows stands after the code and the
# dimension, the number of floats is the end of the head, and the rows are the end of the file.
_ROWS_AT = 8
_ROWS, _FLOATS = struct.Struct("<q"), struct.Struct("<Q")
# The length of what stands for the rows of an HNSW index that is written without them.
_NO_ROWS_BYTES = 4

Read = Callable[[Callable[[Collection], Any]], Any]
Frozen = Callable[[], AbstractContextManager[tuple[Collection, int]]]


@contextmanager
def index_written(path: Path, read: Read, frozen: Frozen) -> Iterator[tuple[Collection, int]]:
    """The collection with writes held off; once this has ended the file holds its index as it was then.

    ``read`` holds writes off for one look at the collection, ``frozen`` while it is entered. One caller
    at a time, and nobody rebuilds the collection meanwhile. Raises OSError if the disk takes no more.
    """
    with path.open("wb", buffering=WRITE_BYTES) as file:
        index: RowIndex = read(lambda collection: collection.index)
        if index.kind == FLAT:
            with _flat(file, index, read, frozen) as held:
                yield held
        elif index.kind == HNSW:
            with frozen() as held:
                write_index_to(file, index.faiss_index, rows=False)
                file.seek(-_NO_ROWS_BYTES, io.SEEK_CUR)
                count = index.size
                yield held
            # The rows that a graph stands on are added to and never changed.
            rows = _Rows(file, index, read)
            rows.copy(count)
            rows.end(count)
        else:
            with frozen() as held:
                write_index_to(file, index.faiss_index)
                yield held


@contextmanager
def _flat(
    file: BinaryIO, index: RowIndex, read: Read, frozen: Frozen
) -> Iterator[tuple[Collection, int]]:
    rows = _Rows(file, index, read)
    index.watch()
    try:
        rows.copy(read(lambda _: index.size))
        for _ in range(PASSES_MAX):
            changed = read(lambda _: index.take_changed())
            for start in range(0, len(changed), CHANGED_MAX):
                rows.copy_each(changed[start : start + CHANGED_MAX])
            if len(changed) <= CHANGED_MAX:
                break
        with frozen() as held:
            rows.copy_each(index.take_changed())
            rows.end(index.size)
            if held[0].index is not index:
                # It was trained meanwhile, which happens once, to an index of some thousand rows.
                file.seek(0)
                file.truncate()
                write_index_to(file, held[0].index.faiss_index)
            yield held
    finally:
        index.unwatch()


class _Rows:
    """The rows of an index as a flat one has them in its file, from where the file stands now."""

    def __init__(self, file: BinaryIO, index: RowIndex, read: Read) -> None:
        head = io.BytesIO()
        write_index_to(head, faiss.IndexFlat(index.dimension, index.faiss_index.metric_type))
        self._file, self._index, self._read = file, index, read
        self._head = bytearray(head.getvalue())
        self._head_at = file.tell()
        self._row_bytes = 4 * index.dimension

    def copy(self, count: int) -> None:
        """The first ``count`` rows, or those of them that are there still."""
        step = max(1, BLOCK_BYTES // self._row_bytes)
        for start in range(0, count, step):
            self._put(start, self._block(start, min(start + step, count)))

    def _block(self, start: int, stop: int) -> Rows2D:
        # A copy: once the hold is over rows may be elsewhere.
        found: Rows2D = self._read(lambda _: self._index.block(start, stop).copy())
        return found

    def copy_each(self, positions: Sequence[int]) -> None:
        """Single rows as they are now, but for those that are there no more."""

        def look(_: Collection) -> tuple[list[int], Rows2D]:
            present = [at for at in positions if at < self._index.size]
            return present, self._index.vectors(np.array(present, dtype=np.int64))

        for at, row in zip(*self._read(look), strict=True):
            self._put(at, row)

    def end(self, count: int) -> None:
        """Write the head, and let go of what lies behind ``count`` rows."""
        _ROWS.pack_into(self._head, _ROWS_AT, count)
        floats = count * self._index.dimension
        _FLOATS.pack_into(self._head, len(self._head) - _FLOATS.size, floats)
        self._file.seek(self._head_at)
        self._file.write(self._head)
        self._file.truncate(self._head_at + len(self._head) + count * self._row_bytes)

    def _put(self, position: int, rows: Rows2D) -> None:
        self._file.seek(self._head_at + len(self._head) + position * self._row_bytes)
        self._file.write(rows.astype("<f4", copy=False).data)
