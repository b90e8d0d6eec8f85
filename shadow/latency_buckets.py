"""Latencies counted in buckets of two percent, so that the counts of many processes add up."""

from __future__ import annotations

import math

__all__ = ["bucket_ms", "latency_bucket"]

_BUCKET_BASE = math.log(1.02)
TIMEOUT_BUCKET = 10_000


def latency_bucket(ms: float) -> int:
    """The bucket of a latency: two percent wide, ``TIMEOUT_BUCKET`` for an answer that never came."""
    if math.isinf(ms):
        return TIMEOUT_BUCKET
    return round(math.log(max(ms, 1e-3) * 1e3) / _BUCKET_BASE)


def bucket_ms(bucket: int) -> float:
    """The latency in the middle of a bucket, ms; infinite for a timeout."""
    return math.inf if bucket >= TIMEOUT_BUCKET else math.exp(bucket * _BUCKET_BASE) / 1e3
