"""How the report speaks: numbers with their units, and the verdict in sentences."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from shadow.report.model import Adjudication, Figure, ParityReport, StoreLag, Verification

__all__ = [
    "NO_DIVERGENCE",
    "UNKNOWN",
    "adjudication_sentence",
    "age",
    "count",
    "era_sentence",
    "figure_meaning",
    "figure_needs",
    "figure_title",
    "headline",
    "lag_sentence",
    "milliseconds",
    "next_steps",
    "parse_time",
    "percent",
    "queries",
    "score",
    "share",
    "store_name",
    "verification_sentence",
    "when",
    "window_sentence",
]

UNKNOWN = "–"
NO_DIVERGENCE = "No divergent query was kept."

_STORES = {
    "faiss": "FAISS",
    "postgresql": "PostgreSQL",
    "memory": "Exact reference",
    "faiss end to end": "FAISS end to end",
    "postgresql end to end": "PostgreSQL end to end",
}
_FIGURES = {
    "recall": "share of the primary's nearest that the shadow found too",
    "latency": "share of queries that the shadow answered within the budget",
    "top1": "share of queries whose nearest hit agrees",
    "success": "share of queries that the shadow answered without error or timeout",
}


def store_name(store: str | None) -> str:
    """A store's name as people write it."""
    return "nobody" if store is None else _STORES.get(store, store)


def count(value: int | None) -> str:
    """A whole number with thousands separated."""
    return UNKNOWN if value is None else f"{value:,}"


def queries(value: int) -> str:
    """A number of queries."""
    return "1 query" if value == 1 else f"{value:,} queries"


def share(value: float | None) -> str:
    """A figure between 0 and 1 with four decimals, cut and not rounded: .99996 is not yet 1."""
    if value is None:
        return UNKNOWN
    # The small addend undoes binary representation: .95 * 10,000 is 9499.999...
    return f"{math.floor(value * 10_000 + 1e-6) / 10_000:.4f}"


def percent(value: float | None) -> str:
    """A share as per cent; more digits near the ends, where they matter."""
    if value is None:
        return UNKNOWN
    digits = 0 if value in (0.0, 1.0) else 1 if 0.01 <= value <= 0.99 else 2
    return f"{value * 100:.{digits}f} %"


def score(value: float) -> str:
    """A hit's score to five decimals, the precision to which stores are held."""
    return f"{value:.5f}"


def milliseconds(value: float | None) -> str:
    """A latency with three significant digits, never in scientific notation."""
    if value is None:
        return UNKNOWN
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f} ms"


def age(seconds: float | None) -> str:
    """A span of time in at most two units."""
    if seconds is None:
        return UNKNOWN
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    for size, unit, small_size, small in ((1440, "d", 60, "h"), (60, "h", 1, "min")):
        if minutes >= size:
            rest = minutes % size // small_size
            return f"{minutes // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{minutes} min"


def when(timestamp: str | None) -> str:
    """An ISO time as date and time in UTC; text that is not a time stays as it is."""
    moment = parse_time(timestamp)
    if moment is None:
        return timestamp or UNKNOWN
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def parse_time(timestamp: str | None) -> datetime | None:
    """The moment that an ISO text names, in UTC; None if it names none."""
    try:
        moment = datetime.fromisoformat(timestamp or "")
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def figure_title(figure: Figure) -> str:
    """The figure's name with its stratum."""
    return f"{figure.name}, {figure.stratum}" if figure.stratum else figure.name


def figure_meaning(figure: Figure) -> str:
    """What the figure counts, in a phrase; empty for a figure that this release does not know."""
    return next((text for name, text in _FIGURES.items() if figure.name.startswith(name)), "")


def figure_needs(figure: Figure) -> str:
    """How far the figure is from passing, as a table's cell."""
    if figure.passed:
        return "none"
    if figure.queries_needed is None:
        return "a better mean" if _is_below(figure) else "not yet known"
    return f"about {count(figure.queries_needed)}"


def headline(report: ParityReport) -> str:
    """The verdict in one sentence, without the verdict's own word."""
    if report.headline:
        return report.headline
    primary, shadow = store_name(report.reference), store_name(report.judged)
    if report.verdict == "pass":
        recall = next((f for f in report.figures if f.name.startswith("recall")), None)
        proof = f" on {count(report.sampling.compared)} compared live queries"
        if recall is not None:
            proof += (
                f"; {figure_title(recall)}, is at least {share(recall.lower_bound)} "
                f"(threshold {share(recall.threshold)}), "
                f"with a {report.alpha * 100:g} % risk of a false pass in this era"
            )
        return f"{shadow}'s answers are as good as {primary}'s{proof}."
    if report.shadow_store is None and not report.sampling.compared:
        return f"Nothing is mirrored while {store_name(report.primary)} answers alone, so there is nothing to judge."
    if report.verdict == "hold":
        return f"{shadow} is not ready to answer in {primary}'s place."
    compared = queries(report.sampling.compared)
    return f"There is not enough evidence yet on {shadow} beside {primary}: {compared} compared."


def next_steps(report: ParityReport) -> tuple[str, ...]:
    """What would make it pass, a sentence for each figure and condition that is not there yet."""
    steps = [_step(figure, report) for figure in report.figures if not figure.passed]
    steps += [f"{item.name}: {item.detail}" for item in report.conditions if not item.met]
    return tuple(steps)


def verification_sentence(verification: Verification) -> str:
    """The state of the data in a sentence."""
    when_checked = f"{age(verification.age_s)} ago" if verification.age_s is not None else ""
    rows = f"{count(verification.rows)} rows" if verification.rows is not None else "the rows"
    if verification.state == "clean":
        return f"Clean: {rows} are equal in both stores, checked {when_checked or 'at an unknown time'}."
    if verification.state == "differs":
        found = f"{count(verification.differing)} of {rows} differ"
        return f"Differs: {found}{', checked ' + when_checked if when_checked else ''}."
    if verification.state == "could not check":
        tried = f" when it was last tried, {when_checked}" if when_checked else ""
        return f"Could not check: the data was not compared{tried}. This is not a finding of difference."
    return "Never: the data of the two stores has not been compared yet."


def adjudication_sentence(adjudication: Adjudication | None) -> str:
    """How many divergences were judged by exact scans, and how large the audit sample is."""
    if adjudication is None:
        return "No divergence has been judged by an exact scan."
    return (
        f"{queries(adjudication.divergent)} diverged; {count(adjudication.adjudicated)} were judged by "
        "an exact scan. The audit sample, drawn before results were known, has "
        f"{queries(adjudication.audited)}."
    )


def window_sentence(report: ParityReport) -> str:
    """When the evidence was gathered."""
    if report.measured_from is None:
        return "No evidence has been gathered in this era."
    return f"Measured from {when(report.measured_from)} until {when(report.measured_until)}."


def era_sentence(report: ParityReport) -> str:
    """Which span of unchanged settings counts, and what is promised about it."""
    era = report.era
    return (
        f"Era {era.id} of {era.eras_total}, opened {when(era.opened_at)}: {era.why}. The chance of a false "
        f"pass is at most {report.alpha * 100:g} % in this era and {era.promise_alpha_sum * 100:g} % over "
        "all eras."
    )


def lag_sentence(lag: StoreLag) -> str:
    """How far behind the journal a store is."""
    if lag.entries == 0:
        return "level"
    entries = f"{count(lag.entries)} {'entry' if lag.entries == 1 else 'entries'} behind"
    return (
        entries
        if lag.oldest_age_s is None
        else f"{entries}, the oldest {age(lag.oldest_age_s)} old"
    )


def _step(figure: Figure, report: ParityReport) -> str:
    title, threshold = figure_title(figure), share(figure.threshold)
    if figure.queries == 0 or figure.mean is None:
        needed = f"about {count(figure.queries_needed)} " if figure.queries_needed else ""
        return f"{title}: no query has been compared; {needed}queries are needed."
    if _is_below(figure):
        return (
            f"{title}: the mean {share(figure.mean)} is not above the threshold {threshold}. More queries "
            "alone will not change that: the causes of divergence below say what to mend."
        )
    bound = f"its lower bound {share(figure.lower_bound)} must reach {threshold}"
    if figure.queries_needed is None:
        return f"{title}: {bound}; how many queries that takes cannot be told yet."
    more = f"about {count(figure.queries_needed)} more queries at the present mean {share(figure.mean)}"
    return f"{title}: {more}{_time_left(figure, report)}; {bound}."


def _is_below(figure: Figure) -> bool:
    return figure.mean is not None and figure.mean <= figure.threshold


def _time_left(figure: Figure, report: ParityReport) -> str:
    """How long the missing queries take at the rate of those that came; empty when no rate is known."""
    since, until = parse_time(report.measured_from), parse_time(report.measured_until)
    if since is None or until is None or until <= since or not figure.queries_needed:
        return ""
    seconds = (until - since).total_seconds() / figure.queries * figure.queries_needed
    return f" ({age(seconds)} at the present rate)"
