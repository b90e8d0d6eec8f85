"""Simulated traffic through the gate's statistics: false passes, queries to pass, change detection.

Run ``python -m benchmarks.gate_simulation``; the tests use the same functions with fewer streams.
The bets come from ``shadow.core``; only the loop over queries is written for many streams at once.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shadow.core import bounded_mean, change_detector

__all__ = [
    "STREAM_KINDS",
    "Detection",
    "Gate",
    "detect",
    "main",
    "miss_distribution",
    "run_gate",
    "run_naive",
    "stream_means",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

K = 10
THRESHOLD = 0.95
ALPHA = 0.05
STREAM_KINDS = ("constant", "decaying", "bursty", "daily cycle")


def miss_distribution(mean: float, *, all_or_nothing: bool = False) -> Floats:
    """Chance of 0..k misses, shape (k + 1,), with the given mean recall.

    Misses of one query come together: BetaBinomial(k, 2(1 - mean), 2 mean), or all k or none.
    """
    chances = np.zeros(K + 1)
    if mean >= 1.0 or all_or_nothing:
        chances[0], chances[K] = mean, 1.0 - mean
        return chances
    a, b = 2.0 * (1.0 - mean), 2.0 * mean
    for misses in range(K + 1):
        chances[misses] = math.comb(K, misses) * math.exp(
            math.lgamma(a + misses)
            + math.lgamma(b + K - misses)
            - math.lgamma(a + b + K)
            - math.lgamma(a)
            - math.lgamma(b)
            + math.lgamma(a + b)
        )
    return chances


def stream_means(kind: str, queries: int) -> Floats:
    """True mean recall of each query, shape (queries,), of the four kinds of traffic.

    Constant, bursty and the daily cycle keep the running mean at or below the threshold throughout;
    the decaying stream starts above and falls below it half way.
    """
    at = np.arange(queries)
    if kind == "constant":
        return np.full(queries, THRESHOLD)
    if kind == "decaying":
        return np.asarray(0.97 - 0.04 * np.minimum(at / (queries / 2), 1.0))
    if kind == "bursty":
        return np.where(at % 500 < 50, 0.59, 0.99)
    if kind == "daily cycle":
        return np.asarray(THRESHOLD - 0.04 * np.sin(2 * np.pi * at / 1000))
    raise ValueError(f"no stream is called {kind!r}; there are {', '.join(STREAM_KINDS)}")


@dataclass(frozen=True)
class Gate:
    """What the gate said: the first pass of each stream (0: none), and which passes were false."""

    first_pass: Ints
    false_pass: npt.NDArray[np.bool_]

    @property
    def false_share(self) -> float:
        """Share of streams that ever passed while the running mean was at or below the threshold."""
        return float(self.false_pass.mean())

    @property
    def median_queries(self) -> float:
        """Median queries to the first pass; infinite where most streams do not pass."""
        return float(np.median(np.where(self.first_pass > 0, self.first_pass, np.inf)))


def run_gate(
    means: Floats,
    *,
    streams: int,
    seed: int,
    threshold: float = THRESHOLD,
    alpha: float = ALPHA,
    all_or_nothing: bool = False,
) -> Gate:
    """Feed ``streams`` streams with the true means (queries,) and look after every query."""
    random = np.random.default_rng(seed)
    # At most 1e4 queries: then the wealths stay within float64 without logarithms.
    values = (K - np.arange(K + 1)) / K
    factors = np.exp(bounded_mean.log_factors(values, threshold)).T
    cumulative = _cumulative(means, all_or_nothing)
    at_or_below = np.cumsum(means) / np.arange(1, means.size + 1) <= threshold + 1e-12
    wealths = np.full((streams, bounded_mean.BETS), 1.0 / bounded_mean.BETS)
    first_pass = np.zeros(streams, dtype=np.int64)
    false_pass = np.zeros(streams, dtype=bool)
    false_possible = bool(at_or_below.any())
    for t in range(means.size):
        misses = np.searchsorted(cumulative[means[t]], random.random(streams), side="right")
        wealths *= factors[misses]
        passed = wealths.sum(axis=1) >= 1.0 / alpha
        first_pass[passed & (first_pass == 0)] = t + 1
        if at_or_below[t]:
            false_pass |= passed
        if not false_possible and first_pass.all():
            break
    return Gate(first_pass, false_pass)


def run_naive(means: Floats, *, streams: int, seed: int, queries_min: int = 100) -> float:
    """Share of streams that a gate of "mean >= threshold with n >= 100" ever lets pass."""
    random = np.random.default_rng(seed)
    cumulative = _cumulative(means, False)
    total = np.zeros(streams)
    passed = np.zeros(streams, dtype=bool)
    for t in range(means.size):
        misses = np.searchsorted(cumulative[means[t]], random.random(streams), side="right")
        total += (K - misses) / K
        if t + 1 >= queries_min:
            passed |= total >= THRESHOLD * (t + 1)
    return float(passed.mean())


@dataclass(frozen=True)
class Detection:
    """At which observation after the change each stream raised its alarm (0: it did not)."""

    delays: Ints

    @property
    def alarm_share(self) -> float:
        """Share of streams that raised an alarm."""
        return float((self.delays > 0).mean())

    @property
    def median_delay(self) -> float:
        """Median observations from the change to the alarm."""
        return float(np.median(np.where(self.delays > 0, self.delays, np.inf)))


def detect(
    *, before: float, after: float, m1: float, streams: int, queries: int, seed: int, quiet: int = 0
) -> Detection:
    """Run change detectors over ``quiet`` queries with mean ``before``, then ``queries`` of ``after``.

    Streams that alarm before the change are left out of the result.
    """
    random = np.random.default_rng(seed)
    means = np.concatenate([np.full(quiet, before), np.full(queries, after)])
    cumulative = _cumulative(means, False)
    bets = np.array(change_detector.BETS)
    allowed = 1.0 - m1
    surprise = np.arange(K + 1) / K / allowed - 1.0
    factors = 1.0 + surprise[:, None] * bets
    wealths = np.ones((streams, bets.size))
    alarm_at = np.zeros(streams, dtype=np.int64)
    for t in range(means.size):
        misses = np.searchsorted(cumulative[means[t]], random.random(streams), side="right")
        wealths = np.maximum(wealths, 1.0) * factors[misses]
        raised = (wealths.mean(axis=1) >= change_detector.ALARM) & (alarm_at == 0)
        alarm_at[raised] = t + 1
        # A raised alarm latches; its wealth is put back only so that it does not overflow here.
        wealths[raised] = 1.0
        if t >= quiet and alarm_at.all():
            break
    late = alarm_at[(alarm_at == 0) | (alarm_at > quiet)]
    return Detection(np.where(late > 0, late - quiet, 0))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables of docs/gate.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate_simulation")
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--queries", type=int, default=10_000, help="per stream, at most 10,000")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    streams, queries, seed = chosen.streams, min(chosen.queries, 10_000), chosen.seed
    print(
        f"{streams:,} streams of up to {queries:,} queries, peeking after every query; "
        f"k = {K}, threshold {THRESHOLD}, alpha {ALPHA}, seed {seed}\n"
    )
    print("| true mean | false passes |\n|---|---|")
    for mean in (0.95, 0.949, 0.94):
        gate = run_gate(np.full(queries, mean), streams=streams, seed=seed)
        print(f"| {mean} | {gate.false_share:.4f} |")
    naive = run_naive(np.full(queries, THRESHOLD), streams=streams, seed=seed)
    print(f"\nA gate of `mean >= threshold with n >= 100` at .95: {naive:.2f} false passes.\n")
    print("| stream | passes while the running mean <= threshold |\n|---|---|")
    for kind in STREAM_KINDS:
        gate = run_gate(stream_means(kind, queries), streams=streams, seed=seed)
        print(f"| {kind} | {gate.false_share:.4f} |")
    print("\n| true mean | median queries to pass | all-or-nothing misses |\n|---|---|---|")
    for mean in (1.0, 0.99, 0.98, 0.97, 0.96):
        constant = np.full(queries, mean)
        spread = run_gate(constant, streams=streams, seed=seed).median_queries
        lumped = run_gate(constant, streams=streams, seed=seed, all_or_nothing=True).median_queries
        print(f"| {mean} | {spread:.0f} | {lumped:.0f} |")
    print("\n| change (m1 = .95, alarm at 1e5) | median delay | alarms |\n|---|---|---|")
    for after in (0.90, 0.85):
        found = detect(
            before=0.98,
            after=after,
            m1=THRESHOLD,
            streams=streams,
            queries=3000,
            seed=seed,
            quiet=200,
        )
        print(f"| .98 to {after:.2f} | {found.median_delay:.0f} | {found.alarm_share:.4f} |")
    quiet = detect(
        before=0.96, after=0.96, m1=THRESHOLD, streams=streams, queries=queries, seed=seed
    )
    print(f"| none, .96 for {queries:,} queries | | {quiet.alarm_share:.4f} |")


def _cumulative(means: Floats, all_or_nothing: bool) -> dict[float, Floats]:
    # The last step is left out so that rounding can never point beyond k misses.
    return {
        mean: np.cumsum(miss_distribution(mean, all_or_nothing=all_or_nothing))[:-1]
        for mean in np.unique(means).tolist()
    }


if __name__ == "__main__":
    main()
