"""Two answers to one query, compared: the live figure, without a second look at the data.

A shadow hit counts if its id is in the primary's list, or if it is a live record whose score reaches
the primary's k-th best less a tolerance, so that ties and duplicates are no misses. The comparison
never favours the shadow: the figure is rounded down, and whatever failed counts as missed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from vectorstore.errors import InvalidInput

__all__ = ["Cause", "Comparison", "Scored", "compare", "missed", "without_struck"]

Scored = tuple[str, float]


class Cause(enum.StrEnum):
    """Why a hit of the primary is not in the shadow's answer."""

    ANN_MISS = "ann_miss"
    """The shadow holds the row, but its index did not find it."""
    PRIMARY_MISS = "primary_miss"
    """The shadow found a nearer row that the primary holds and did not find."""
    ROW_MISSING = "row_missing"
    """The shadow does not hold the row."""
    ROW_STALE = "row_stale"
    """The stores hold different versions of the row, or of the one that took its place."""
    ROW_EXTRA = "row_extra"
    """A row that only the shadow holds took its place."""
    TIE = "tie"
    """A row that is equally near took its place: neither store is wrong."""
    FILTER = "filter"
    """Both stores hold the same row, but their filters disagree on whether it matches."""
    ERROR = "error"
    """The shadow failed."""
    TIMEOUT = "timeout"
    """The shadow did not answer in time."""
    DROPPED = "dropped"
    """The observation was sampled and then dropped, lost or killed."""


class Comparison(NamedTuple):
    """What one mirrored query showed.

    ``recall``: matched / expected, rounded down to a multiple of 1/k. ``expected``: hits that the
    shadow could have matched. ``missing``: the primary's ids that the shadow did not list, nearest
    first. ``extra``: the shadow's ids that the primary did not list. ``ties``: how many of these
    counted by their score. ``cause``: set where the shadow gave no answer at all.
    """

    recall: float
    matched: int
    expected: int
    top1_agrees: bool
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    ties: int = 0
    cause: Cause | None = None


def compare(
    primary: Sequence[Scored],
    shadow: Sequence[Scored],
    *,
    k: int,
    tolerance: float,
    live: Callable[[str], bool],
    struck: frozenset[str] = frozenset(),
) -> Comparison:
    """Compare two answers, each (id, score, ...) from nearest to farthest.

    ``tolerance``: how far two equal scores may lie apart, in score units (1e-5 |q||x|, 1e-3 for
    halfvec). ``live``: whether an id is a record that ought to be found; asked only about ids that
    the primary did not list. ``struck``: ids written between the two reads, which neither answer is
    held to. Hits beyond the k-th are ignored.

    Two empty answers agree. If only the primary's is empty, recall is 0: nothing is known about what
    the shadow found, and doubt holds a verdict back.
    """
    if not struck and len(primary) == len(shadow) <= k:
        # The common case, at about half a microsecond: a plain loop beats building two lists.
        for ours, theirs in zip(primary, shadow, strict=True):
            if ours[0] != theirs[0]:
                break
        else:
            return _same(k, len(primary))
    return _differing(primary, shadow, k, tolerance, live, struck)


def missed(k: int, cause: Cause) -> Comparison:
    """A query that the shadow did not answer: k misses of one cause."""
    if k < 1:
        raise InvalidInput(f"k is {k}; it must be at least 1")
    return Comparison(0.0, 0, k, False, cause=cause)


def without_struck(
    primary: Sequence[Scored], shadow: Sequence[Scored], *, k: int, struck: frozenset[str]
) -> tuple[list[Scored], list[Scored]]:
    """Both lists as far as they can be held against each other.

    A struck id in the shadow's list took a place that another row would have had, so the primary's
    list is cut to the places that were left.
    """
    theirs = [(hit[0], hit[1]) for hit in shadow[:k] if hit[0] not in struck]
    room = k - (min(len(shadow), k) - len(theirs))
    ours = [(hit[0], hit[1]) for hit in primary[:k] if hit[0] not in struck]
    return ours[:room], theirs


# Immutable and few: one object serves every query whose answers are equal.
@lru_cache(maxsize=4096)
def _same(k: int, hits: int) -> Comparison:
    if k < 1:
        raise InvalidInput(f"k is {k}; it must be at least 1")
    return Comparison(1.0, hits, hits, True)


def _differing(
    primary: Sequence[Scored],
    shadow: Sequence[Scored],
    k: int,
    tolerance: float,
    live: Callable[[str], bool],
    struck: frozenset[str],
) -> Comparison:
    if k < 1:
        raise InvalidInput(f"k is {k}; it must be at least 1")
    ours, theirs = without_struck(primary, shadow, k=k, struck=struck)
    if not ours and not theirs:
        return _same(k, 0)
    scores = {hit[0]: hit[1] for hit in primary[:k]}
    # A dictionary keeps the order and lets an id that is listed twice count once.
    found = dict(theirs)
    extra = tuple(row for row in found if row not in scores)
    missing = tuple(hit[0] for hit in ours if hit[0] not in found)
    expected = len(ours)
    ties = 0
    if ours and len(primary) >= k:
        # A list that is not full holds every row that matches: nothing else can tie with it.
        reached = ours[-1][1] - tolerance
        ties = sum(found[row] >= reached and live(row) for row in extra)
    matched = min(len(found) - len(extra) + ties, expected)
    recall = (matched * k // expected) / k if expected else 0.0
    top1 = False
    if ours and theirs:
        top = theirs[0][0]
        best = ours[0][1] - tolerance
        top1 = scores[top] >= best if top in scores else theirs[0][1] >= best and live(top)
    return Comparison(recall, matched, expected, top1, missing, extra, ties)
