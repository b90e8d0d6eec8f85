"""Properties of the gate's statistics for any counts."""

from __future__ import annotations

import math
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from shadow.core import bounded_mean

counts_of = st.dictionaries(
    st.integers(0, 10).map(lambda hits: hits / 10), st.integers(0, 300), max_size=11
)
thresholds = st.floats(0.05, 0.99)


@given(st.lists(counts_of, min_size=1, max_size=6), st.randoms(), thresholds)
def test_merging_in_any_order_gives_the_same_evidence(
    parts: list[dict[float, int]], random: Random, threshold: float
) -> None:
    """Counts of many processes merge to bit-equal evidence, in any order and grouping."""
    shuffled = list(parts)
    random.shuffle(shuffled)
    half = len(parts) // 2
    merged = bounded_mean.merge(*parts)
    regrouped = bounded_mean.merge(
        bounded_mean.merge(*shuffled[:half]), bounded_mean.merge(*shuffled[half:])
    )
    assert merged == regrouped
    backwards = dict(reversed(list(regrouped.items())))
    assert bounded_mean.log_evidence(merged, threshold) == bounded_mean.log_evidence(
        backwards, threshold
    )


@given(counts_of, thresholds, st.floats(0, 0.5))
def test_evidence_falls_as_the_threshold_rises(
    counts: dict[float, int], threshold: float, more: float
) -> None:
    """What passes a threshold passes every lower one."""
    higher = min(threshold + more, 0.999)
    assert bounded_mean.log_evidence(counts, higher) <= (
        bounded_mean.log_evidence(counts, threshold) + 1e-9
    )


@given(counts_of, thresholds)
def test_a_better_observation_never_weakens_the_evidence(
    counts: dict[float, int], threshold: float
) -> None:
    """A perfect query raises the evidence, a missed one lowers it."""
    before = bounded_mean.log_evidence(counts, threshold)
    better = bounded_mean.log_evidence(bounded_mean.merge(counts, {1.0: 1}), threshold)
    worse = bounded_mean.log_evidence(bounded_mean.merge(counts, {0.0: 1}), threshold)
    assert worse - 1e-9 <= before <= better + 1e-9


@settings(max_examples=50)
@given(counts_of, thresholds)
def test_bounds_agree_with_the_verdict_and_enclose_the_mean(
    counts: dict[float, int], threshold: float
) -> None:
    """Passing means a lower bound at or above the threshold, and the mean lies between the bounds."""
    low = bounded_mean.lower_bound(counts, 0.05)
    high = bounded_mean.upper_bound(counts, 0.05)
    mean = bounded_mean.mean(counts)
    if mean is not None:
        assert low - 1e-9 <= mean <= high + 1e-9
    if abs(low - threshold) > 1e-9:
        assert bounded_mean.passes(counts, threshold, 0.05) == (low > threshold)


@settings(max_examples=50)
@given(counts_of, thresholds)
def test_queries_needed_is_the_first_count_that_passes(
    counts: dict[float, int], threshold: float
) -> None:
    """0 if and only if passed; None only where the mean is not clearly above the threshold."""
    needed = bounded_mean.queries_needed(counts, threshold, 0.05)
    assert (needed == 0) == bounded_mean.passes(counts, threshold, 0.05)
    mean = bounded_mean.mean(counts)
    if mean is not None and mean <= threshold:
        assert needed is None
    if needed and mean is not None:
        n = sum(counts.values())
        times = math.ceil((n + needed) / n)
        assert bounded_mean.passes({v: c * times for v, c in counts.items()}, threshold, 0.05)
