"""One mirrored query judged: ask the other store, compare, and find out who was wrong.

The live figure needs no second look at the data. A divergence is then adjudicated by exact scans of
both stores, within a budget; what the budget leaves over is counted as ``unjudged``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np

from shadow.config import GateSettings, MirrorSettings
from shadow.core.adjudication import Adjudication, Case, RowFacts, RowVersion, adjudicate
from shadow.core.comparison import Cause, Comparison, compare, missed
from shadow.core.phases import FAISS, POSTGRESQL
from shadow.evidence import Observed
from shadow.mirror import Observation
from shadow.writes.journal import Journal
from vectorstore.digests import row_digest
from vectorstore.errors import DeadlineExceeded, StoreUnavailable, VectorStoreError
from vectorstore.port import Replica
from vectorstore.types import Answer, Hit, Metric, Query, Record

__all__ = ["UNJUDGED", "WRONG_SCORES", "QueryJudge", "Stores"]

UNJUDGED = "unjudged"
WRONG_SCORES = "wrong_scores"

TOLERANCE = 1e-5
# Rounding of float32 sums of some thousand terms stays well below this; a wrong operator does not.
SCORE_TOLERANCE = 1e-4
ADJUDICATIONS_PER_S_MAX = 5.0
TEXT_EXCERPT_MAX = 160


class ExactStore(Replica, Protocol):
    """A store that can also answer exactly, by looking at every row."""

    def search_exact(self, query: Query) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Stores:
    """Gives both stores as they are now; either may raise StoreUnavailable."""

    faiss: Callable[[], ExactStore]
    postgresql: Callable[[], ExactStore]

    def by_name(self, name: str) -> ExactStore:
        """The store of this name."""
        return self.faiss() if name == FAISS else self.postgresql()


class QueryJudge:
    """Judges observations, one after another, in the mirror's thread."""

    def __init__(
        self,
        *,
        stores: Stores,
        journal: Journal,
        metric: Metric,
        mirror: MirrorSettings,
        gate: GateSettings,
    ) -> None:
        self._stores = stores
        self._journal = journal
        self._metric = metric
        self._mirror = mirror
        self._gate = gate
        self._tokens = ADJUDICATIONS_PER_S_MAX
        self._refilled_at = time.monotonic()

    def judge(self, seen: Observation) -> Observed:
        """What this query shows of the store that did not answer, and of the one that did."""
        judged = POSTGRESQL if seen.answered_by == FAISS else FAISS
        digest = blake2b(seen.query.vector.tobytes(), digest_size=8).digest()
        if seen.hits is None:
            return self._failed_primary(seen, judged, digest)
        query = replace(seen.query, timeout_ms=self._mirror.timeout_ms)
        started = time.perf_counter()
        shadow: Answer | None = None
        try:
            shadow = self._stores.by_name(judged).search(query)
        except DeadlineExceeded:
            latency_ms, comparison = math.inf, missed(query.k, Cause.TIMEOUT)
        except Exception:  # noqa: BLE001 - whatever fails the shadow is a miss, and evidence
            latency_ms, comparison = math.inf, missed(query.k, Cause.ERROR)
        else:
            latency_ms = (time.perf_counter() - started) * 1e3
            comparison = self._compare(seen, shadow)
        return self._observed(seen, shadow, judged, digest, comparison, latency_ms)

    def _compare(self, seen: Observation, shadow: Answer) -> Comparison:
        hits = seen.hits or ()
        struck = self._struck(seen.applied_seq, shadow.applied_seq)
        same = not struck and [hit.id for hit in hits] == [hit.id for hit in shadow.hits]
        return compare(
            _scored(hits),
            _scored(shadow.hits),
            k=seen.query.k,
            tolerance=0.0 if same else self._tolerance(seen),
            live=lambda record_id: bool(self._stores.by_name(seen.answered_by).get([record_id])),
            struck=struck,
        )

    def _struck(self, *seqs: int) -> frozenset[str]:
        low, high = min(seqs), max(seqs)
        return frozenset(self._journal.ids_between(low, high)) if low < high else frozenset()

    def _tolerance(self, seen: Observation) -> float:
        return TOLERANCE * self._scale(seen.query, seen.hits or (), seen.answered_by)

    def _scale(self, query: Query, hits: Sequence[Hit], store: str) -> float:
        """|q| |x| with the farthest hit as x: what rounding is relative to."""
        if self._metric is Metric.COSINE or not hits:
            return 1.0
        found = self._stores.by_name(store).get([hits[-1].id])
        length = float(np.linalg.norm(found[0].embedding)) if found else 1.0
        return max(1.0, float(np.linalg.norm(query.vector)) * length)

    def _observed(
        self,
        seen: Observation,
        shadow: Answer | None,
        judged: str,
        digest: bytes,
        comparison: Comparison,
        latency_ms: float,
    ) -> Observed:
        answered = shadow is not None
        causes: dict[str, int] = {}
        wrong_scores = shadow is not None and self._scores_differ(seen, shadow)
        recall = 0.0 if wrong_scores else comparison.recall
        figures = {
            "recall": recall,
            "top1": float(comparison.top1_agrees and not wrong_scores),
            "success": float(answered),
            "latency": float(latency_ms <= self._gate.latency_budget_ms),
        }
        if not answered:
            causes[str(comparison.cause)] = comparison.expected
        elif wrong_scores:
            causes[WRONG_SCORES] = max(comparison.expected, 1)
        primary_recall = 1.0
        if answered and recall < 1.0 and not wrong_scores:
            verdict = self._adjudicate(seen, shadow, judged)
            if verdict is None:
                causes[UNJUDGED] = max(len(comparison.missing), 1)
            else:
                causes.update({cause.value: n for cause, n in verdict.causes.items()})
                if verdict.shadow_recall is not None:
                    figures["exact_recall"] = verdict.shadow_recall
                if verdict.primary_recall is not None:
                    primary_recall = verdict.primary_recall
        watched = {name: figures[name] for name in ("recall", "success", "latency")}
        if judged == FAISS:
            in_time = seen.latency_ms <= self._gate.latency_budget_ms
            watched = {"recall": primary_recall, "success": 1.0, "latency": float(in_time)}
        strata = ("all",)
        detail = None
        if recall < 1.0:
            detail = self._detail(seen, shadow, recall, latency_ms, causes)
        return Observed(
            judged=judged,
            figures=figures,
            strata=strata,
            latencies_ms={seen.answered_by: seen.latency_ms, judged: latency_ms},
            query_digest=digest,
            at=seen.at,
            causes=causes,
            watched=watched,
            detail=detail,
        )

    def _failed_primary(self, seen: Observation, judged: str, digest: bytes) -> Observed:
        """The primary failed: nothing to compare with, and an error of the primary's own."""
        return Observed(
            judged=judged,
            figures={},
            strata=("all",),
            latencies_ms={seen.answered_by: math.inf},
            query_digest=digest,
            at=seen.at,
            watched={} if judged == POSTGRESQL else {"success": 0.0, "latency": 0.0},
        )

    def _scores_differ(self, seen: Observation, shadow: Answer) -> bool:
        """Whether the stores score the same record, at the same seq, differently."""
        theirs = {hit.id: hit for hit in shadow.hits}
        for hit in seen.hits or ():
            other = theirs.get(hit.id)
            if other is None or other.seq != hit.seq:
                continue
            gap = abs(hit.score - other.score)
            # The scale costs a look at the store, so it is only worked out where it might matter.
            if not gap <= SCORE_TOLERANCE and not gap <= SCORE_TOLERANCE * self._scale(
                seen.query, seen.hits or (), seen.answered_by
            ):
                return True
        return False

    def _may_adjudicate(self) -> bool:
        now = time.monotonic()
        self._tokens = min(
            ADJUDICATIONS_PER_S_MAX,
            self._tokens + (now - self._refilled_at) * ADJUDICATIONS_PER_S_MAX,
        )
        self._refilled_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def _adjudicate(
        self, seen: Observation, shadow: Answer | None, judged: str
    ) -> Adjudication | None:
        if shadow is None or not self._may_adjudicate():
            return None
        try:
            return self._held_against_exact(seen, shadow, judged)
        except (StoreUnavailable, VectorStoreError):
            return None

    def _held_against_exact(self, seen: Observation, shadow: Answer, judged: str) -> Adjudication:
        ours, theirs = self._stores.by_name(seen.answered_by), self._stores.by_name(judged)
        wide = replace(seen.query, timeout_ms=self._mirror.timeout_ms * 10)
        our_exact, their_exact = ours.search_exact(wide), theirs.search_exact(wide)
        struck = self._struck(
            seen.applied_seq, shadow.applied_seq, our_exact.applied_seq, their_exact.applied_seq
        )
        if struck:
            wide = replace(wide, k=min(seen.query.k + len(struck), 1000))
            our_exact, their_exact = ours.search_exact(wide), theirs.search_exact(wide)
        ids = sorted(
            {
                hit.id
                for hits in (seen.hits or (), shadow.hits, our_exact.hits, their_exact.hits)
                for hit in hits
            }
        )
        our_rows, their_rows = _versions(ours.get(ids)), _versions(theirs.get(ids))
        return adjudicate(
            Case(
                k=seen.query.k,
                tolerance=self._tolerance(seen),
                primary=_scored(seen.hits or ()),
                shadow=_scored(shadow.hits),
                primary_exact=_scored(our_exact.hits),
                shadow_exact=_scored(their_exact.hits),
                facts={name: RowFacts(our_rows.get(name), their_rows.get(name)) for name in ids},
                struck=struck,
            )
        )

    def _detail(
        self,
        seen: Observation,
        shadow: Answer | None,
        recall: float,
        latency_ms: float,
        causes: Mapping[str, int],
    ) -> dict[str, Any]:
        return {
            "label": seen.query.label,
            "k": seen.query.k,
            "at": seen.at,
            "recall": recall,
            "causes": dict(causes),
            "answered_by": seen.answered_by,
            "primary_hits": _shown(seen.hits or ()),
            "shadow_hits": _shown(shadow.hits if shadow else ()),
            "primary_ms": seen.latency_ms,
            "shadow_ms": None if math.isinf(latency_ms) else latency_ms,
        }


def _scored(hits: Sequence[Hit]) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in hits]


def _shown(hits: Sequence[Hit]) -> list[tuple[str, float, str]]:
    return [(hit.id, hit.score, hit.text[:TEXT_EXCERPT_MAX]) for hit in hits]


def _versions(records: Sequence[Record]) -> dict[str, RowVersion]:
    return {r.id: RowVersion(r.seq, f"{row_digest(r, 'crc32c'):016x}") for r in records}
