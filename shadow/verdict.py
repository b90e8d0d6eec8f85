"""The gate asked: evidence and the stores' standing turned into a verdict."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from shadow.config import GateSettings
from shadow.core.bounded_mean import merge
from shadow.core.gate import (
    POOLED,
    FigureCounts,
    GateInputs,
    GateThresholds,
    Hold,
    LatencyRatio,
    Undecided,
    Verdict,
    evaluate,
)
from shadow.core.phases import FAISS, POSTGRESQL
from shadow.evidence_view import AUDIT_RECALL, LIVE, Era, EvidenceView, end_to_end
from shadow.lag import LagClock

__all__ = ["VerdictDesk", "open_sentences", "verdict_facts"]

LATENCY_QUANTILE = 0.95


LAG_UNKNOWN = "PostgreSQL cannot be asked at the moment, or holds no copy: run `shadow backfill`"


class VerdictDesk:
    """Says whether PostgreSQL may become the primary, from the evidence of the era in force."""

    def __init__(
        self,
        *,
        evidence: EvidenceView,
        lag: LagClock,
        postgresql_seq: Callable[[], int | None],
        copy: Callable[[], str],
        settings: GateSettings,
        staleness_ms_max: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``copy``: the one that PostgreSQL holds now (shadow/writes/copies.py)."""
        self._evidence = evidence
        self._lag = lag
        self._postgresql_seq = postgresql_seq
        self._copy = copy
        self._settings = settings
        self._staleness_ms_max = staleness_ms_max
        self._clock = clock
        # Eras in which evidence was gathered for long enough, by source.
        self._gathered: set[tuple[int, str]] = set()

    def ready(self) -> Verdict:
        """The verdict at the level that an operator accepts."""
        return self.verdict(self._settings.alpha_ready)

    def automatic(self) -> Verdict:
        """The verdict at the level that an automatic flip accepts."""
        return self.verdict(self._settings.alpha_automatic)

    def verdict(self, alpha: float, *, source: str = LIVE) -> Verdict:
        """The gate's verdict at ``alpha``. What was replayed need not have taken any time."""
        settings = self._settings
        return evaluate(
            self.inputs(source=source),
            GateThresholds(
                alpha=alpha,
                distinct_queries_min=settings.distinct_queries_min,
                duration_s_min=settings.duration_s_min if source == LIVE else 0.0,
                drops_share_max=settings.drops_share_max,
                verify_age_s_max=settings.verify_age_s_max,
            ),
        )

    def inputs(self, *, source: str = LIVE) -> GateInputs:
        """What the gate is told: the era's evidence, with every hole in it counted as a miss.

        A hole belongs to no known stratum, so it counts in each.
        """
        era = self._evidence.era()
        found = self._evidence.verification(self._copy())
        number = 0 if era is None else era.number
        counts = self._evidence.counts(number, POSTGRESQL, source=source)
        tally = self._evidence.total(number, POSTGRESQL)
        sampled, missing = tally.sampled, tally.dropped + tally.lost
        if source != LIVE:
            sampled, missing = sum(counts.get(("success", POOLED), {}).values()), 0
        holes = {0.0: missing} if missing else {}
        lag = self._lag_entries()
        return GateInputs(
            figures=[
                FigureCounts(name, stratum, limit, merge(counts.get((name, stratum), {}), holes))
                for stratum in (POOLED, *self._settings.strata)
                for name, limit in self._thresholds().items()
            ]
            + self._audit(counts),
            distinct_queries=self._evidence.distinct_queries(number, source=source),
            elapsed_s=0.0 if era is None else self._elapsed_s(era, source),
            sampled=sampled,
            dropped=missing,
            lag_entries={FAISS: 0} | ({} if lag is None else {POSTGRESQL: lag}),
            verify_age_s=None if found is None else self._clock() - found.at,
            verify_clean=None if found is None else _clean(found.state),
            change_alarm=self._evidence.alarm(number) is not None,
            ratio=self._ratio(number, source, missing),
        )

    def _elapsed_s(self, era: Era, source: str) -> float:
        """The time that this era had: no more than that in which evidence was gathered, whatever the
        clock said when it was opened."""
        now, enough_s = self._clock(), self._settings.duration_s_min
        elapsed_s = now - era.opened_at
        # Looked up only where it may decide: it reads a row for each minute of a day. What was once
        # enough stays so.
        if elapsed_s < enough_s or (era.number, source) in self._gathered:
            return elapsed_s
        gathered_s = self._evidence.gathered_s(
            era.number, POSTGRESQL, until=now, enough_s=enough_s, source=source
        )
        if gathered_s >= enough_s:
            self._gathered.add((era.number, source))
        return min(elapsed_s, gathered_s)

    def _thresholds(self) -> dict[str, float]:
        settings = self._settings
        found = {
            "recall": settings.recall_min,
            "success": settings.success_min,
            "latency": settings.latency_share_min,
        }
        if settings.top1_min is not None:
            found["top1"] = settings.top1_min
        return found

    def _audit(self, counts: Mapping[tuple[str, str], Mapping[float, int]]) -> list[FigureCounts]:
        """The audit sample's figure. Holes are left to the others: few queries are audited."""
        threshold = self._settings.exact_recall_min
        if threshold is None:
            return []
        found = counts.get((AUDIT_RECALL, POOLED), {})
        return [FigureCounts(AUDIT_RECALL, POOLED, threshold, found)]

    def _ratio(self, era: int, source: str, missing: int) -> LatencyRatio | None:
        settings = self._settings
        if settings.latency_ratio_max is None:
            return None
        faiss, postgresql = FAISS, POSTGRESQL
        if settings.latency_scope == "end_to_end":
            faiss, postgresql = end_to_end(FAISS), end_to_end(POSTGRESQL)
        shadow = dict(self._evidence.latencies(era, postgresql, source=source))
        if missing:
            shadow[math.inf] = shadow.get(math.inf, 0) + missing
        return LatencyRatio(
            dict(self._evidence.latencies(era, faiss, source=source)),
            shadow,
            LATENCY_QUANTILE,
            settings.latency_ratio_max,
        )

    def behind(self) -> str | None:
        """How far PostgreSQL lags, if farther than the read rule forgives."""
        lag = self._lag_entries()
        if lag is None:
            return LAG_UNKNOWN
        return None if lag == 0 else f"PostgreSQL is {lag:,} journal entries behind"

    def _lag_entries(self) -> int | None:
        """Entries that PostgreSQL lacks, ``None`` while that is not known; writes on their way, younger
        than the read rule minds, do not count: under steady writes there would always be some."""
        applied = self._postgresql_seq()
        if applied is None:
            return None
        age_ms = self._lag.oldest_unapplied_ms(applied)
        if age_ms is None or age_ms <= self._staleness_ms_max:
            return 0
        return self._lag.head() - applied


def _clean(state: str) -> bool | None:
    return {"clean": True, "differs": False}.get(state)


def open_sentences(verdict: Verdict) -> tuple[str, ...]:
    """What keeps a verdict from Pass, in sentences; empty for Pass."""
    if isinstance(verdict, Hold):
        return (*verdict.reasons, *verdict.needs)
    return verdict.needs if isinstance(verdict, Undecided) else ()


def verdict_facts(verdict: Verdict) -> Mapping[str, Any]:
    """A verdict as plain data, for the audit log and for scripts."""
    return {
        "verdict": type(verdict).__name__.lower(),
        "open": list(open_sentences(verdict)),
        "figures": [asdict(figure) for figure in verdict.figures],
    }
