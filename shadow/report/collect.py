"""The parity report filled from a migration's evidence."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from shadow.core import bounded_mean
from shadow.core.gate import POOLED, Hold, Pass, Undecided, Verdict
from shadow.core.phases import FAISS, POSTGRESQL
from shadow.evidence_view import (
    AUDIT_RECALL,
    EXACT_RECALL,
    LIVE,
    REPLAY,
    EvidenceView,
    Tally,
)
from shadow.opening import Migration
from shadow.report import words
from shadow.report.conditions import conditions
from shadow.report.latencies import latencies
from shadow.report.meanings import MEANINGS
from shadow.report.model import (
    Adjudication,
    AuditEntry,
    Cause,
    Era,
    ExactRecall,
    Figure,
    HitExcerpt,
    ParityReport,
    Sampling,
    StoreLag,
    Stratum,
    TimelinePoint,
    Verification,
    WorstQuery,
)

__all__ = ["collect"]

WORST_SHOWN = 8
AUDIT_SHOWN = 30
PACKAGES = ("shadow-cutover", "faiss-cpu", "numpy", "pgvector", "psycopg")


def collect(migration: Migration, *, subject: str, source: str = LIVE) -> ParityReport:
    """The report of the era in force. ``subject``: what is migrated, as its owners call it.
    ``source``: live evidence, or what was replayed, which is kept apart and flips nothing.

    PostgreSQL is what is judged, before and after the flip. What the reverse shadow showed of FAISS,
    which decides how good the way back is, is a figure of its own.
    """
    now = time.time()
    evidence, route = migration.evidence, migration.routes.current()
    alpha = migration.settings.gate.alpha_ready
    verdict = migration.desk.verdict(alpha, source=source)
    judged = POSTGRESQL
    mirrored = FAISS if route.primary == POSTGRESQL else POSTGRESQL
    era = evidence.era()
    number = 0 if era is None else era.number
    counts = evidence.counts(number, judged, source=source)
    tally = evidence.total(number, judged)
    if source != LIVE:
        replayed = sum(counts.get(("success", POOLED), {}).values())
        tally = Tally(offered=replayed, sampled=replayed, resolved=replayed)
    minutes = evidence.minutes(number, judged, source=source)
    audited = evidence.counts(number, FAISS, source=source)
    found = ParityReport(
        generated_at=_iso(now),
        subject=subject,
        verdict=_word(verdict),
        phase=route.phase.value,
        primary=route.primary,
        shadow_store=mirrored if route.mirrors else None,
        era=Era(
            id=number,
            opened_at=_iso(now if era is None else era.opened_at),
            why="no evidence yet" if era is None else era.why,
            eras_total=evidence.eras_count(),
            promise_alpha_sum=alpha * max(1, evidence.eras_count()),
        ),
        alpha=alpha,
        reasons=verdict.reasons if isinstance(verdict, Hold) else (),
        needs=() if isinstance(verdict, Pass) else verdict.needs,
        measured_from=None if era is None else _iso(era.opened_at),
        measured_until=_iso(minutes[-1][0] + 60) if minutes else None,
        figures=_figures(verdict) + _way_back(migration, number, alpha),
        recall_histogram=tuple(sorted(counts.get(("recall", POOLED), {}).items())),
        timeline=tuple(TimelinePoint(_iso(at), mean, n) for at, mean, n in minutes),
        headline="" if source == LIVE else _replay_headline(verdict, tally.resolved),
        conditions=conditions(
            migration.desk.inputs(source=source), migration.settings.gate, verdict, source=source
        ),
        latency=latencies(evidence, number, source),
        latency_budget_ms=migration.settings.gate.latency_budget_ms,
        causes=tuple(
            Cause(cause, n, MEANINGS.get(cause, ""))
            for cause, n in evidence.causes(number, judged, source=source).items()
        ),
        adjudication=_adjudication({FAISS: audited, POSTGRESQL: counts}, judged),
        worst=tuple(map(_worst, evidence.worst(number, judged, limit=WORST_SHOWN, source=source))),
        verification=_verification(migration, now),
        lag=_lag(migration),
        sampling=_sampling(evidence, number, judged, tally, counts, source),
        settings={} if era is None else dict(era.settings),
        versions=_versions(),
        audit=tuple(
            AuditEntry(_iso(entry.at), entry.who, entry.what, entry.why)
            for entry in migration.routes.audit(limit=AUDIT_SHOWN)
        ),
    )
    # In so many words, for those who read it as JSON.
    return replace(found, headline=words.headline(found))


def _word(verdict: Verdict) -> Any:
    return {Pass: "pass", Hold: "hold", Undecided: "undecided"}[type(verdict)]


def _figures(verdict: Verdict) -> tuple[Figure, ...]:
    return tuple(
        Figure(
            name=figure.name,
            stratum=figure.stratum,
            queries=figure.queries,
            mean=figure.mean,
            lower_bound=figure.lower_bound if figure.queries else None,
            threshold=figure.threshold,
            passed=figure.passed,
            queries_needed=figure.queries_needed,
        )
        for figure in verdict.figures
    )


def _way_back(migration: Migration, era: int, alpha: float) -> tuple[Figure, ...]:
    """FAISS's agreement with PostgreSQL since the flip; it decides nothing."""
    counts = migration.evidence.counts(era, FAISS).get(("recall", POOLED), {})
    if not counts:
        return ()
    threshold = migration.settings.gate.recall_min
    return (
        Figure(
            name="recall",
            stratum="FAISS after the flip",
            queries=sum(counts.values()),
            mean=bounded_mean.mean(counts),
            lower_bound=bounded_mean.lower_bound(counts, alpha),
            threshold=threshold,
            passed=bounded_mean.passes(counts, threshold, alpha),
            queries_needed=bounded_mean.queries_needed(counts, threshold, alpha),
        ),
    )


def _replay_headline(verdict: Verdict, queries: int) -> str:
    return (
        f"{queries:,} replayed queries, which are no live evidence and flip nothing: "
        f"{_word(verdict)} by the same thresholds."
    )


def _adjudication(
    counts: Mapping[str, Mapping[tuple[str, str], Mapping[float, int]]], judged: str
) -> Adjudication | None:
    recalls = counts[judged].get(("recall", POOLED), {})
    divergent = sum(n for value, n in recalls.items() if value < 1.0)
    samples = {AUDIT_RECALL: "audit, drawn before results", EXACT_RECALL: "divergent queries only"}
    found = {
        (store, figure): ExactRecall(store, sum(values.values()), bounded_mean.mean(values), sample)
        for figure, sample in samples.items()
        for store, figures in counts.items()
        if (values := figures.get((figure, POOLED)))
    }
    if not divergent and not found:
        return None
    adjudicated, audited = (
        max((one.queries for (_, name), one in found.items() if name == figure), default=0)
        for figure in (EXACT_RECALL, AUDIT_RECALL)
    )
    return Adjudication(divergent, adjudicated, audited, tuple(found.values()))


def _worst(detail: Mapping[str, Any]) -> WorstQuery:
    def shown(hits: Sequence[Sequence[Any]]) -> tuple[HitExcerpt, ...]:
        return tuple(HitExcerpt(str(hit[0]), float(hit[1]), str(hit[2])) for hit in hits)

    return WorstQuery(
        query=detail["label"] or f"a query at {_iso(detail['at'])}, k = {detail['k']}",
        recall=detail["recall"],
        cause=", ".join(f"{n} {cause}" for cause, n in detail["causes"].items()) or "unjudged",
        primary_hits=shown(detail["primary_hits"]),
        shadow_hits=shown(detail["shadow_hits"]),
        primary_latency_ms=detail["primary_ms"],
        shadow_latency_ms=detail["shadow_ms"],
    )


def _verification(migration: Migration, now: float) -> Verification:
    found = migration.verification()
    if found is None:
        return Verification(state="never")
    state: Any = found.state
    return Verification(
        state, now - found.at, found.rows, found.differing, found.method, found.detail
    )


def _lag(migration: Migration) -> tuple[StoreLag, ...]:
    applied = migration.postgresql.standing.applied_seq
    age_ms = migration.lag.oldest_unapplied_ms(applied)
    head = migration.lag.head()
    return (
        # Every process applies to its own FAISS copy before a write returns.
        StoreLag(FAISS, 0, None),
        StoreLag(
            POSTGRESQL,
            max(0, head - applied),
            None if age_ms is None or math.isinf(age_ms) else age_ms / 1e3,
        ),
    )


def _sampling(
    evidence: EvidenceView,
    era: int,
    judged: str,
    tally: Tally,
    counts: Mapping[tuple[str, str], Mapping[float, int]],
    source: str,
) -> Sampling:
    replayed = evidence.counts(era, judged, source=REPLAY).get(("recall", POOLED), {})
    strata = tuple(
        Stratum(stratum, declared=stratum != POOLED, queries=sum(values.values()))
        for (figure, stratum), values in sorted(counts.items())
        if figure == "recall"
    )
    return Sampling(
        offered=tally.offered,
        sampled=tally.sampled,
        compared=tally.resolved,
        distinct=evidence.distinct_queries(era, source=source),
        dropped=tally.dropped,
        lost=tally.lost,
        replayed=sum(replayed.values()),
        strata=strata,
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
