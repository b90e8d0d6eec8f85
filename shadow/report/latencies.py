"""Latencies of mirrored queries, from counts in buckets to percentiles and a curve of few points."""

from __future__ import annotations

import math
from collections.abc import Sequence

from shadow.core.phases import FAISS, POSTGRESQL
from shadow.evidence_view import EvidenceView, end_to_end
from shadow.report.model import Percentiles, StoreLatency

__all__ = ["latencies"]

CDF_POINTS_MAX = 200


def latencies(evidence: EvidenceView, era: int, source: str) -> tuple[StoreLatency, ...]:
    """Those of both stores, and end to end where the application says what it spent before."""
    stores = (FAISS, POSTGRESQL)
    found = [_latency(evidence, era, store, source) for store in stores]
    whole = [_latency(evidence, era, end_to_end(store), source) for store in stores]
    return tuple(found + [one for one in whole if one.count])


def _latency(evidence: EvidenceView, era: int, store: str, source: str) -> StoreLatency:
    buckets = evidence.latencies(era, store, source=source)
    total = sum(n for _, n in buckets)
    unanswered = sum(n for ms, n in buckets if math.isinf(ms))
    answered = [(ms, n) for ms, n in buckets if not math.isinf(ms)]
    cdf, seen = [], 0
    for ms, n in answered:
        seen += n
        cdf.append((ms, seen / total))
    stride = max(1, len(cdf) // CDF_POINTS_MAX)
    thinned = cdf[::stride]
    if cdf and thinned[-1] != cdf[-1]:
        thinned.append(cdf[-1])
    return StoreLatency(
        store=store,
        count=total,
        percentiles=Percentiles(*(_percentile(cdf, p) for p in (0.5, 0.9, 0.95, 0.99, 0.999))),
        cdf=tuple(thinned),
        unanswered=unanswered,
    )


def _percentile(cdf: Sequence[tuple[float, float]], share: float) -> float | None:
    return next((ms for ms, reached in cdf if reached >= share), None)
