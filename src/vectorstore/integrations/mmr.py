"""Maximal marginal relevance: neighbours that are near the query and unlike each other.

Source: Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents
and producing summaries", SIGIR 1998.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vectorstore.errors import InvalidInput

__all__ = ["marginal_relevance"]


def marginal_relevance(
    query: npt.NDArray[Any], vectors: npt.NDArray[Any], *, k: int, lambda_mult: float
) -> list[int]:
    """Rows of ``vectors`` (n, d) to show for ``query`` (d,), at most ``k``, in the order chosen.

    Each step takes the row with the highest ``lambda cos(q, x) - (1 - lambda) max cos(x, chosen)``;
    equal values go to the earlier row. ``lambda_mult`` runs from 0 (unlike each other) to 1 (near).
    Raises InvalidInput when it lies outside.
    """
    if not 0.0 <= lambda_mult <= 1.0:
        raise InvalidInput(f"lambda_mult is {lambda_mult}; it must be from 0 to 1")
    if len(vectors) == 0:
        return []
    unit = _unit(np.asarray(vectors, dtype=np.float64))
    # einsum, not BLAS, whose threads would spin on the cores that answer other readers.
    wanted = _unit(np.asarray(query, dtype=np.float64)[np.newaxis])[0]
    nearness = np.einsum("ij,j->i", unit, wanted)
    left = np.ones(len(unit), dtype=bool)
    likeness = np.full(len(unit), -np.inf)
    chosen: list[int] = []
    while len(chosen) < min(k, len(unit)):
        # The first row has nothing to be unlike: it is the nearest one, whatever lambda is.
        worth = lambda_mult * nearness - (1 - lambda_mult) * likeness if chosen else nearness
        row = int(np.argmax(np.where(left, worth, -np.inf)))
        chosen.append(row)
        left[row] = False
        likeness = np.maximum(likeness, np.einsum("ij,j->i", unit, unit[row]))
    return chosen


def _unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1.0)
