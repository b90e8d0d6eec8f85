"""Metrics for Prometheus: base units, `_total` for counts, one metric for each thing one alerts on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from shadow.core.phases import FAISS, POSTGRESQL, Phase
from shadow.serve.watch import Look

__all__ = ["HttpMetrics", "MigrationCollector"]

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
VERIFY_STATES = ("never", "clean", "differs", "could not check")
VERDICTS = ("pass", "hold", "undecided")


class HttpMetrics:
    """What this process did: requests by address pattern, searches by the store that answered."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Memory, CPU and descriptors of this process, under the names that every dashboard knows.
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "shadow_http_requests", "Requests answered.", ["method", "route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self._request_seconds = Histogram(
            "shadow_http_request_duration_seconds", "Time from request to response.",
            ["method", "route"], buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.in_progress = Gauge(
            "shadow_http_requests_in_progress", "Requests under way that the limit counts.",
            registry=self.registry,
        )  # fmt: skip
        self._search_seconds = Histogram(
            "shadow_search_duration_seconds", "Time that the router took for a search.",
            ["store"], buckets=SECONDS, registry=self.registry,
        )  # fmt: skip

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        known = method if method in ("GET", "POST", "HEAD", "DELETE", "PUT", "OPTIONS") else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._request_seconds.labels(known, route).observe(seconds)

    def search(self, store: str, seconds: float) -> None:
        """Count a search that ``store`` answered."""
        self._search_seconds.labels(store).observe(seconds)


class MigrationCollector(Collector):
    """Where the migration stands, from what was last seen of it."""

    def __init__(self, look: Callable[[], Look]) -> None:
        self._look = look

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not look while it is being built."""
        return []

    def collect(self) -> Iterator[Metric]:
        look = self._look()
        yield from _route(look)
        yield from _gate(look)
        yield from _evidence(look)
        yield from _stores(look)
        yield from _files(look)
        yield _latencies(look)


def _gauge(
    name: str, told: str, value: float | None, labels: Sequence[tuple[str, str]] = ()
) -> GaugeMetricFamily:
    """A gauge of one value; none at all while it is not known."""
    family = GaugeMetricFamily(name, told, labels=[label for label, _ in labels])
    if value is not None:
        family.add_metric([text for _, text in labels], float(value))
    return family


def _state(name: str, told: str, label: str, states: Iterable[str], now: str) -> GaugeMetricFamily:
    """One gauge for each state: 1 for the one that is, 0 for the others."""
    family = GaugeMetricFamily(name, told, labels=[label])
    for state in states:
        family.add_metric([state], float(state == now))
    return family


def _route(look: Look) -> Iterator[Metric]:
    status = look.status
    phases = [phase.value for phase in Phase]
    yield _state("shadow_phase", "Phase of the migration.", "phase", phases, status["phase"])
    yield _state(
        "shadow_primary", "The store that answers.", "store", (FAISS, POSTGRESQL), status["primary"]
    )
    yield _gauge(
        "shadow_postgresql_reads_ratio", "Share of reads that PostgreSQL answers.",
        status["postgresql_share"],
    )  # fmt: skip
    yield _gauge("shadow_mirror_ratio", "Share of queries mirrored.", status["mirror_rate"])
    yield _gauge("shadow_route_version", "Version of the route.", status["route_version"])
    yield _gauge(
        "shadow_rollback_latched", "1 while an automatic rollback holds.", bool(status["latch"])
    )


def _gate(look: Look) -> Iterator[Metric]:
    status = look.status
    yield _state("shadow_verdict", "The gate's verdict.", "verdict", VERDICTS, status["verdict"])
    yield _gauge("shadow_era", "Number of the era that evidence belongs to.", status["era"])
    labels = ["figure", "stratum"]
    families = {
        "mean": GaugeMetricFamily("shadow_gate_mean", "Mean of a figure.", labels=labels),
        "lower_bound": GaugeMetricFamily(
            "shadow_gate_lower_bound", "Lower bound of a figure, valid at any time.", labels=labels
        ),
        "threshold": GaugeMetricFamily(
            "shadow_gate_threshold", "What the lower bound must reach.", labels=labels
        ),
    }
    passed = GaugeMetricFamily("shadow_gate_passed", "1 if the figure passes.", labels=labels)
    for figure in status["figures"]:
        place = [figure["name"], figure["stratum"]]
        for name, family in families.items():
            if figure[name] is not None:
                family.add_metric(place, figure[name])
        passed.add_metric(place, float(figure["passed"]))
    yield from families.values()
    yield passed
    recall = next((f for f in status["figures"] if f["name"] == "recall"), None)
    yield _gauge(
        "shadow_recall_mean", "Mean recall@k of PostgreSQL against FAISS.",
        None if recall is None else recall["mean"],
    )  # fmt: skip


def _evidence(look: Look) -> Iterator[Metric]:
    evidence = look.status["evidence"]
    for name, told in (
        ("offered", "Queries offered to the mirror in this era."),
        ("sampled", "Queries drawn for the mirror in this era."),
        ("compared", "Queries compared in this era."),
        ("dropped", "Drawn queries that the full queue dropped in this era."),
        ("lost", "Drawn queries that were lost or are under way in this era."),
    ):
        if name == "lost":
            yield _gauge("shadow_mirror_lost", told, evidence[name])
            continue
        counter = CounterMetricFamily(f"shadow_mirror_{name}", told)
        counter.add_metric([], evidence[name])
        yield counter
    yield _gauge(
        "shadow_distinct_queries", "Different queries compared in this era.",
        evidence["distinct_queries"],
    )  # fmt: skip
    causes = CounterMetricFamily(
        "shadow_divergences", "Hits missed in this era, by cause.", labels=["cause"]
    )
    for cause in look.report.causes:
        causes.add_metric([cause.label], cause.count)
    yield causes


def _stores(look: Look) -> Iterator[Metric]:
    postgresql = look.status["stores"]["postgresql"]
    up = GaugeMetricFamily("shadow_store_up", "1 if the store can be used.", labels=["store"])
    up.add_metric([FAISS], 1.0)
    up.add_metric([POSTGRESQL], float(postgresql["state"] not in ("unavailable", "foreign")))
    yield up
    yield _gauge(
        "shadow_applier_halted", "1 if an entry stopped PostgreSQL's applier.",
        bool(postgresql["halted"]),
    )  # fmt: skip
    lag = [("store", POSTGRESQL)]
    yield _gauge(
        "shadow_lag_entries", "Journal entries that a store has not applied.",
        postgresql["lag_entries"], lag,
    )  # fmt: skip
    oldest_ms = postgresql["lag_oldest_ms"] or 0.0
    behind = postgresql["lag_entries"] is not None and not math.isinf(oldest_ms)
    yield _gauge(
        "shadow_lag_seconds", "Age of the oldest entry that a store has not applied.",
        oldest_ms / 1e3 if behind else None, lag,
    )  # fmt: skip
    for name, value in look.pool.items():
        yield _gauge(f"shadow_pool_{_POOL[name]}", "PostgreSQL connections of this process.", value)
    if look.server is not None:
        for name in ("table_bytes", "indexes_bytes", "vector_index_bytes", "dead_rows"):
            yield _gauge(
                f"shadow_postgresql_{name}", "PostgreSQL's statistics of our table.",
                getattr(look.server, name),
            )  # fmt: skip
        yield _gauge(
            "shadow_postgresql_cache_hit_ratio", "Pages found in shared_buffers.",
            look.server.cache_hit_share,
        )  # fmt: skip


_POOL = {
    "size": "connections",
    "lent": "connections_in_use",
    "size_max": "connections_limit",
    "waiting": "waiting_callers",
}


def _files(look: Look) -> Iterator[Metric]:
    journal, verify = look.status["journal"], look.status["verify"]
    yield _gauge("shadow_journal_size_bytes", "Bytes in use in the journal.", journal["bytes"])
    yield _gauge("shadow_journal_limit_bytes", "Size limit of the journal.", journal["bytes_max"])
    yield _gauge("shadow_journal_entries", "Entries that the journal keeps.", journal["entries"])
    head = CounterMetricFamily("shadow_journal_writes", "Writes that the journal acknowledged.")
    head.add_metric([], journal["head"])
    yield head
    yield _gauge(
        "shadow_snapshot_age_seconds", "Age of the newest FAISS snapshot.",
        look.status["stores"]["faiss"]["snapshot_age_s"],
    )  # fmt: skip
    seq = look.status["stores"]["faiss"]["snapshot_seq"]
    yield _gauge(
        "shadow_snapshot_lag_entries", "Journal entries after the newest FAISS snapshot.",
        None if seq is None else journal["head"] - seq,
    )  # fmt: skip
    yield _gauge(
        "shadow_verify_age_seconds", "Time since the last verify.",
        None if verify is None else verify["age_s"],
    )  # fmt: skip
    yield _state(
        "shadow_verify_state", "What the last verify found; \"never\" until there is one.", "state",
        VERIFY_STATES, "never" if verify is None else verify["state"],
    )  # fmt: skip


def _latencies(look: Look) -> HistogramMetricFamily:
    """Both stores over the mirrored queries of this era, from buckets two percent wide."""
    family = HistogramMetricFamily(
        "shadow_mirrored_latency_seconds",
        "Latency of mirrored queries in this era; a query that timed out is above every bound.",
        labels=["store"],
    )
    for store, counted in look.latencies.items():
        buckets = [
            (str(bound), float(sum(n for ms, n in counted if ms / 1e3 <= bound)))
            for bound in SECONDS
        ]
        buckets.append(("+Inf", float(sum(n for _, n in counted))))
        total_s = sum(ms / 1e3 * n for ms, n in counted if not math.isinf(ms))
        family.add_metric([store], buckets, total_s)
    return family
