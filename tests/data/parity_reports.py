"""Parity reports to render: a realistic one, one with nothing measured yet, and one made of hostile text."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime, timedelta

from shadow.report.model import (
    Adjudication,
    AuditEntry,
    Cause,
    Condition,
    Era,
    ExactRecall,
    Figure,
    HitExcerpt,
    ParityReport,
    Percentiles,
    Sampling,
    StoreLag,
    StoreLatency,
    Stratum,
    TimelinePoint,
    Verification,
    WorstQuery,
)

__all__ = ["HOSTILE", "empty_report", "holding_report", "hostile_report", "passing_report"]

HOSTILE = (
    "<script>alert('x')</script> ]]> \"quoted\" & --> | `code` [a](http://evil.example) \x00 \u202e"
)

_START = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)


def _curve(median_ms: float, spread: float) -> tuple[tuple[float, float], ...]:
    """A log-normal CDF at 80 points."""
    found: list[tuple[float, float]] = []
    for step in range(80):
        latency_ms = median_ms * math.exp(spread * (step / 79 * 6.5 - 2.6))
        found.append(
            (
                latency_ms,
                0.5 * (1 + math.erf(math.log(latency_ms / median_ms) / spread / math.sqrt(2))),
            )
        )
    return tuple(found)


def _timeline() -> tuple[TimelinePoint, ...]:
    return tuple(
        TimelinePoint(
            at=(_START + timedelta(hours=hour)).isoformat(),
            recall=round(0.992 - 0.006 * math.sin(hour / 3.1) - (0.012 if hour == 17 else 0), 4),
            queries=int(260 + 220 * math.sin((hour - 3) / 24 * 2 * math.pi)),
        )
        for hour in range(26)
    )


def _worst() -> tuple[WorstQuery, ...]:
    texts = {
        "maize-guide.pdf#p12-3": "Plant one seed per station at 25 cm spacing on ridges 75 cm apart. Earlier advice of three seeds per station wastes seed and crowds the crop.",
        "maize-guide.pdf#p12-4": "In Sasakawa planting the ridges stay 75 cm apart; the seed is covered with 5 cm of fine soil.",
        "legumes.pdf#p4-1": "Groundnuts are planted on ridges as soon as the first 30 mm of rain has fallen, one seed per hole, 10 to 15 cm apart.",
        "soil.pdf#p7-2": "Apply 23:21:0+4S at planting, one cup for every ten stations, and urea three weeks later.",
        "soil.pdf#p9-1": "Zaulimi: mchere wa urea umathiridwa patatha masabata atatu.",
    }
    first = tuple(HitExcerpt(i, 0.83412 - n * 0.0187, t) for n, (i, t) in enumerate(texts.items()))
    return (
        WorstQuery(
            "q-7f3a91c2", 0.6, "ann_miss", first, (first[0], first[2], first[4]), 0.41, 1.62
        ),
        WorstQuery(
            "seasonal/when to plant",
            0.8,
            "row_stale",
            first[:4],
            (*first[:3], first[4]),
            0.38,
            1.18,
        ),
    )


def passing_report() -> ParityReport:
    """A migration in shadow phase whose gate passes, with a few divergences and every field filled."""
    return ParityReport(
        generated_at="2026-11-22T08:04:11+00:00",
        subject="Farming guides, Malawi",
        verdict="pass",
        phase="shadow",
        primary="faiss",
        shadow_store="postgresql",
        era=Era(
            2, "2026-11-21T06:00:00+00:00", "postgresql.ef_search changed from 40 to 200", 2, 0.1
        ),
        alpha=0.05,
        measured_from="2026-11-21T06:00:00+00:00",
        measured_until="2026-11-22T08:00:00+00:00",
        figures=(
            Figure("recall@10", "all queries", 6874, 0.9917, 0.9861, 0.95, True, 0),
            Figure("recall@10", "filtered", 912, 0.9842, 0.9623, 0.95, True, 0),
            Figure("latency within 50 ms", "all queries", 6874, 0.9984, 0.9957, 0.99, True, 0),
            Figure("top1", "all queries", 6874, 0.9968, 0.9902, 0.95, True, 0),
            Figure("success", "all queries", 6874, 0.9994, 0.9971, 0.99, True, 0),
        ),
        conditions=(
            Condition("Both stores level", True, "0 entries behind"),
            Condition("Clean verify younger than 24 h", True, "clean, 3 h 12 min old"),
            Condition("At least 50 different queries", True, "1,208 different queries"),
            Condition("At least one day", True, "1 d 2 h"),
            Condition("Quiet change detector", True, "no alarm in this era"),
            Condition("At most 5 % dropped", True, "0.16 % dropped"),
        ),
        recall_histogram=((1.0, 6391), (0.9, 402), (0.8, 61), (0.7, 12), (0.6, 5), (0.0, 3)),
        timeline=_timeline(),
        latency=(
            StoreLatency(
                "faiss",
                6874,
                Percentiles(0.041, 0.052, 0.061, 0.118, 0.402),
                _curve(0.041, 0.28),
                0,
            ),
            StoreLatency(
                "postgresql",
                6874,
                Percentiles(0.93, 1.62, 2.18, 6.4, 41.8),
                _curve(0.93, 0.5),
                4,
            ),
        ),
        latency_budget_ms=50.0,
        causes=(
            Cause("ann_miss", 431, "the shadow's index missed a row that it holds"),
            Cause("tie", 96, "equal scores in another order; not a fault"),
            Cause("primary_miss", 28, "the primary was the wrong one"),
            Cause("row_stale", 9, "the shadow answered from an older version of a row"),
            Cause("timeout", 3, "the shadow did not answer in time"),
            Cause("error", 1, "the shadow failed"),
        ),
        adjudication=Adjudication(
            483,
            480,
            343,
            (ExactRecall("faiss", 343, 0.9997), ExactRecall("postgresql", 343, 0.9921)),
        ),
        worst=_worst(),
        verification=Verification(
            "clean",
            11_520,
            382,
            0,
            "crc32c of id, seq, vector, text and metadata by ranges",
            "Finds accidents, not forgery.",
        ),
        lag=(StoreLag("faiss", 0, None), StoreLag("postgresql", 0, None)),
        sampling=Sampling(
            6902,
            6885,
            6874,
            1208,
            11,
            0,
            500,
            (Stratum("filtered", True, 912), Stratum("everything else", False, 5962)),
        ),
        settings={
            "faiss.index": "IndexFlatIP",
            "faiss.rows": 382,
            "gate.alpha": 0.05,
            "gate.recall_min": 0.95,
            "mirror.sampling_rate": 1.0,
            "postgresql.ef_search": 200,
            "postgresql.index": "hnsw (m 16, ef_construction 64)",
            "postgresql.iterative_scan": "strict_order",
            "postgresql.jit": False,
            "postgresql.table": "farming_guides",
            "embedding.model": "text-embedding-3-small",
            "embedding.dimension": 1536,
            "embedding.revision": None,
        },
        versions={
            "shadow-cutover": "0.1.0",
            "faiss": "1.15.1",
            "PostgreSQL": "18.4",
            "pgvector": "0.8.5",
            "Python": "3.12.4",
        },
        audit=(
            AuditEntry(
                "2026-11-20T14:02:00+00:00", "thoko", "backfill finished", "382 rows at seq 0"
            ),
            AuditEntry(
                "2026-11-20T14:05:00+00:00", "thoko", "phase faiss to shadow", "change request 1182"
            ),
            AuditEntry(
                "2026-11-21T06:00:00+00:00",
                "router",
                "era 2 opened",
                "postgresql.ef_search changed from 40 to 200",
            ),
        ),
    )


def holding_report() -> ParityReport:
    """The same migration while PostgreSQL misses too much and lags behind."""
    return dataclasses.replace(
        passing_report(),
        verdict="hold",
        headline="PostgreSQL's answers to filtered queries are worse than FAISS's.",
        reasons=(
            "recall@10, filtered: mean 0.8810 is below 0.95",
            "PostgreSQL is 214 entries behind the journal",
        ),
        figures=(
            Figure("recall@10", "all queries", 412, 0.9713, 0.9402, 0.95, False, 96),
            Figure("recall@10", "filtered", 88, 0.881, 0.8214, 0.95, False, None),
            Figure("latency within 50 ms", "all queries", 412, 0.9976, 0.9907, 0.99, True, 0),
            Figure("success", "all queries", 412, 1.0, 0.9895, 0.99, False, 22),
        ),
        conditions=(
            Condition("Both stores level", False, "PostgreSQL is 214 entries behind"),
            Condition("Clean verify younger than 24 h", False, "the last verify found differences"),
            Condition("At least 50 different queries", True, "131 different queries"),
        ),
        verification=Verification(
            "differs", 640, 382, 2, "crc32c by ranges", "maize-guide.pdf#p12-3, soil.pdf#p7-2"
        ),
        lag=(StoreLag("faiss", 0, None), StoreLag("postgresql", 214, 96.0)),
    )


def empty_report() -> ParityReport:
    """Nothing mirrored, nothing measured."""
    return ParityReport(
        generated_at="2026-11-20T14:00:00+00:00",
        subject="Farming guides, Malawi",
        verdict="undecided",
        phase="shadow",
        primary="faiss",
        shadow_store="postgresql",
        era=Era(1, "2026-11-20T14:00:00+00:00", "first start", 1, 0.05),
        needs=("85 queries at least",),
        figures=(Figure("recall@10", "all queries", 0, None, None, 0.95, False, 85),),
    )


def hostile_report() -> ParityReport:
    """Hostile text in every field that holds text."""
    full = passing_report()
    hit = HitExcerpt(HOSTILE, 0.5, HOSTILE)
    return dataclasses.replace(
        full,
        generated_at=HOSTILE,
        subject=HOSTILE,
        verdict="hold",
        phase=HOSTILE,
        primary=HOSTILE,
        shadow_store=HOSTILE,
        headline=HOSTILE,
        reasons=(HOSTILE,),
        needs=(HOSTILE,),
        era=Era(1, HOSTILE, HOSTILE, 1, 0.05),
        figures=(Figure(HOSTILE, HOSTILE, 5, 0.9, 0.5, 0.8, False, 4),),
        conditions=(Condition(HOSTILE, False, HOSTILE),),
        timeline=(TimelinePoint(HOSTILE, 0.9, 3), *full.timeline),
        latency=(dataclasses.replace(full.latency[0], store=HOSTILE),),
        causes=(Cause(HOSTILE, 1, HOSTILE),),
        adjudication=Adjudication(1, 1, 1, (ExactRecall(HOSTILE, 1, 1.0),)),
        worst=(WorstQuery(HOSTILE, 0.0, HOSTILE, (hit,), (hit, hit), 1.0, None),),
        verification=Verification("could not check", 5.0, 3, 1, HOSTILE, HOSTILE),
        lag=(StoreLag(HOSTILE, 2, 1.0),),
        sampling=Sampling(strata=(Stratum(HOSTILE, True, 1),)),
        settings={HOSTILE: HOSTILE},
        versions={HOSTILE: HOSTILE},
        audit=(AuditEntry(HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
    )
