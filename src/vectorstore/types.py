"""Values that every store speaks, and the score contract.

Score contract: **higher is nearer**, and the same pair of vectors scores the same in every store.

=================  ==================================  ======================================
metric             score of (q, x)                     what FAISS / pgvector call it inside
=================  ==================================  ======================================
``cosine``         q·x / (|q| |x|), in [-1, 1]         inner product of unit vectors / ``<=>`` = 1 - score
``inner_product``  q·x                                 inner product / ``<#>`` = -score
``l2``             -|q - x|^2 (squared, negated)       squared L2 / ``<->`` = sqrt(-score)
=================  ==================================  ======================================

Two stores may differ by float32 rounding, about 1e-6 |q| |x|.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from vectorstore.canonical import canonical_json
from vectorstore.errors import InvalidInput
from vectorstore.filters import Filter, check_filter

__all__ = [
    "Answer",
    "Change",
    "Hit",
    "Metadata",
    "Metric",
    "Query",
    "Record",
    "Vector",
    "check_ms",
]

Vector: TypeAlias = npt.NDArray[np.float32]
Metadata: TypeAlias = Mapping[str, Any]


class Metric(enum.StrEnum):
    """How nearness is measured; see the module's table."""

    COSINE = "cosine"
    INNER_PRODUCT = "inner_product"
    L2 = "l2"

    def scores(self, query: Vector, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Exact scores of ``query`` (d,) against ``vectors`` (n, d), in float64: the definition."""
        q = query.astype(np.float64)
        x = vectors.astype(np.float64)
        # Not x @ q: BLAS would take all cores, and its threads spin for milliseconds after the call.
        if self is Metric.L2:
            x -= q
            return -np.asarray(np.einsum("ij,ij->i", x, x))
        dots: npt.NDArray[np.float64] = np.einsum("ij,j->i", x, q)
        if self is Metric.INNER_PRODUCT:
            return dots
        norms = np.sqrt(np.einsum("ij,ij->i", x, x)) * np.linalg.norm(q)
        cosines: npt.NDArray[np.float64] = np.zeros_like(dots)
        np.divide(dots, norms, out=cosines, where=norms > 0)
        return cosines


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One stored item.

    ``embedding`` is float32 of shape (d,). ``metadata`` is a JSON object. ``seq`` is the place in the
    journal of the write that made it: 0 for a record that was there before the journal began.
    """

    id: str
    embedding: Vector
    text: str
    metadata: Metadata
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One journal entry: the record that an id now has, or ``None`` if it was deleted.

    ``mark`` tells the entry from another of the same seq in a copy of the journal that went its own way.
    """

    seq: int
    id: str
    record: Record | None
    mark: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """One nearest-neighbour question.

    ``vector``: shape (d,), any float type. ``k``: 1 to 1,000. ``filter``: rows that may answer.
    ``min_seq``: the answer must include this write (read-your-writes across processes).
    ``timeout_ms``: the caller's deadline. ``label``: a name of the application's for its own
    strata, of at most 100 characters.
    ``spent_ms``: what the application spent on this question before the search, as on its embedding.

    Raises InvalidInput for a field of another type: a mistake is told where it was made. Inside a store
    it would look like a failure of the store. What depends on the store, it checks itself.
    """

    vector: npt.NDArray[Any]
    k: int = 10
    filter: Filter | None = None
    min_seq: int = 0
    timeout_ms: float | None = None
    label: str | None = None
    spent_ms: float | None = None

    def __post_init__(self) -> None:
        for name in ("k", "min_seq"):
            value = getattr(self, name)
            if type(value) is not int:
                object.__setattr__(self, name, _whole(name, value))
        check_filter(self.filter)
        check_ms("query: timeout_ms", self.timeout_ms)
        check_ms("query: spent_ms", self.spent_ms)
        if self.label is not None:
            _check_label(self.label)


LABEL_CHARS_MAX = 100
_REAL = (int, float, np.integer, np.floating)
_MS_MAX = 86_400_000.0


def check_ms(name: str, value: object) -> None:
    """Refuse what is no length of time, in milliseconds, nor None."""
    if value is not None and not (isinstance(value, _REAL) and 0 <= value <= _MS_MAX):
        raise InvalidInput(f"{name} must be a number of milliseconds, a day at most, not {value!r}")


def _whole(name: str, value: object) -> int:
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidInput(f"query: {name} must be a whole number, not {value!r}") from None


def _check_label(label: object) -> None:
    if not isinstance(label, str) or len(label) > LABEL_CHARS_MAX:
        raise InvalidInput(f"query: a label is text of at most {LABEL_CHARS_MAX} characters")
    try:
        canonical_json(label)
    except InvalidInput as error:
        raise InvalidInput(f"query: the label cannot be kept: {error}") from error


class Hit(NamedTuple):
    """One neighbour: its score (higher is nearer) and the record's fields but for the embedding."""

    id: str
    score: float
    text: str
    metadata: Metadata
    seq: int


class Answer(NamedTuple):
    """What a store answered: hits from nearest to farthest, who answered, and how far it had applied."""

    hits: list[Hit]
    store: str
    applied_seq: int
