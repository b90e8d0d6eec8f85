"""Properties of the gate for any evidence."""

from __future__ import annotations

import dataclasses
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from shadow.core.gate import (
    FigureCounts,
    GateInputs,
    GateThresholds,
    Hold,
    Pass,
    Undecided,
    evaluate,
    merge,
)

counts_of = st.dictionaries(st.sampled_from([0.0, 0.5, 0.9, 1.0]), st.integers(0, 200), max_size=4)
figures = st.lists(
    st.builds(
        FigureCounts,
        st.sampled_from(["recall@10", "top-1"]),
        st.sampled_from(["all", "filtered"]),
        st.sampled_from([0.5, 0.9]),
        counts_of,
    ),
    max_size=3,
).map(tuple)
inputs_of = st.builds(
    GateInputs,
    figures=figures,
    distinct_queries=st.integers(0, 100),
    elapsed_s=st.floats(0, 10_000),
    sampled=st.integers(0, 500),
    dropped=st.integers(0, 30),
    lag_entries=st.dictionaries(
        st.sampled_from(["faiss", "postgresql"]), st.integers(0, 1), max_size=2
    ),
    verify_age_s=st.none() | st.floats(-100_000, 100_000),
    verify_clean=st.sampled_from([None, True, False]),
    change_alarm=st.booleans(),
)
THRESHOLDS = GateThresholds(distinct_queries_min=20, duration_s_min=60.0)


@settings(max_examples=60)
@given(st.lists(counts_of, min_size=1, max_size=5), st.randoms())
def test_the_order_in_which_processes_are_merged_changes_nothing(
    parts: list[dict[float, int]], random: Random
) -> None:
    """Merging the counts of many processes in any order gives the same verdict, to the last bit."""
    base = GateInputs(
        figures=(),
        distinct_queries=100,
        elapsed_s=100.0,
        sampled=1000,
        dropped=0,
        lag_entries={"faiss": 0, "postgresql": 0},
        verify_age_s=1.0,
        verify_clean=True,
        change_alarm=False,
    )
    shuffled = list(parts)
    random.shuffle(shuffled)
    verdicts = [
        evaluate(
            dataclasses.replace(
                base, figures=(FigureCounts("recall@10", "all", 0.9, merge(*order)),)
            ),
            THRESHOLDS,
        )
        for order in (parts, shuffled)
    ]
    assert verdicts[0] == verdicts[1]


@settings(max_examples=150)
@given(inputs_of)
def test_pass_means_that_every_part_is_shown(inputs: GateInputs) -> None:
    """Pass, Hold and Undecided say what they mean: no reason and no need, a reason, or a need."""
    verdict = evaluate(inputs, THRESHOLDS)
    everything = (
        len(verdict.figures) > 0
        and all(figure.passed for figure in verdict.figures)
        and inputs.distinct_queries >= 20
        and inputs.elapsed_s >= 60.0
        and inputs.sampled > 0
        and inputs.dropped <= 0.05 * inputs.sampled
        and sorted(inputs.lag_entries.values()) == [0, 0]
        and inputs.verify_clean is True
        and inputs.verify_age_s is not None
        and 0.0 <= inputs.verify_age_s <= 86_400
        and not inputs.change_alarm
    )
    assert isinstance(verdict, Pass) == everything
    if isinstance(verdict, Hold):
        assert verdict.reasons
    if isinstance(verdict, Undecided):
        assert verdict.needs
