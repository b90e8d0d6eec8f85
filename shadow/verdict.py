"""The gate asked: evidence and the stores' standing turned into a verdict."""

from __future__ import annotations

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
    Undecided,
    Verdict,
    evaluate,
)
from shadow.core.phases import FAISS, POSTGRESQL
from shadow.evidence_view import EvidenceView
from shadow.lag import LagClock

__all__ = ["VerdictDesk", "open_sentences", "verdict_facts"]


class VerdictDesk:
    """Says whether PostgreSQL may become the primary, from the evidence of the era in force."""

    def __init__(
        self,
        *,
        evidence: EvidenceView,
        lag: LagClock,
        postgresql_seq: Callable[[], int],
        settings: GateSettings,
        staleness_ms_max: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._evidence = evidence
        self._lag = lag
        self._postgresql_seq = postgresql_seq
        self._settings = settings
        self._staleness_ms_max = staleness_ms_max
        self._clock = clock

    def ready(self) -> Verdict:
        """The verdict at the level that an operator accepts."""
        return self.verdict(self._settings.alpha_ready)

    def automatic(self) -> Verdict:
        """The verdict at the level that an automatic flip accepts."""
        return self.verdict(self._settings.alpha_automatic)

    def verdict(self, alpha: float) -> Verdict:
        """The gate's verdict at ``alpha``."""
        settings = self._settings
        return evaluate(
            self.inputs(),
            GateThresholds(
                alpha=alpha,
                distinct_queries_min=settings.distinct_queries_min,
                duration_s_min=settings.duration_s_min,
                drops_share_max=settings.drops_share_max,
                verify_age_s_max=settings.verify_age_s_max,
            ),
        )

    def inputs(self) -> GateInputs:
        """What the gate is told: the era's live evidence, with every hole in it counted as a miss."""
        era = self._evidence.era()
        found = self._evidence.verification()
        number = 0 if era is None else era.number
        tally = self._evidence.total(number, POSTGRESQL)
        counts = self._evidence.counts(number, POSTGRESQL)
        holes = {0.0: tally.dropped + tally.lost} if tally.dropped + tally.lost else {}
        thresholds = {
            "recall": self._settings.recall_min,
            "success": self._settings.success_min,
            "latency": self._settings.latency_share_min,
        }
        if self._settings.top1_min is not None:
            thresholds["top1"] = self._settings.top1_min
        return GateInputs(
            figures=[
                FigureCounts(name, POOLED, threshold, merge(counts.get((name, POOLED), {}), holes))
                for name, threshold in thresholds.items()
            ],
            distinct_queries=self._evidence.distinct_queries(number),
            elapsed_s=0.0 if era is None else self._clock() - era.opened_at,
            sampled=tally.sampled,
            dropped=tally.dropped + tally.lost,
            lag_entries={FAISS: 0, POSTGRESQL: self._lag_entries()},
            verify_age_s=None if found is None else self._clock() - found.at,
            verify_clean=None if found is None else _clean(found.state),
            change_alarm=self._evidence.alarm(number) is not None,
        )

    def behind(self) -> str | None:
        """How far PostgreSQL lags, if farther than the read rule forgives."""
        lag = self._lag_entries()
        return None if lag == 0 else f"PostgreSQL is {lag:,} journal entries behind"

    def _lag_entries(self) -> int:
        """Entries that PostgreSQL lacks; writes on their way, younger than the read rule minds, do
        not count: under steady writes there would always be some."""
        applied = self._postgresql_seq()
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
