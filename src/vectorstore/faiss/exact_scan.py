"""An exact search in blocks, between which writes get in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vectorstore.faiss.bitmap import Bitmap
from vectorstore.faiss.collection import Collection
from vectorstore.faiss.ranking import BLOCK_ROWS, Best
from vectorstore.types import Hit, Vector

__all__ = ["ExactScan"]


class ExactScan:
    """The k nearest rows by the contract's definition, in float64, whatever the index is.

    To score every row takes seconds where there are many, and a reader that stays inside so long holds
    off a writer and, behind it, all readers. So it is done in blocks, each under a hold of its own. Rows
    are known by id, because a delete moves others. A row that is written meanwhile may be met as it was
    or as it is, or not at all.
    """

    def __init__(
        self, collection: Collection, vector: Vector, k: int, only: Bitmap | None, seq: int
    ) -> None:
        """To be made under a hold; ``seq`` is what the store had applied by then."""
        rows = collection.rows
        self.seq = seq
        self._vector = vector
        self._ids = rows.ids.copy()
        positions = (rows.live if only is None else only).positions()
        self._blocks: Iterator[list[int]] = (
            positions[start : start + BLOCK_ROWS].tolist()
            for start in range(0, positions.size, BLOCK_ROWS)
        )
        self._best: Best[str] = Best(k)

    def step(self, collection: Collection) -> bool:
        """Score one block more, under a hold; false if there was none left."""
        block = next(self._blocks, None)
        if block is None:
            return False
        where = collection.rows.position
        ids = [one for one in (self._ids[at] for at in block) if one in where]
        if ids:
            vectors = collection.index.vectors(np.array([where[one] for one in ids]))
            self._best.take(collection.metric.scores(self._vector, vectors), ids)
        return True

    def hits(self, collection: Collection) -> list[Hit]:
        """The best of the rows scored, those that are still there, under a hold."""
        where = collection.rows.position
        found = [
            (score, where[one])
            for score, one in zip(self._best.scores, self._best.keys, strict=True)
            if one in where
        ]
        return collection.hits(([score for score, _ in found], [at for _, at in found]))
