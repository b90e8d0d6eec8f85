"""The gate's test of a mean: figures, bounds, refusals, and what a simulation of it shows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import ville

from benchmarks import gate_simulation as simulation
from shadow.core import bounded_mean
from vectorstore.errors import ConfigurationError, InvalidInput


def reference_log_evidence(values: list[float], threshold: float) -> float:
    """The formula, one observation and one bet at a time."""
    wealths = []
    for j in range(1, 17):
        wealth = 1.0
        for value in values:
            wealth *= 1.0 + j / (16 * threshold) * (value - threshold)
        wealths.append(wealth)
    return math.log(sum(wealths) / 16)


def test_evidence_is_the_average_wealth_of_sixteen_bets() -> None:
    """Counts give the same evidence as the formula applied to each observation in turn."""
    values = [1.0] * 30 + [0.9] * 5 + [0.0]
    counts = {1.0: 30, 0.9: 5, 0.0: 1}
    assert bounded_mean.log_evidence(counts, 0.95) == pytest.approx(
        reference_log_evidence(values, 0.95), abs=1e-12
    )


def test_no_observation_is_no_evidence() -> None:
    """An empty count has evidence 1, passes nothing and bounds nothing."""
    assert bounded_mean.log_evidence({}, 0.95) == pytest.approx(0.0, abs=1e-12)
    assert not bounded_mean.passes({}, 0.95, 0.05)
    assert bounded_mean.lower_bound({}, 0.05) == 0.0
    assert bounded_mean.upper_bound({}, 0.05) == 1.0
    assert bounded_mean.mean({}) is None


@pytest.mark.parametrize(("alpha", "queries"), [(0.05, 85), (0.01, 122)])
def test_perfect_queries_pass_after_a_known_number(alpha: float, queries: int) -> None:
    """85 perfect queries show a mean above .95 at alpha .05 (122 at .01), and one less does not."""
    assert not bounded_mean.passes({1.0: queries - 1}, 0.95, alpha)
    assert bounded_mean.passes({1.0: queries}, 0.95, alpha)
    assert bounded_mean.queries_needed({}, 0.95, alpha) == queries
    assert bounded_mean.queries_needed({1.0: 50}, 0.95, alpha) == queries - 50


def test_queries_needed_is_exact_for_more_of_the_same() -> None:
    """With the announced number of queries it passes, and with one less it does not."""
    counts = {1.0: 90, 0.9: 8, 0.5: 2}
    needed = bounded_mean.queries_needed(counts, 0.96, 0.05)
    assert needed is not None
    assert needed > 0
    n = 100 + needed
    assert scaled_evidence(counts, 0.96, n / 100) >= math.log(20)
    assert scaled_evidence(counts, 0.96, (n - 1) / 100) < math.log(20)


def scaled_evidence(counts: dict[float, int], threshold: float, factor: float) -> float:
    logs = (
        bounded_mean.log_factors(list(counts), threshold) * np.array(list(counts.values()))
    ).sum(axis=1) * factor
    return float(np.log(np.exp(logs).mean()))


@pytest.mark.parametrize("counts", [{0.95: 100}, {0.9: 1000}, {1.0: 94, 0.0: 6}, {0.0: 3}])
def test_a_mean_at_or_below_the_threshold_never_gets_there(counts: dict[float, int]) -> None:
    """No number of queries is announced where more of the same cannot pass."""
    assert bounded_mean.queries_needed(counts, 0.95, 0.05) is None


def test_the_lower_bound_is_the_highest_threshold_that_passes() -> None:
    """Just below the bound the counts pass, just above they do not; the upper bound mirrors it."""
    counts = {1.0: 400, 0.9: 40, 0.0: 4}
    bound = bounded_mean.lower_bound(counts, 0.05)
    assert bounded_mean.passes(counts, bound - 1e-9, 0.05)
    assert not bounded_mean.passes(counts, bound + 1e-9, 0.05)
    mirrored = {1.0 - value: n for value, n in counts.items()}
    assert bounded_mean.upper_bound(counts, 0.05) == pytest.approx(
        1.0 - bounded_mean.lower_bound(mirrored, 0.05), abs=1e-9
    )
    mean = bounded_mean.mean(counts)
    assert mean is not None
    assert bound < mean < bounded_mean.upper_bound(counts, 0.05)


def test_extreme_counts_stay_finite_or_minus_infinite_but_never_nan() -> None:
    """A thousand million misses, or hits, neither overflow nor turn into NaN."""
    assert bounded_mean.log_evidence({0.0: 10**9}, 0.95) < -1e6
    assert bounded_mean.log_evidence({1.0: 10**9}, 0.95) > 1e6
    assert bounded_mean.lower_bound({1.0: 10**9}, 0.05) > 0.9999999


@pytest.mark.parametrize(
    "counts", [{1.1: 1}, {-0.1: 1}, {float("nan"): 1}, {0.5: -1}, {0.2: 1, float("nan"): 1}]
)
def test_impossible_observations_are_refused(counts: dict[float, int]) -> None:
    """Values outside [0, 1], NaN and negative counts are errors, not evidence."""
    with pytest.raises(InvalidInput):
        bounded_mean.log_evidence(counts, 0.95)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0, 2.0, float("nan")])
def test_a_threshold_that_proves_nothing_is_refused(threshold: float) -> None:
    """Thresholds of 0 and 1, beyond them and NaN are configuration errors."""
    with pytest.raises(ConfigurationError, match="threshold"):
        bounded_mean.log_evidence({1.0: 1}, threshold)
    with pytest.raises(ConfigurationError, match="alpha"):
        bounded_mean.passes({1.0: 1}, 0.95, threshold)


def test_an_independent_betting_test_agrees_on_clear_streams() -> None:
    """`ville`, which bets adaptively, rejects and keeps the same clear streams as this test.

    Its lower confidence bound and ours differ by less than the width that either leaves open.
    """
    random = np.random.default_rng(5)
    for mean, expected in ((0.99, True), (0.90, False)):
        values = 1 - random.binomial(10, 1 - mean, size=800) / 10
        counts = {
            float(v): int(n) for v, n in zip(*np.unique(values, return_counts=True), strict=True)
        }
        theirs = ville.BettingTest(0.95, alternative="greater", alpha=0.05).fit(values)
        assert bool(theirs.rejected_) is expected
        assert bounded_mean.passes(counts, 0.95, 0.05) is expected
        interval = ville.BettingCS(alpha=0.1).fit(values).interval()
        ours = bounded_mean.lower_bound(counts, 0.05)
        assert abs(ours - interval[0]) < 0.01


@pytest.mark.parametrize(("mean", "expected"), [(0.95, 0.046), (0.949, 0.020), (0.94, 0.0005)])
def test_false_passes_stay_below_alpha_under_peeking(mean: float, expected: float) -> None:
    """1,000 streams, looked at after each of 10,000 queries, pass falsely about as often as DESIGN says.

    The tolerance is four standard errors of the simulation.
    """
    streams = 1000
    gate = simulation.run_gate(np.full(10_000, mean), streams=streams, seed=11)
    error = math.sqrt(expected * (1 - expected) / streams)
    assert gate.false_share == pytest.approx(expected, abs=4 * error + 0.002)
    assert gate.false_share <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / streams)


@pytest.mark.parametrize(
    ("mean", "lumped", "expected"),
    [
        (1.0, False, 85),
        (0.99, False, 106),
        (0.98, False, 154),
        (0.97, False, 278),
        (0.96, False, 1019),
        (0.99, True, 135),
        (0.98, True, 245),
        (0.97, True, 600),
    ],
)
def test_median_queries_to_pass(mean: float, lumped: bool, expected: int) -> None:
    """Good streams pass after the announced number of queries, within 10 %."""
    gate = simulation.run_gate(np.full(6000, mean), streams=1500, seed=12, all_or_nothing=lumped)
    assert gate.median_queries == pytest.approx(expected, rel=0.10)


@pytest.mark.parametrize("kind", simulation.STREAM_KINDS)
def test_drifting_traffic_does_not_pass_while_its_running_mean_is_low(kind: str) -> None:
    """Constant, decaying, bursty and daily-cycle streams pass falsely in at most alpha of the runs."""
    gate = simulation.run_gate(simulation.stream_means(kind, 5000), streams=800, seed=13)
    assert gate.false_share <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 800)


def test_a_gate_without_this_test_is_fooled_by_peeking() -> None:
    """`mean >= threshold with n >= 100` passes nearly every stream that is only just bad enough."""
    assert simulation.run_naive(np.full(10_000, 0.95), streams=300, seed=14) > 0.9


def test_the_simulation_is_the_real_gate() -> None:
    """One simulated stream, replayed through log_evidence, first passes at the same query."""
    means = np.full(600, 0.985)
    gate = simulation.run_gate(means, streams=1, seed=15)
    random = np.random.default_rng(15)
    edges = np.cumsum(simulation.miss_distribution(0.985))[:-1]
    counts: dict[float, int] = {}
    first = 0
    for query in range(600):
        misses = int(np.searchsorted(edges, random.random(1), side="right")[0])
        value = (10 - misses) / 10
        counts[value] = counts.get(value, 0) + 1
        if not first and bounded_mean.passes(counts, 0.95, 0.05):
            first = query + 1
    assert first == gate.first_pass[0] > 0
