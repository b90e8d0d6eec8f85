"""Ranking rows one by one, and FAISS distances as scores of the contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from vectorstore.faiss.index import RowIndex, Rows2D
from vectorstore.types import Metric, Vector

__all__ = ["BLOCK_ROWS", "Best", "Ranking", "ranked_rows", "scores_float32", "scores_of_distances"]

BLOCK_ROWS = 4096
"""Rows that are copied out of the index at a time."""

Key = TypeVar("Key")

Ranking: TypeAlias = tuple[list[float], list[int]]
"""Scores and positions, nearest first."""


def scores_of_distances(
    distances: npt.NDArray[np.float32], *, metric: Metric, inner_product: bool
) -> npt.NDArray[np.float32]:
    """Scores for what FAISS returned; over an L2 index, cosine of unit vectors is 1 - d/2."""
    if inner_product:
        return distances
    if metric is Metric.COSINE:
        return np.float32(1.0) - distances * np.float32(0.5)
    return -distances


def scores_float32(query: Vector, rows: Rows2D, metric: Metric) -> npt.NDArray[np.float64]:
    """The contract's scores in the arithmetic of the index: what a filter's few rows are scored by."""
    # einsum, not BLAS, whose threads would spin on the cores that answer other readers.
    if metric is Metric.L2:
        away = rows - query
        squares: npt.NDArray[np.float64] = np.einsum("ij,ij->i", away, away).astype(np.float64)
        return -squares
    scores: npt.NDArray[np.float64] = np.einsum("ij,j->i", rows, query).astype(np.float64)
    if metric is Metric.COSINE:
        scores /= np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return scores


class Best(Generic[Key]):
    """The k best of the rows that it is shown; equal scores stay in the order shown."""

    def __init__(self, k: int) -> None:
        self._k = k
        self.scores: list[float] = []
        self.keys: list[Key] = []

    def take(self, scores: npt.NDArray[np.float64], keys: Sequence[Key]) -> None:
        """Look at more rows: their scores, and what they are called."""
        among = np.concatenate([np.array(self.scores, dtype=np.float64), scores])
        order = np.argsort(-among, kind="stable")[: self._k].tolist()
        known = len(self.keys)
        self.keys = [self.keys[at] if at < known else keys[at - known] for at in order]
        self.scores = among[order].tolist()


def ranked_rows(
    index: RowIndex,
    positions: npt.NDArray[np.int64],
    k: int,
    scorer: Callable[[Rows2D], npt.NDArray[np.float64]],
) -> Ranking:
    """The k best of the rows at ``positions``; equal scores stay in order of position."""
    best: Best[int] = Best(k)
    for start in range(0, positions.size, BLOCK_ROWS):
        block = positions[start : start + BLOCK_ROWS]
        best.take(scorer(index.vectors(block)), block.tolist())
    return best.scores, best.keys
