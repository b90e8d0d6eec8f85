"""Thresholds held against evidence: ``Pass``, ``Hold`` with reasons, or ``Undecided`` with needs.

Pass is the AND over every figure of every declared stratum and over every condition; what is not
known is never taken for good. Hold means that the evidence says no, Undecided that there is not
enough of it. Because every part must pass, the chance of a wrong Pass is at most alpha however many
figures there are; a Hold may be wrong more often, which delays a cutover and harms nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from shadow.core import bounded_mean
from shadow.core.bounded_mean import merge
from shadow.core.quantile_ratio import Ratio, RatioVerdict, ratio_verdict
from vectorstore.errors import ConfigurationError

__all__ = [
    "POOLED",
    "FigureCounts",
    "FigureResult",
    "GateInputs",
    "GateThresholds",
    "Hold",
    "LatencyRatio",
    "Pass",
    "Undecided",
    "Verdict",
    "evaluate",
    "merge",
]

POOLED = "all"
"""The stratum of all traffic; what no declared stratum takes is judged in it alone."""


@dataclass(frozen=True, slots=True)
class FigureCounts:
    """Evidence on one bounded figure in one stratum: value in [0, 1] to how often it was seen.

    A declared stratum without traffic has empty counts; it is never left out. A sampled query that
    was dropped, lost or failed is counted here with value 0.
    """

    name: str
    stratum: str
    threshold: float
    counts: Mapping[float, int]


@dataclass(frozen=True, slots=True)
class LatencyRatio:
    """The optional figure "the shadow's quantile is at most ``ratio_max`` times the primary's".

    ``primary``, ``shadow``: latency to how often it was seen, in one unit; a timeout is ``math.inf``.
    """

    primary: Mapping[float, int]
    shadow: Mapping[float, int]
    quantile: float
    ratio_max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GateInputs:
    """All that the gate is told, of one era.

    ``sampled``: queries drawn for the mirror; ``dropped``: those that were never compared.
    ``lag_entries``: by store, of both. ``verify_age_s``: since the last verify, None if there was
    none. ``verify_clean``: None if it could not check everything.
    """

    figures: Sequence[FigureCounts]
    distinct_queries: int
    elapsed_s: float
    sampled: int
    dropped: int
    lag_entries: Mapping[str, int]
    verify_age_s: float | None
    verify_clean: bool | None
    change_alarm: bool
    ratio: LatencyRatio | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateThresholds:
    """What must be reached. ``alpha``: the chance of a wrong Pass (.05 for ready, .01 for a flip).

    Raises ConfigurationError for values that would make the gate meaningless.
    """

    distinct_queries_min: int
    duration_s_min: float = 86_400.0
    alpha: float = 0.05
    drops_share_max: float = 0.05
    verify_age_s_max: float = 86_400.0
    lag_entries_max: int = 0

    def __post_init__(self) -> None:
        for name, value, sane in (
            ("alpha", self.alpha, 0.0 < self.alpha <= 0.5),
            ("distinct_queries_min", self.distinct_queries_min, self.distinct_queries_min >= 1),
            ("duration_s_min", self.duration_s_min, self.duration_s_min >= 0.0),
            ("drops_share_max", self.drops_share_max, 0.0 <= self.drops_share_max < 1.0),
            ("verify_age_s_max", self.verify_age_s_max, self.verify_age_s_max > 0.0),
            ("lag_entries_max", self.lag_entries_max, self.lag_entries_max >= 0),
        ):
            if not sane:
                raise ConfigurationError(
                    f"the gate's {name} is {value!r}, which would let anything or nothing pass; "
                    f"see docs/gate.md for what it means"
                )


@dataclass(frozen=True, slots=True)
class FigureResult:
    """One figure judged. The bounds hold at all times at the gate's alpha, each by itself.

    ``queries_needed``: more queries like these until it passes; None if these never would.
    """

    name: str
    stratum: str
    queries: int
    mean: float | None
    lower_bound: float
    upper_bound: float
    threshold: float
    passed: bool
    queries_needed: int | None


@dataclass(frozen=True, slots=True)
class Pass:
    """Everything that was asked for is shown."""

    figures: tuple[FigureResult, ...]
    ratio: RatioVerdict | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """The evidence says no: ``reasons``. ``needs``: what would be open besides."""

    figures: tuple[FigureResult, ...]
    reasons: tuple[str, ...]
    needs: tuple[str, ...] = ()
    ratio: RatioVerdict | None = None


@dataclass(frozen=True, slots=True)
class Undecided:
    """Nothing speaks against it, and there is not enough evidence: ``needs``."""

    figures: tuple[FigureResult, ...]
    needs: tuple[str, ...]
    ratio: RatioVerdict | None = None


Verdict: TypeAlias = Pass | Hold | Undecided


def evaluate(inputs: GateInputs, thresholds: GateThresholds) -> Verdict:
    """The verdict; it may be asked for after every query (see :mod:`shadow.core.bounded_mean`)."""
    reasons: list[str] = []
    needs: list[str] = []
    figures = tuple(_judge(figure, thresholds.alpha) for figure in inputs.figures)
    if not figures:
        needs.append("no figure is declared: there is nothing to judge answers by")
    for figure in figures:
        _say_figure(figure, thresholds.alpha, reasons, needs)
    ratio = _judge_ratio(inputs.ratio, thresholds.alpha, reasons, needs)
    _say_traffic(inputs, thresholds, reasons, needs)
    _say_stores(inputs, thresholds, reasons, needs)
    if reasons:
        return Hold(figures, tuple(reasons), tuple(needs), ratio)
    if needs:
        return Undecided(figures, tuple(needs), ratio)
    return Pass(figures, ratio)


def _judge(figure: FigureCounts, alpha: float) -> FigureResult:
    counts = figure.counts
    return FigureResult(
        name=figure.name,
        stratum=figure.stratum,
        queries=sum(counts.values()),
        mean=bounded_mean.mean(counts),
        lower_bound=bounded_mean.lower_bound(counts, alpha),
        upper_bound=bounded_mean.upper_bound(counts, alpha),
        threshold=figure.threshold,
        passed=bounded_mean.passes(counts, figure.threshold, alpha),
        queries_needed=bounded_mean.queries_needed(counts, figure.threshold, alpha),
    )


def _say_figure(figure: FigureResult, alpha: float, reasons: list[str], needs: list[str]) -> None:
    if figure.passed:
        return
    what = f"{figure.name} ({figure.stratum})"
    if figure.mean is None:
        needs.append(
            f"{what}: no traffic yet; at least {figure.queries_needed} queries are needed, "
            f"if all of them are perfect"
        )
    elif figure.upper_bound < figure.threshold:
        reasons.append(
            f"{what}: at most {figure.upper_bound:.4f} with {1 - alpha:.0%} confidence over "
            f"{figure.queries:,} queries, below the threshold {figure.threshold:g}"
        )
    elif figure.queries_needed is None:
        needs.append(
            f"{what}: the mean {figure.mean:.4f} over {figure.queries:,} queries is not clearly "
            f"above the threshold {figure.threshold:g}; more queries like these would not pass"
        )
    else:
        needs.append(
            f"{what}: about {figure.queries_needed:,} more queries like the {figure.queries:,} "
            f"so far (mean {figure.mean:.4f}, at least {figure.lower_bound:.4f} is shown, "
            f"{figure.threshold:g} is asked for)"
        )


def _judge_ratio(
    latency: LatencyRatio | None, alpha: float, reasons: list[str], needs: list[str]
) -> RatioVerdict | None:
    if latency is None:
        return None
    verdict = ratio_verdict(
        latency.primary, latency.shadow, latency.quantile, latency.ratio_max, alpha
    )
    what = f"latency p{100 * latency.quantile:g}"
    found = (
        f"the shadow's lies from {verdict.shadow.lower:g} to {verdict.shadow.upper:g} "
        f"({verdict.shadow_queries:,} queries), the primary's from {verdict.primary.lower:g} to "
        f"{verdict.primary.upper:g} ({verdict.primary_queries:,})"
    )
    if verdict.ratio is Ratio.ABOVE:
        reasons.append(f"{what}: more than {latency.ratio_max:g} times the primary's: {found}")
    elif verdict.ratio is Ratio.UNDECIDED:
        needs.append(f"{what}: not yet shown to be within {latency.ratio_max:g} times: {found}")
    return verdict


def _say_traffic(
    inputs: GateInputs, thresholds: GateThresholds, reasons: list[str], needs: list[str]
) -> None:
    if inputs.sampled <= 0:
        needs.append("no query has been sampled for the mirror yet")
    elif inputs.dropped > thresholds.drops_share_max * inputs.sampled:
        reasons.append(
            f"{inputs.dropped:,} of {inputs.sampled:,} sampled queries "
            f"({inputs.dropped / inputs.sampled:.1%}) were dropped; "
            f"at most {thresholds.drops_share_max:.1%} may be"
        )
    if inputs.distinct_queries < thresholds.distinct_queries_min:
        needs.append(
            f"{thresholds.distinct_queries_min - inputs.distinct_queries:,} more different queries: "
            f"{inputs.distinct_queries:,} of {thresholds.distinct_queries_min:,} so far"
        )
    # Written so that a NaN is not enough.
    if not inputs.elapsed_s >= thresholds.duration_s_min:
        needs.append(
            f"more time: {inputs.elapsed_s / 3600:.1f} h of {thresholds.duration_s_min / 3600:.1f} h"
        )
    if inputs.change_alarm:
        reasons.append("the change detector has raised an alarm: answers have become worse")


def _say_stores(
    inputs: GateInputs, thresholds: GateThresholds, reasons: list[str], needs: list[str]
) -> None:
    for store, lag in sorted(inputs.lag_entries.items()):
        if lag > thresholds.lag_entries_max:
            reasons.append(
                f"{store} lags by {lag:,} journal entries; at most {thresholds.lag_entries_max:,} "
                f"are allowed"
            )
    if len(inputs.lag_entries) < 2:
        known = ", ".join(sorted(inputs.lag_entries)) or "none"
        needs.append(f"the lag of both stores must be known; known so far: {known}")
    if inputs.verify_clean is False:
        reasons.append("the last verify found differences; repair them and verify again")
    elif inputs.verify_age_s is None:
        needs.append("a verify of both stores; none has been made of this copy")
    elif inputs.verify_clean is None:
        needs.append("a verify that could check everything; the last one could not")
    elif inputs.verify_age_s < 0.0:
        needs.append(
            f"a newer verify: the last was stamped {-inputs.verify_age_s / 3600:.1f} h ahead of now, "
            f"so the clock was set back since and its age is not known"
        )
    elif not inputs.verify_age_s <= thresholds.verify_age_s_max:
        needs.append(
            f"a newer verify: the last is {inputs.verify_age_s / 3600:.1f} h old, "
            f"at most {thresholds.verify_age_s_max / 3600:.1f} h is allowed"
        )
