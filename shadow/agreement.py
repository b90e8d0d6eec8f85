"""Answers of two models to the same questions in words: how much they have in common, and no more.

Vectors of two models differ by design, so there is no recall and no verdict here: neither side is the
truth. Low agreement says that people will see other answers, not which ones are better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["BY_DESIGN", "Agreement", "agreement"]

BY_DESIGN = (
    "the two sides embed with different models, so their vectors differ by design: this is agreement, "
    "not recall, and it says nothing on which side is better"
)
LEAST_KEPT = 5


@dataclass(frozen=True, slots=True)
class Agreement:
    """``shared``: mean share of the longer list that both list. ``top``: same nearest record.

    ``same`` and ``disjoint``: queries with all or none in common. ``least``: (query, share), the worst.
    """

    queries: int
    shared: float
    top: float
    same: int
    disjoint: int
    least: tuple[tuple[str, float], ...]

    def facts(self) -> Mapping[str, Any]:
        """As plain data, with the reservation."""
        return {
            "queries": self.queries,
            "shared": round(self.shared, 4),
            "same_nearest": round(self.top, 4),
            "all_in_common": self.same,
            "none_in_common": self.disjoint,
            "least": [{"query": query, "shared": round(share, 4)} for query, share in self.least],
            "note": BY_DESIGN,
        }


def agreement(
    questions: Sequence[str], ours: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]]
) -> Agreement:
    """Compare the ids that two sides listed for each question, nearest first; at least one question."""
    pairs = list(zip(ours, theirs, strict=True))
    shares = [_share(left, right) for left, right in pairs]
    ranked = sorted(zip(questions, shares, strict=True), key=lambda pair: pair[1])
    return Agreement(
        len(pairs),
        sum(shares) / len(shares),
        sum(left[:1] == right[:1] for left, right in pairs) / len(pairs),
        sum(share == 1.0 for share in shares),
        sum(share == 0.0 for share in shares),
        tuple(ranked[:LEAST_KEPT]),
    )


def _share(left: Sequence[str], right: Sequence[str]) -> float:
    longer = max(len(left), len(right))
    return len(set(left) & set(right)) / longer if longer else 1.0
