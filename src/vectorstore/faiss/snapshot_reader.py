"""Records of a snapshot, range by range, without loading it.

The index is mapped into memory, so that several processes that read one snapshot share its pages and
none of them holds more than the ranges it is at.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from vectorstore.columns import RecordColumns
from vectorstore.errors import StoreCorrupt, Unsupported
from vectorstore.faiss.engine import MAPPED, faiss
from vectorstore.faiss.index import Rows2D, wrapped_index
from vectorstore.faiss.manifest import MANIFEST_NAME, Manifest
from vectorstore.faiss.snapshot import INDEX_NAME, RECORDS_NAME, tombstones

__all__ = ["SnapshotReader"]

_SCAN_BYTES = 1 << 20


class SnapshotReader:
    """Numbers the live records of a snapshot 0, 1, 2 .. in order of position. For one thread."""

    def __init__(self, path: Path) -> None:
        """Open a snapshot that was verified; its checksums are not looked at again.

        Raises StoreCorrupt if its parts do not fit together.
        """
        self.manifest = Manifest.read(path / MANIFEST_NAME)
        try:
            self._index = wrapped_index(faiss.read_index(str(path / INDEX_NAME), MAPPED))
            self._live = self._live_positions(tombstones(path))
            self._lines = (path / RECORDS_NAME).open("rb")
        except (OSError, RuntimeError, ValueError, LookupError, Unsupported) as error:
            raise StoreCorrupt(f"{path}: its parts do not fit together ({error})") from error
        self._next = 0
        self._parse: Callable[[bytes], Any] = (
            json.loads if self.manifest.wide_integers else orjson.loads
        )

    @property
    def rows(self) -> int:
        """How many records there are."""
        return self.manifest.rows

    def records(self, start: int, stop: int) -> RecordColumns:
        """The records number ``start`` to ``stop``; cheapest where the last call ended.

        Their vectors may be the mapped file itself: valid until :meth:`close`, at any address.
        """
        vectors = self._vectors(start, stop)
        if start != self._next:
            self._seek(start)
        lines = list(islice(self._lines, stop - start))
        self._next = stop
        if len(lines) != len(vectors):
            raise StoreCorrupt(f"{self._lines.name} ends before record {stop:,}")
        rows = [self._parse(line) for line in lines]
        return RecordColumns(
            [row["id"] for row in rows],
            vectors,
            [row["text"] for row in rows],
            [row["metadata"] for row in rows],
            [row["seq"] for row in rows],
        )

    def close(self) -> None:
        """Let go of the files; what was read must not be used any more."""
        self._lines.close()

    def _live_positions(self, dead: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        if not dead.size:
            return None
        alive = np.ones(self._index.size, dtype=np.bool_)
        alive[dead] = False
        return np.flatnonzero(alive)

    def _vectors(self, start: int, stop: int) -> Rows2D:
        if self._live is None:
            return self._index.block(start, stop)
        positions = self._live[start:stop]
        if not positions.size:
            return self._index.block(0, 0)
        first = int(positions[0])
        return self._index.block(first, int(positions[-1]) + 1)[positions - first]

    def _seek(self, number: int) -> None:
        """Go to the line of record ``number``."""
        self._lines.seek(0)
        before = at = 0
        while before < number:
            block = self._lines.read(_SCAN_BYTES)
            if not block:
                raise StoreCorrupt(f"{self._lines.name} ends before record {number:,}")
            found = block.count(b"\n")
            if before + found < number:
                before, at = before + found, at + len(block)
                continue
            ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n"))
            at += int(ends[number - before - 1]) + 1
            before = number
        self._lines.seek(at)
