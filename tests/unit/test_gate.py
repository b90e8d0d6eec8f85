"""The gate: what passes, what holds, what is undecided, and what it says about it."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import pytest

from shadow.core.gate import (
    FigureCounts,
    GateInputs,
    GateThresholds,
    Hold,
    LatencyRatio,
    Pass,
    Undecided,
    Verdict,
    evaluate,
    merge,
)
from vectorstore.errors import ConfigurationError

THRESHOLDS = GateThresholds(distinct_queries_min=50, duration_s_min=3600.0)
GOOD = {1.0: 480, 0.9: 20}
INPUTS = GateInputs(
    figures=(
        FigureCounts("recall@10", "all", 0.95, GOOD),
        FigureCounts("within 50 ms", "all", 0.95, {1.0: 500}),
    ),
    distinct_queries=300,
    elapsed_s=7200.0,
    sampled=500,
    dropped=0,
    lag_entries={"faiss": 0, "postgresql": 0},
    verify_age_s=600.0,
    verify_clean=True,
    change_alarm=False,
)


def judged(**changes: Any) -> Verdict:
    return evaluate(dataclasses.replace(INPUTS, **changes), THRESHOLDS)


def test_enough_good_evidence_passes() -> None:
    """Everything shown is a Pass that carries the figures it rests on."""
    verdict = judged()
    assert isinstance(verdict, Pass)
    first = verdict.figures[0]
    assert (first.name, first.stratum, first.queries, first.passed) == (
        "recall@10",
        "all",
        500,
        True,
    )
    assert first.mean == pytest.approx(0.996)
    assert 0.95 < first.lower_bound < 0.996 < first.upper_bound
    assert first.queries_needed == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dropped": 26}, r"26 of 500 sampled queries \(5.2%\) were dropped; at most 5.0% may be"),
        ({"lag_entries": {"faiss": 0, "postgresql": 12}}, "postgresql lags by 12 journal entries"),
        ({"verify_clean": False}, "verify found differences"),
        ({"change_alarm": True}, "change detector"),
        (
            {"figures": (FigureCounts("recall@10", "all", 0.95, {1.0: 400, 0.0: 100}),)},
            r"recall@10 \(all\): at most 0.8\d+ with 95% confidence over 500 queries",
        ),
        (
            {"ratio": LatencyRatio({10.0: 2000}, {25.0: 2000}, 0.95, 2.0)},
            "latency p95: more than 2 times",
        ),
    ],
)
def test_evidence_against_it_holds(changes: dict[str, Any], said: str) -> None:
    """Each thing that the evidence denies is a Hold by itself, in a sentence with its figures."""
    verdict = judged(**changes)
    assert isinstance(verdict, Hold)
    assert len(verdict.reasons) == 1
    assert re.search(said, verdict.reasons[0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"figures": ()}, "no figure is declared"),
        ({"sampled": 0}, "no query has been sampled"),
        ({"distinct_queries": 1}, "49 more different queries: 1 of 50 so far"),
        ({"elapsed_s": 1800.0}, "more time: 0.5 h of 1.0 h"),
        ({"elapsed_s": math.nan}, "more time"),
        ({"lag_entries": {}}, "the lag of both stores must be known; known so far: none"),
        ({"lag_entries": {"faiss": 0}}, "known so far: faiss"),
        ({"verify_age_s": None}, "none has been made"),
        ({"verify_age_s": None, "verify_clean": None}, "none has been made"),
        ({"verify_clean": None}, "could not"),
        ({"verify_age_s": 90_000.0}, "the last is 25.0 h old, at most 24.0 h"),
        ({"verify_age_s": math.nan}, "newer verify"),
        ({"verify_age_s": -3_600.0}, "newer verify: the last was stamped 1.0 h ahead of now"),
        (
            {"ratio": LatencyRatio({10.0: 20}, {10.0: 20}, 0.95, 2.0)},
            "latency p95: not yet shown",
        ),
    ],
)
def test_what_is_not_known_is_undecided(changes: dict[str, Any], said: str) -> None:
    """Each missing piece is Undecided by itself and names what is needed."""
    verdict = judged(**changes)
    assert isinstance(verdict, Undecided)
    assert len(verdict.needs) == 1
    assert said in verdict.needs[0]


def test_too_few_queries_say_how_many_more() -> None:
    """50 perfect queries lack 35, and the need says so."""
    verdict = judged(figures=(FigureCounts("recall@10", "all", 0.95, {1.0: 50}),))
    assert isinstance(verdict, Undecided)
    assert verdict.figures[0].queries_needed == 35
    assert "recall@10 (all): about 35 more queries like the 50 so far" in verdict.needs[0]


def test_a_mean_on_the_threshold_promises_nothing() -> None:
    """Where more of the same would not pass, no number of queries is announced."""
    verdict = judged(figures=(FigureCounts("recall@10", "all", 0.95, {0.95: 100}),))
    assert isinstance(verdict, Undecided)
    assert "more queries like these would not pass" in verdict.needs[0]


def test_a_declared_stratum_without_traffic_is_named() -> None:
    """A good pool does not average away a stratum that nobody has tried."""
    empty = FigureCounts("recall@10", "filtered", 0.95, {})
    verdict = judged(figures=(*INPUTS.figures, empty))
    assert isinstance(verdict, Undecided)
    assert verdict.needs == (
        "recall@10 (filtered): no traffic yet; at least 85 queries are needed, "
        "if all of them are perfect",
    )


def test_one_bad_stratum_holds_all() -> None:
    """The gate is the AND over strata: 10,000 good queries do not outweigh a bad stratum."""
    bad = FigureCounts("recall@10", "filtered", 0.95, {0.5: 100})
    verdict = judged(figures=(FigureCounts("recall@10", "all", 0.95, {1.0: 10_000}), bad))
    assert isinstance(verdict, Hold)
    assert "(filtered)" in verdict.reasons[0]


def test_eighty_five_identical_health_checks_do_not_pass() -> None:
    """Enough queries that are all the same one are not enough."""
    verdict = judged(
        figures=(FigureCounts("recall@10", "all", 0.95, {1.0: 85}),), distinct_queries=1
    )
    assert isinstance(verdict, Undecided)


def test_dropped_queries_count_as_misses_even_below_the_drop_limit() -> None:
    """4 % lost observations, counted with value 0, turn a pass at .97 into something else."""
    lost = merge({1.0: 480}, {0.0: 20})
    figures = (FigureCounts("recall@10", "all", 0.97, lost),)
    assert not isinstance(judged(figures=figures, dropped=20), Pass)
    assert isinstance(judged(figures=(FigureCounts("recall@10", "all", 0.97, {1.0: 500}),)), Pass)


def test_a_hold_also_lists_what_is_open() -> None:
    """Reasons come first; needs are told besides, so that nobody fixes one thing at a time."""
    verdict = judged(change_alarm=True, distinct_queries=0)
    assert isinstance(verdict, Hold)
    assert len(verdict.reasons) == 1
    assert len(verdict.needs) == 1


def test_a_latency_ratio_that_is_shown_passes() -> None:
    """The ratio is carried in the verdict with its bounds."""
    verdict = judged(ratio=LatencyRatio({10.0: 2000}, {15.0: 2000}, 0.95, 2.0))
    assert isinstance(verdict, Pass)
    assert verdict.ratio is not None
    assert verdict.ratio.shadow == (15.0, 15.0)


def test_an_automatic_flip_asks_for_more() -> None:
    """What passes at alpha .05 with 85 queries does not pass at .01."""
    figures = (FigureCounts("recall@10", "all", 0.95, {1.0: 90}),)
    inputs = dataclasses.replace(INPUTS, figures=figures)
    assert isinstance(evaluate(inputs, THRESHOLDS), Pass)
    strict = dataclasses.replace(THRESHOLDS, alpha=0.01)
    assert isinstance(evaluate(inputs, strict), Undecided)


@pytest.mark.parametrize(
    "bad",
    [
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"alpha": math.nan},
        {"distinct_queries_min": 0},
        {"duration_s_min": -1.0},
        {"drops_share_max": 1.0},
        {"verify_age_s_max": 0.0},
        {"lag_entries_max": -1},
    ],
)
def test_thresholds_that_mean_nothing_are_refused(bad: dict[str, Any]) -> None:
    """The error names the threshold."""
    with pytest.raises(ConfigurationError, match=next(iter(bad))):
        dataclasses.replace(THRESHOLDS, **bad)
