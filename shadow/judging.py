"""One mirrored query judged: ask the other store, compare, and find out who was wrong.

The live figure needs no second look at the data. A divergence is then adjudicated by exact scans of
both stores, within a budget; what the budget leaves over is counted as ``unjudged``. An audit sample,
drawn before the results are known, is held against the exact answer whether or not the stores agree:
two stores may agree and both be wrong.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from shadow.asking import Asker
from shadow.asking_process import Asked, AskingProcess
from shadow.asking_worker import TEXT_EXCERPT_MAX
from shadow.config import GateSettings, MirrorSettings
from shadow.core.adjudication import Adjudication
from shadow.core.comparison import Cause, Comparison, compare, missed
from shadow.core.phases import FAISS, POSTGRESQL
from shadow.core.strata import declared, strata_of
from shadow.evidence import Observed
from shadow.evidence_view import AUDIT_RECALL, EXACT_RECALL, end_to_end
from shadow.exact_scans import Allowance, ExactScans, Stores, scored
from shadow.observation import Observation
from shadow.writes.journal import Journal
from vectorstore.errors import DeadlineExceeded
from vectorstore.types import Answer, Hit, Metric, Query

__all__ = ["UNJUDGED", "WRONG_SCORES", "QueryJudge"]

UNJUDGED = "unjudged"
WRONG_SCORES = "wrong_scores"

# Rounding of float32 sums of some thousand terms stays well below this; a wrong operator does not.
SCORE_TOLERANCE = 1e-4
ADJUDICATIONS_PER_S_MAX = 5.0
# Of their own, so that whether a query is audited or watched never depends on how others came out.
AUDITS_PER_S_MAX = 5.0


class QueryJudge:
    """Judges observations. ``draw``: uniform on [0, 1), anew for each query; decides on audits.

    ``adjudications_per_s_max``: a budget for the exact scans of divergent queries, and another one for
    the queries whose recall the change detector is told after the flip. ``asking``: the process that asks
    PostgreSQL for a busy mirror.
    """

    def __init__(
        self,
        *,
        stores: Stores,
        journal: Journal,
        metric: Metric,
        mirror: MirrorSettings,
        gate: GateSettings,
        adjudications_per_s_max: float = ADJUDICATIONS_PER_S_MAX,
        draw: Callable[[], float] = random.random,
        asking: AskingProcess | None = None,
    ) -> None:
        self._stores = stores
        self._asker = Asker(stores, timeout_ms=mirror.timeout_ms, process=asking)
        self._scans = ExactScans(
            stores=stores, journal=journal, metric=metric, timeout_ms=mirror.timeout_ms
        )
        self._mirror = mirror
        self._gate = gate
        self._strata = declared(gate.strata)
        self._adjudications = Allowance(adjudications_per_s_max)
        self._audits = Allowance(max(adjudications_per_s_max, AUDITS_PER_S_MAX))
        self._watches = Allowance(adjudications_per_s_max)
        self._draw = draw

    def judge_batch(self, batch: Sequence[Observation]) -> Iterator[Observed]:
        """Each of ``batch`` judged, in order, when it is taken."""
        ahead = self._asker.ask_ahead([one.query for one in batch if _is_for_postgresql(one)])
        for one in batch:
            yield self.judge(one, next(ahead, None) if _is_for_postgresql(one) else None)

    def judge(self, seen: Observation, asked: Asked | None = None) -> Observed:
        """What this query shows of the store that did not answer, and of the one that did.

        ``asked``: what came of it, if it was asked already.
        """
        judged = seen.judged
        if seen.hits is None:
            return self._failed_primary(seen, judged)
        audited = self._draw() < self._mirror.audit_rate and self._audits.take()
        watching = judged == FAISS and self._watches.take()
        if asked is None:
            asked = self._asker.ask(judged, seen.query)
        ours = Answer(list(seen.hits), seen.answered_by, seen.applied_seq)
        shadow: Answer | None = None
        reverse: Comparison | None = None
        wrong_scores = False
        latency_ms = math.inf
        if isinstance(asked.outcome, Answer):
            try:
                # Comparing may look rows up, so a store may fail here too.
                comparison = self._compare(seen.query, ours, asked.outcome)
                if watching:
                    reverse = self._compare(seen.query, asked.outcome, ours)
                wrong_scores = self._scores_differ(seen, asked.outcome)
                shadow, latency_ms = asked.outcome, asked.latency_ms
            except Exception as error:  # noqa: BLE001 - as if the search had failed
                comparison = missed(seen.query.k, _cause(error))
        else:
            comparison = missed(seen.query.k, _cause(asked.outcome))
        return self._observed(
            seen,
            ours,
            shadow,
            judged,
            comparison,
            latency_ms,
            reverse=reverse,
            audited=audited,
            wrong_scores=wrong_scores,
            # There is nothing to see in a query that was not asked, and an outage has thousands: they
            # would push what did diverge off the list of the worst.
            listed=not asked.left_alone,
        )

    def _compare(self, query: Query, reference: Answer, other: Answer) -> Comparison:
        struck = self._scans.struck(reference.applied_seq, other.applied_seq)
        same = not struck and [hit.id for hit in reference.hits] == [hit.id for hit in other.hits]
        return compare(
            scored(reference.hits),
            scored(other.hits),
            k=query.k,
            tolerance=0.0
            if same
            else self._scans.tolerance(query, reference.hits, reference.store),
            live=lambda record_id: bool(self._stores.by_name(reference.store).get([record_id])),
            struck=struck,
        )

    def _observed(
        self,
        seen: Observation,
        ours: Answer,
        shadow: Answer | None,
        judged: str,
        comparison: Comparison,
        latency_ms: float,
        *,
        reverse: Comparison | None,
        audited: bool,
        wrong_scores: bool,
        listed: bool,
    ) -> Observed:
        causes: dict[str, int] = {}
        recall = 0.0 if wrong_scores else comparison.recall
        figures = {
            "recall": recall,
            "top1": float(comparison.top1_agrees and not wrong_scores),
            "success": float(shadow is not None),
            **self._in_time(seen, latency_ms),
        }
        exact: dict[tuple[str, str], float] = {}
        found: Adjudication | None = None
        if shadow is None:
            causes[str(comparison.cause)] = comparison.expected
            if audited:
                exact[judged, AUDIT_RECALL] = 0.0
        else:
            divergent = recall < 1.0 and not wrong_scores
            doubted = audited or (reverse is not None and reverse.recall < 1.0)
            if doubted or (divergent and self._adjudications.take()):
                found = self._scans.judged(seen.query, ours, shadow)
            if wrong_scores:
                causes[WRONG_SCORES] = max(comparison.expected, 1)
            elif divergent and found is None:
                causes[UNJUDGED] = max(len(comparison.missing), 1)
            if found is not None:
                if divergent:
                    causes.update({cause.value: n for cause, n in found.causes.items()})
                    exact |= _recalls(EXACT_RECALL, seen.answered_by, judged, found)
                if audited:
                    exact |= _recalls(AUDIT_RECALL, seen.answered_by, judged, found)
        watched = {name: value for name, value in figures.items() if name != "top1"}
        if judged == FAISS:
            watched = {"success": 1.0, **self._in_time(seen, seen.latency_ms)}
            watched |= _own_recall(reverse, found)
        return Observed(
            judged=judged,
            figures=figures,
            strata=self._strata_of(seen),
            latencies_ms=_latencies(seen, judged, latency_ms),
            query_digest=_digest(seen),
            at=seen.at,
            causes=causes,
            watched=watched,
            exact=exact,
            detail=_detail(seen, shadow, recall, latency_ms, causes)
            if listed and recall < 1.0
            else None,
        )

    def _failed_primary(self, seen: Observation, judged: str) -> Observed:
        """The primary failed: nothing to compare with, and an error of the primary's own."""
        return Observed(
            judged=judged,
            figures={},
            strata=self._strata_of(seen),
            latencies_ms={seen.answered_by: math.inf},
            query_digest=_digest(seen),
            at=seen.at,
            watched={} if judged == POSTGRESQL else {"success": 0.0, "latency": 0.0},
        )

    def _in_time(self, seen: Observation, latency_ms: float) -> dict[str, float]:
        """Whether the budget was met; nothing if it counts a time that the application did not tell."""
        spent_ms: float | None = 0.0
        if self._gate.latency_scope == "end_to_end":
            spent_ms = seen.query.spent_ms
        if spent_ms is None:
            return {}
        return {"latency": float(spent_ms + latency_ms <= self._gate.latency_budget_ms)}

    def _strata_of(self, seen: Observation) -> tuple[str, ...]:
        query = seen.query
        return strata_of(
            self._strata, k=query.k, filtered=query.filter is not None, label=query.label
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
            if not gap <= SCORE_TOLERANCE and not gap <= SCORE_TOLERANCE * self._scans.scale(
                seen.query, seen.hits or (), seen.answered_by
            ):
                return True
        return False


def _is_for_postgresql(seen: Observation) -> bool:
    return seen.hits is not None and seen.judged == POSTGRESQL


def _cause(error: Exception) -> Cause:
    return Cause.TIMEOUT if isinstance(error, DeadlineExceeded) else Cause.ERROR


def _recalls(
    figure: str, primary: str, shadow: str, found: Adjudication
) -> dict[tuple[str, str], float]:
    both = {(primary, figure): found.primary_recall, (shadow, figure): found.shadow_recall}
    return {key: recall for key, recall in both.items() if recall is not None}


def _own_recall(reverse: Comparison | None, found: Adjudication | None) -> dict[str, float]:
    """PostgreSQL's recall where it answered, for the change detector; nothing where nobody can tell.

    ``reverse``: its answer held against FAISS's, as before the flip. Where it seems to lack something the
    exact answer has the last word: a fault of FAISS is no reason to go back to it.
    """
    if reverse is None:
        return {}
    if reverse.recall == 1.0:
        return {"recall": 1.0}
    if found is None or found.primary_recall is None:
        return {}
    return {"recall": max(reverse.recall, found.primary_recall)}


def _latencies(seen: Observation, judged: str, latency_ms: float) -> dict[str, float]:
    """By store; and end to end, if the application says what it spent before the search."""
    own = {seen.answered_by: seen.latency_ms, judged: latency_ms}
    spent_ms = seen.query.spent_ms
    if spent_ms is None:
        return own
    return own | {end_to_end(store): spent_ms + ms for store, ms in own.items()}


def _digest(seen: Observation) -> bytes:
    """Two queries are the same if vector, k and filter are."""
    text = f"{seen.query.k} {seen.query.filter}".encode()
    return blake2b(seen.query.vector.tobytes() + text, digest_size=8).digest()


def _detail(
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


def _shown(hits: Sequence[Hit]) -> list[tuple[str, float, str]]:
    return [(hit.id, hit.score, hit.text[:TEXT_EXCERPT_MAX]) for hit in hits]
