"""The report's facts as tables of text, the same for every renderer; cells are not yet escaped."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from shadow.report import words
from shadow.report.model import HitExcerpt, ParityReport, WorstQuery

__all__ = [
    "Column",
    "Table",
    "causes",
    "conditions",
    "exact_recall",
    "figures",
    "hits",
    "lag",
    "latency",
    "recall_counts",
    "sampling",
    "strata",
    "timeline",
]

EXCERPT_LENGTH_MAX = 220


@dataclass(frozen=True, slots=True)
class Column:
    """A heading; numbers are set to the right."""

    heading: str
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings; the first cell of each row names it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]


def figures(report: ParityReport) -> Table:
    """The gate's figures with bound, threshold and what is missing."""
    return Table(
        "Gate figures",
        (
            Column("Figure"),
            Column("Queries", numeric=True),
            Column("Mean", numeric=True),
            Column("Lower bound", numeric=True),
            Column("Threshold", numeric=True),
            Column("More queries", numeric=True),
            Column("State"),
        ),
        tuple(
            (
                words.figure_title(figure),
                words.count(figure.queries),
                words.share(figure.mean),
                words.share(figure.lower_bound),
                words.share(figure.threshold),
                words.figure_needs(figure),
                "passed" if figure.passed else "not passed",
            )
            for figure in report.figures
        ),
    )


def conditions(report: ParityReport) -> Table:
    """What the gate asks besides."""
    return Table(
        "Conditions",
        (Column("Condition"), Column("State"), Column("What was found")),
        tuple((c.name, "met" if c.met else "not met", c.detail) for c in report.conditions),
    )


def recall_counts(report: ParityReport) -> Table:
    """The recall histogram as numbers, from best to worst."""
    total = sum(queries for _, queries in report.recall_histogram)
    return Table(
        "Queries by recall",
        (
            Column("Recall", numeric=True),
            Column("Queries", numeric=True),
            Column("Share", numeric=True),
        ),
        tuple(
            (
                words.share(recall),
                words.count(queries),
                words.percent(queries / total if total else None),
            )
            for recall, queries in sorted(report.recall_histogram, reverse=True)
        ),
    )


def timeline(report: ParityReport) -> Table:
    """Mean recall over time."""
    return Table(
        "Recall over time",
        (Column("From"), Column("Mean recall", numeric=True), Column("Queries", numeric=True)),
        tuple(
            (words.when(point.at), words.share(point.recall), words.count(point.queries))
            for point in report.timeline
        ),
    )


def latency(report: ParityReport) -> Table:
    """Percentiles of the stores, one column each."""
    rows: list[tuple[str, ...]] = []
    for shown, attribute in (
        ("p50", "p50"),
        ("p90", "p90"),
        ("p95", "p95"),
        ("p99", "p99"),
        ("p99.9", "p999"),
    ):
        taken = (getattr(item.percentiles, attribute) for item in report.latency)
        rows.append((shown, *map(words.milliseconds, taken)))
    for shown, attribute in (("Queries", "count"), ("Without an answer", "unanswered")):
        rows.append((shown, *(words.count(getattr(item, attribute)) for item in report.latency)))
    stores = (Column(words.store_name(item.store), numeric=True) for item in report.latency)
    filled = tuple(rows) if report.latency else ()
    return Table("Latency percentiles", (Column("Percentile"), *stores), filled)


def causes(report: ParityReport) -> Table:
    """Divergence by cause, the most frequent first."""
    total = sum(cause.count for cause in report.causes)
    ordered = sorted(report.causes, key=lambda cause: -cause.count)
    return Table(
        "Divergence by cause",
        (
            Column("Cause"),
            Column("Misses", numeric=True),
            Column("Share", numeric=True),
            Column("Meaning"),
        ),
        tuple(
            (
                c.label,
                words.count(c.count),
                words.percent(c.count / total if total else None),
                c.meaning,
            )
            for c in ordered
        ),
    )


def exact_recall(report: ParityReport) -> Table:
    """Each store against the exact answer."""
    found = report.adjudication.exact_recall if report.adjudication else ()
    return Table(
        "Recall against an exact scan",
        (
            Column("Store"),
            Column("Sample"),
            Column("Queries", numeric=True),
            Column("Recall", numeric=True),
        ),
        tuple(
            (words.store_name(e.store), e.sample, words.count(e.queries), words.share(e.recall))
            for e in found
        ),
    )


def hits(
    report: ParityReport, worst: WorstQuery, *, show: Callable[[str, str, bool], str]
) -> Table:
    """Both answers to one query side by side.

    ``show`` turns a hit's id, its excerpt and whether the other list lacks it into a cell.
    """
    primary_ids = {hit.id for hit in worst.primary_hits}
    shadow_ids = {hit.id for hit in worst.shadow_hits}

    def cells(hit: HitExcerpt | None, others: set[str]) -> tuple[str, str]:
        if hit is None:
            return words.UNKNOWN, words.UNKNOWN
        return show(hit.id, _excerpt(hit.text), hit.id not in others), words.score(hit.score)

    pairs = itertools.zip_longest(worst.primary_hits, worst.shadow_hits)
    rows = tuple(
        (str(rank), *cells(ours, shadow_ids), *cells(theirs, primary_ids))
        for rank, (ours, theirs) in enumerate(pairs, start=1)
    )
    primary = (
        f"{words.store_name(report.reference)}, {words.milliseconds(worst.primary_latency_ms)}"
    )
    shadow = f"{words.store_name(report.judged)}, {words.milliseconds(worst.shadow_latency_ms)}"
    score = Column("Score", numeric=True)
    return Table(
        f"{worst.query}: recall {words.share(worst.recall)}, {worst.cause}",
        (Column("Rank", numeric=True), Column(primary), score, Column(shadow), score),
        rows,
    )


def lag(report: ParityReport) -> Table:
    """How far each store is behind the journal."""
    return Table(
        "Lag behind the journal",
        (Column("Store"), Column("Entries", numeric=True), Column("State")),
        tuple(
            (words.store_name(item.store), words.count(item.entries), words.lag_sentence(item))
            for item in report.lag
        ),
    )


def sampling(report: ParityReport) -> Table:
    """From queries offered to queries compared."""
    found = report.sampling
    rows = (
        ("Offered", found.offered, "live queries that the primary answered"),
        ("Sampled", found.sampled, "drawn for mirroring before they ran"),
        ("Compared", found.compared, "both answers compared"),
        ("Distinct", found.distinct, "different queries among them"),
        (
            "Dropped",
            found.dropped,
            "the mirror's queue was full, or the evidence could not be written; counted as misses",
        ),
        (
            "Lost",
            found.lost,
            "never resolved, as when a process ended or a batch failed; counted as misses",
        ),
        ("Replayed", found.replayed, "replayed or synthetic; kept apart from this evidence"),
    )
    return Table(
        "From traffic to evidence",
        (Column("Queries"), Column("Count", numeric=True), Column("What they are")),
        tuple((name, words.count(value), meaning) for name, value, meaning in rows),
    )


def strata(report: ParityReport) -> Table:
    """How the evidence spreads over strata."""
    return Table(
        "Strata",
        (Column("Stratum"), Column("Kind"), Column("Queries", numeric=True)),
        tuple(
            (s.name, "declared" if s.declared else "pooled", words.count(s.queries))
            for s in report.sampling.strata
        ),
    )


def _excerpt(text: str) -> str:
    if len(text) <= EXCERPT_LENGTH_MAX:
        return text
    return text[: EXCERPT_LENGTH_MAX - 1].rstrip() + "…"
