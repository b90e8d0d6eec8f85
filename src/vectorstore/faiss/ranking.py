"""Ranking rows one by one, and FAISS distances as scores of the contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from vectorstore.faiss.index import RowIndex, Rows2D
from vectorstore.types import Metric, Vector

__all__ = ["Ranking", "ranked_rows", "scores_float32", "scores_of_distances"]

BLOCK_ROWS = 4096
"""Rows that are copied out of the index at a time."""

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


def ranked_rows(
    index: RowIndex,
    positions: npt.NDArray[np.int64],
    k: int,
    scorer: Callable[[Rows2D], npt.NDArray[np.float64]],
) -> Ranking:
    """The k best of the rows at ``positions``; equal scores stay in order of position."""
    scores = np.empty(0, dtype=np.float64)
    kept = np.empty(0, dtype=np.int64)
    for start in range(0, positions.size, BLOCK_ROWS):
        block = positions[start : start + BLOCK_ROWS]
        scores = np.concatenate([scores, scorer(index.vectors(block))])
        kept = np.concatenate([kept, block])
        order = np.argsort(-scores, kind="stable")[:k]
        scores, kept = scores[order], kept[order]
    return scores.tolist(), kept.tolist()
