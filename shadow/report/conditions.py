"""What the gate asks for besides its figures, and what was found of each."""

from __future__ import annotations

from shadow.config import GateSettings
from shadow.core.gate import GateInputs, Verdict
from shadow.core.phases import POSTGRESQL
from shadow.core.quantile_ratio import Ratio
from shadow.evidence_view import LIVE
from shadow.report import words
from shadow.report.model import Condition

__all__ = ["conditions"]


def conditions(
    inputs: GateInputs, settings: GateSettings, verdict: Verdict, *, source: str = LIVE
) -> tuple[Condition, ...]:
    """All of them, met or not, in the order in which a migration meets them."""
    missing = inputs.dropped / inputs.sampled if inputs.sampled else 0.0
    found = [
        _level(inputs.lag_entries.get(POSTGRESQL)),
        _verify(inputs, settings),
        Condition(
            f"At least {settings.distinct_queries_min:,} different queries",
            inputs.distinct_queries >= settings.distinct_queries_min,
            f"{inputs.distinct_queries:,} different queries",
        ),
        *_duration(inputs, settings, source),
        Condition(
            f"At most {settings.drops_share_max:.0%} of the mirrored queries missing",
            missing <= settings.drops_share_max,
            f"{inputs.dropped:,} of {inputs.sampled:,} dropped, lost or under way",
        ),
        Condition(
            "A quiet change detector",
            not inputs.change_alarm,
            "an alarm: answers have become worse" if inputs.change_alarm else "no alarm",
        ),
    ]
    return (*found, *_ratio(verdict))


def _level(lag: int | None) -> Condition:
    told = (
        "it cannot be asked, or holds no copy: backfill first"
        if lag is None
        else f"{lag:,} entries behind"
    )
    if lag:
        told += ", for longer than reads may be stale"
    return Condition("PostgreSQL is level with the journal", lag == 0, told)


def _duration(inputs: GateInputs, settings: GateSettings, source: str) -> tuple[Condition, ...]:
    """What was replayed need not have taken any time."""
    if source != LIVE or settings.duration_s_min == 0:
        return ()
    return (
        Condition(
            f"At least {words.age(settings.duration_s_min)} in this era",
            inputs.elapsed_s >= settings.duration_s_min,
            words.age(inputs.elapsed_s),
        ),
    )


def _verify(inputs: GateInputs, settings: GateSettings) -> Condition:
    name = f"A clean verify younger than {words.age(settings.verify_age_s_max)}"
    if inputs.verify_age_s is None:
        return Condition(name, False, "none has been made of this copy")
    told = {True: "clean", False: "it found differences", None: "it could not check everything"}
    return Condition(
        name,
        inputs.verify_clean is True and 0.0 <= inputs.verify_age_s <= settings.verify_age_s_max,
        f"{told[inputs.verify_clean]}, {words.age(inputs.verify_age_s)} ago"
        if inputs.verify_age_s >= 0.0
        else f"{told[inputs.verify_clean]}, stamped by a clock that was ahead",
    )


def _ratio(verdict: Verdict) -> tuple[Condition, ...]:
    ratio = verdict.ratio
    if ratio is None:
        return ()
    return (
        Condition(
            f"PostgreSQL's p{100 * ratio.quantile:g} at most {ratio.ratio_max:g} times FAISS's",
            ratio.ratio is Ratio.WITHIN,
            f"PostgreSQL's lies from {ratio.shadow.lower:.3g} to {ratio.shadow.upper:.3g} ms, "
            f"FAISS's from {ratio.primary.lower:.3g} to {ratio.primary.upper:.3g} ms",
        ),
    )
