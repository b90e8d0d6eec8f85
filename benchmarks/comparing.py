"""This run against a stored earlier one: what is a regression, and what is noise.

A figure is the median of ratios of n rounds. Its standard error is about 1.253 sigma / sqrt(n), with
sigma taken from the quartiles (IQR / 1.349). Two runs differ for real if their medians lie more than
three joint standard errors apart and at least 3 % (what a warm machine and a cold one differ by).
Absolute readings are told apart, but never called regressions: they are of two runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.results import Figure, Results

__all__ = ["Change", "compare"]

ERRORS_APART = 3.0
SHARE_APART = 0.03

Verdict = Literal["better", "noise", "worse"]


@dataclass(frozen=True, slots=True)
class Change:
    """One figure in two runs. ``verdict`` is by its target's direction; by less is better without."""

    name: str
    before: float
    now: float
    verdict: Verdict


def compare(now: Results, before: Results) -> Sequence[Change]:
    """The figures that both runs have."""
    earlier = {(figure.part, figure.name): figure for figure in before.figures}
    return [
        Change(figure.name, old.value, figure.value, _verdict(figure, old))
        for figure in now.figures
        if (old := earlier.get((figure.part, figure.name))) is not None
    ]


def _verdict(now: Figure, before: Figure) -> Verdict:
    apart = abs(now.value - before.value)
    doubt = math.hypot(_error(now), _error(before))
    if apart <= max(ERRORS_APART * doubt, SHARE_APART * abs(before.value)):
        return "noise"
    more_is_better = bool(now.target and now.target.startswith(">="))
    return "better" if (now.value > before.value) == more_is_better else "worse"


def _error(figure: Figure) -> float:
    if figure.low is None or figure.high is None or figure.rounds < 2:
        # A single measurement says nothing about its own spread: ten per cent, by experience.
        return 0.1 * abs(figure.value) / ERRORS_APART
    return 1.253 * (figure.high - figure.low) / 1.349 / math.sqrt(figure.rounds)
