"""Who was wrong: a divergent query held against exact scans of what each store holds.

Pure arithmetic on lists and facts that someone else fetched at one point of the journal. Every hit
that the two answers do not share gets one cause, so that the causes add up to all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shadow.core.comparison import Cause, Scored, without_struck
from vectorstore.errors import InvalidInput

__all__ = ["Adjudication", "Case", "Label", "RowFacts", "RowVersion", "adjudicate"]


class RowVersion(NamedTuple):
    """Which version of a row a store holds: the seq that wrote it and a digest of its content."""

    seq: int
    digest: str


class RowFacts(NamedTuple):
    """What each store holds for one id; None where it holds nothing."""

    primary: RowVersion | None
    shadow: RowVersion | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One query with all that is needed to judge it.

    ``primary``, ``shadow``: the two answers as (id, score), nearest first. ``primary_exact``,
    ``shadow_exact``: an exact, filtered scan of each store's own rows, of at least k rows that are
    not struck, or of all that match if they are fewer. ``facts``: for every id in the four lists
    that is not struck.
    ``tolerance``: how far two equal scores may lie apart. ``struck``: ids written between the reads.
    ``failure``: set if the shadow gave no answer.
    """

    k: int
    tolerance: float
    primary: Sequence[Scored]
    shadow: Sequence[Scored]
    primary_exact: Sequence[Scored]
    shadow_exact: Sequence[Scored]
    facts: Mapping[str, RowFacts]
    struck: frozenset[str] = frozenset()
    failure: Cause | None = None


class Label(NamedTuple):
    """A hit that only one answer holds, why, and the row that took its place if one did."""

    id: str
    cause: Cause
    instead: str | None = None


@dataclass(frozen=True, slots=True)
class Adjudication:
    """The labels of one query, counted by cause, and each store's recall against the truth.

    The truth is the exact ranking over both stores' rows, where the version with the higher seq
    holds, and the primary's where seqs do not decide. A recall is None where nothing matches.
    """

    labels: tuple[Label, ...]
    causes: Mapping[Cause, int]
    primary_recall: float | None
    shadow_recall: float | None


def adjudicate(case: Case) -> Adjudication:
    """Label every hit that the answers do not share.

    These are the primary's hits that the shadow lacks and, where the primary's list is not full, the
    hits that the shadow has beyond them. Raises InvalidInput if an id in the lists has no facts.
    """
    exact = {
        "primary": [hit for hit in case.primary_exact if hit[0] not in case.struck][: case.k],
        "shadow": [hit for hit in case.shadow_exact if hit[0] not in case.struck][: case.k],
    }
    ours, theirs = without_struck(case.primary, case.shadow, k=case.k, struck=case.struck)
    for answer in (case.primary[: case.k], case.shadow[: case.k], *exact.values()):
        for row, _ in answer:
            if row not in case.facts and row not in case.struck:
                raise InvalidInput(
                    f"no facts about {row!r}: fetch the versions of every row that the answers "
                    f"and the exact scans list before judging them"
                )
    if case.failure is not None:
        labels = [Label(row, case.failure) for row, _ in ours]
    else:
        labels = _Bench(case, ours, theirs, exact["primary"], exact["shadow"]).labels()
    truth = _truth(case, exact["primary"], exact["shadow"])
    causes = Counter(label.cause for label in labels)
    return Adjudication(
        tuple(labels),
        {cause: causes[cause] for cause in Cause if causes[cause]},
        _recall(case, case.primary, truth, side=0),
        _recall(case, [] if case.failure else case.shadow, truth, side=1),
    )


class _Bench:
    """The lists of one case, and which rows have already explained a label."""

    def __init__(
        self,
        case: Case,
        ours: list[Scored],
        theirs: list[Scored],
        primary_exact: list[Scored],
        shadow_exact: list[Scored],
    ) -> None:
        self._case = case
        self._ours = ours
        self._theirs = dict(theirs)
        self._primary_exact = dict(primary_exact)
        self._shadow_exact = dict(shadow_exact)
        listed = {hit[0] for hit in case.primary[: case.k]}
        self._extra = [row for row in self._theirs if row not in listed]
        # Rows that push others out of the shadow's exact list, nearest first.
        self._displacing = [row for row, _ in shadow_exact if row not in listed]
        # Rows that only an approximate index would list.
        self._inexact = [row for row in self._extra if row not in self._shadow_exact]
        full = len(shadow_exact) >= case.k
        self._shadow_worst = shadow_exact[-1][1] if full else float("-inf")

    def labels(self) -> list[Label]:
        """One label for each hit that is not shared."""
        missing = [
            self._missing(row, score) for row, score in self._ours if row not in self._theirs
        ]
        if len(self._case.primary) >= self._case.k:
            return missing
        surplus = len(self._extra) - len(missing)
        explained = {label.instead for label in missing}
        unexplained = [row for row in self._extra if row not in explained]
        return missing + [Label(row, self._surplus(row)) for row in unexplained[: max(surplus, 0)]]

    def _missing(self, row: str, score: float) -> Label:
        facts = self._case.facts[row]
        if facts.shadow is None:
            return Label(row, Cause.ROW_MISSING)
        if facts.primary != facts.shadow:
            return Label(row, Cause.ROW_STALE)
        tolerance = self._case.tolerance
        if row in self._shadow_exact:
            equal = self._shadow_exact[row] - tolerance
            for other in self._inexact:
                if self._theirs[other] >= equal and self._same(other):
                    self._inexact.remove(other)
                    return Label(row, Cause.TIE, other)
            return Label(row, Cause.ANN_MISS)
        if score > self._shadow_worst + tolerance or not self._displacing:
            # Held by the shadow, near enough, and yet not in its exact answer: filtered out.
            return Label(row, Cause.FILTER)
        other = self._displacing.pop(0)
        if self._same(other) and abs(self._shadow_exact[other] - score) <= tolerance:
            return Label(row, Cause.TIE, other)
        return Label(row, self._surplus(other), other)

    def _surplus(self, row: str) -> Cause:
        """Why the shadow lists a row that the primary does not."""
        facts = self._case.facts[row]
        if facts.primary is None:
            return Cause.ROW_EXTRA
        if facts.primary != facts.shadow:
            return Cause.ROW_STALE
        return Cause.PRIMARY_MISS if row in self._primary_exact else Cause.FILTER

    def _same(self, row: str) -> bool:
        facts = self._case.facts[row]
        return facts.primary is not None and facts.primary == facts.shadow


def _holder(facts: RowFacts) -> int:
    """Which side's version is the true one: 0 for the primary's, 1 for the shadow's."""
    if facts.primary is None or facts.shadow is None:
        return 0
    return 1 if facts.shadow.seq > facts.primary.seq else 0


def _truth(case: Case, primary_exact: list[Scored], shadow_exact: list[Scored]) -> list[Scored]:
    rows = [hit for hit in primary_exact if _holder(case.facts[hit[0]]) == 0]
    rows += [hit for hit in shadow_exact if _holder(case.facts[hit[0]]) == 1]
    return sorted(rows, key=lambda hit: (-hit[1], hit[0]))[: case.k]


def _recall(
    case: Case, answer: Sequence[Scored], truth: list[Scored], *, side: int
) -> float | None:
    """Share of the truth that the answer holds, ties counted, stale versions not."""
    listed = dict(answer[: case.k])
    own = {row: score for row, score in listed.items() if row not in case.struck}
    # What was written since took places that the truth is not asked to fill.
    wanted = truth[: case.k - (len(listed) - len(own))]
    if not wanted:
        return None
    ids = {hit[0] for hit in wanted}
    # A truth that is not full holds every row that matches: nothing else can tie with it.
    reached = wanted[-1][1] - case.tolerance if len(truth) >= case.k else float("inf")
    counted = 0
    for row, score in own.items():
        facts = case.facts[row]
        right = facts[side] is not None and facts[side] == facts[_holder(facts)]
        counted += right and (row in ids or score >= reached)
    return min(counted, len(wanted)) / len(wanted)
