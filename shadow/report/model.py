"""What a parity report says: values only, no evidence store and no clock.

Times are ISO 8601 text in UTC, latencies are milliseconds, ages are seconds, figures are shares
between 0 and 1. ``None`` stands for "not known", never for zero. Every list is bounded by whoever
fills it: the renderers print all that they are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = [
    "SCHEMA_VERSION",
    "Adjudication",
    "AuditEntry",
    "Cause",
    "Condition",
    "Era",
    "ExactRecall",
    "Figure",
    "HitExcerpt",
    "ParityReport",
    "Percentiles",
    "Sampling",
    "Scalar",
    "StoreLag",
    "StoreLatency",
    "Stratum",
    "TimelinePoint",
    "Verdict",
    "Verification",
    "VerificationState",
    "WorstQuery",
]

SCHEMA_VERSION = 1

Verdict: TypeAlias = Literal["pass", "hold", "undecided"]
VerificationState: TypeAlias = Literal["clean", "differs", "could not check", "never"]
Scalar: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Era:
    """The span of unchanged settings that the figures count over.

    ``promise_alpha_sum``: the chance of a false pass, added up over all ``eras_total`` eras.
    """

    id: int
    opened_at: str
    why: str
    eras_total: int
    promise_alpha_sum: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One bounded figure of the gate in one stratum.

    ``name`` starts with `recall`, `latency`, `top1` or `success`. ``lower_bound`` holds at any time it
    is looked at. ``queries_needed``: how many more at the present mean; 0 when passed; None when more
    queries alone will not do it.
    """

    name: str
    stratum: str
    queries: int
    mean: float | None
    lower_bound: float | None
    threshold: float
    passed: bool
    queries_needed: int | None


@dataclass(frozen=True, slots=True)
class Condition:
    """What the gate asks besides figures: level stores, a recent clean verify, enough time, few drops."""

    name: str
    met: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Latency in milliseconds; None where the percentile falls among the timeouts, or nothing ran."""

    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    p999: float | None


@dataclass(frozen=True, slots=True)
class StoreLatency:
    """How long one store took over mirrored queries.

    ``cdf``: (latency_ms, share of all ``count`` queries answered by then), rising. What timed out
    or failed is ``unanswered``, so the last share is below 1 if there was any.
    """

    store: str
    count: int
    percentiles: Percentiles
    cdf: tuple[tuple[float, float], ...]
    unanswered: int


@dataclass(frozen=True, slots=True)
class Cause:
    """How many misses an adjudication put down to one cause, and what that cause means."""

    label: str
    count: int
    meaning: str


@dataclass(frozen=True, slots=True)
class ExactRecall:
    """One store's recall against an exact scan, over one sample of the queries."""

    store: str
    queries: int
    recall: float | None
    sample: str = "audit"


@dataclass(frozen=True, slots=True)
class Adjudication:
    """What exact scans found: divergent queries, how many were judged, the audit sample, recall by store."""

    divergent: int
    adjudicated: int
    audited: int
    exact_recall: tuple[ExactRecall, ...]


@dataclass(frozen=True, slots=True)
class HitExcerpt:
    """One hit as it is shown: its text is cut by whoever fills the report."""

    id: str
    score: float
    text: str


@dataclass(frozen=True, slots=True)
class WorstQuery:
    """A query whose answers differ most. ``query`` is the application's label or a hash."""

    query: str
    recall: float
    cause: str
    primary_hits: tuple[HitExcerpt, ...]
    shadow_hits: tuple[HitExcerpt, ...]
    primary_latency_ms: float | None
    shadow_latency_ms: float | None


@dataclass(frozen=True, slots=True)
class Verification:
    """The last comparison of the data itself. ``detail``: why it could not check, or which ids differ."""

    state: VerificationState
    age_s: float | None = None
    rows: int | None = None
    differing: int | None = None
    method: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class StoreLag:
    """Journal entries that a store has not applied, and the age of the oldest (None when there is none)."""

    store: str
    entries: int
    oldest_age_s: float | None


@dataclass(frozen=True, slots=True)
class Stratum:
    """A share of the traffic with its own figures. ``declared`` is False for the pooled rest."""

    name: str
    declared: bool
    queries: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """How live queries became evidence. ``replayed`` queries are counted apart and never enter it."""

    offered: int = 0
    sampled: int = 0
    compared: int = 0
    distinct: int = 0
    dropped: int = 0
    lost: int = 0
    replayed: int = 0
    strata: tuple[Stratum, ...] = ()


@dataclass(frozen=True, slots=True)
class TimelinePoint:
    """Mean recall of the ``queries`` compared in the bucket that begins at ``at``."""

    at: str
    recall: float
    queries: int


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A decision about the route: who took it, what it was, and why."""

    at: str
    who: str
    what: str
    why: str


@dataclass(frozen=True, slots=True)
class ParityReport:
    """The whole report.

    ``subject``: what is migrated, as its owners call it. ``headline``: the verdict in a sentence; left
    empty, it is composed from the figures. ``reasons`` say why it holds, ``needs`` what is missing.
    ``alpha``: the chance of a false pass that this era promises. The evidence is on ``judged``, held
    against ``reference``, whoever answers now. ``shadow_store`` is None when nothing
    is mirrored. ``latency_budget_ms``: the objective that the latency figure counts against.
    ``settings``: keys may be grouped by a prefix and a dot, such as `postgresql.ef_search`.
    """

    generated_at: str
    subject: str
    verdict: Verdict
    phase: str
    primary: str
    shadow_store: str | None
    era: Era
    judged: str = "postgresql"
    reference: str = "faiss"
    alpha: float = 0.05
    headline: str = ""
    reasons: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    measured_from: str | None = None
    measured_until: str | None = None
    figures: tuple[Figure, ...] = ()
    conditions: tuple[Condition, ...] = ()
    recall_histogram: tuple[tuple[float, int], ...] = ()
    timeline: tuple[TimelinePoint, ...] = ()
    latency: tuple[StoreLatency, ...] = ()
    latency_budget_ms: float | None = None
    causes: tuple[Cause, ...] = ()
    adjudication: Adjudication | None = None
    worst: tuple[WorstQuery, ...] = ()
    verification: Verification = Verification(state="never")
    lag: tuple[StoreLag, ...] = ()
    sampling: Sampling = Sampling()
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    audit: tuple[AuditEntry, ...] = ()
    schema_version: int = SCHEMA_VERSION
