"""A test of "the mean of a bounded figure exceeds a threshold" that may be looked at at any time.

Every observation is a value in [0, 1]; the state is how often each value was seen. Sixteen bets
``lambda_j = j / (16 m)`` are made at once against the claim "the mean is at most m"; their average
wealth is the evidence E, and E reaches 1/alpha with a chance of at most alpha while the running mean
is at or below m, whatever the drift and however often one looks (Ville's inequality; the betting
martingales of Waudby-Smith and Ramdas, 2024; proof in docs/gate.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from vectorstore.errors import ConfigurationError, InvalidInput

__all__ = [
    "BETS",
    "log_evidence",
    "log_factors",
    "lower_bound",
    "mean",
    "merge",
    "passes",
    "queries_needed",
    "upper_bound",
]

Floats = npt.NDArray[np.float64]
# Value and how often it was seen, by rising value.
Rows = Sequence[tuple[float, float]]

BETS = 16
# At most k + 1 values and sixteen bets: plain floats are quicker than arrays.
_FRACTIONS = tuple(bet / BETS for bet in range(1, BETS + 1))
_LOG_BETS = math.log(BETS)
# 2^-40: far below what a report prints, reached in 40 halvings.
_PRECISION = 2.0**-40
_LOOKS_MAX = 100
_QUERIES_MAX = 10**12


def merge(*counts: Mapping[float, int]) -> dict[float, int]:
    """Sum of several counts; the order of the arguments and of their keys does not matter."""
    total: dict[float, int] = {}
    for part in counts:
        for value, n in part.items():
            total[value] = total.get(value, 0) + n
    return dict(sorted(total.items()))


def mean(counts: Mapping[float, int]) -> float | None:
    """The mean value, or None where nothing was counted."""
    n = sum(counts.values())
    return math.fsum(value * times for value, times in counts.items()) / n if n else None


def log_factors(values: Iterable[float] | Floats, threshold: float) -> Floats:
    """What one observation adds to the log wealth of each bet: shape (16, number of values).

    Raises ConfigurationError if the threshold is not between 0 and 1.
    """
    column = np.asarray(
        values if isinstance(values, np.ndarray) else list(values), dtype=np.float64
    )
    _check_threshold(threshold)
    fractions = np.array(_FRACTIONS)[:, None]
    # The last bet stakes everything: a value of 0 ends it, which is -inf and meant.
    with np.errstate(divide="ignore"):
        return np.asarray(np.log1p(fractions * (column / threshold - 1.0)))


def log_evidence(counts: Mapping[float, int], threshold: float) -> float:
    """Log of the evidence that the mean exceeds ``threshold``; 0 where nothing was counted.

    Raises InvalidInput for values outside [0, 1] or negative counts, ConfigurationError for a
    threshold that is not between 0 and 1.
    """
    return _log_evidence(_rows(counts), threshold)


def passes(counts: Mapping[float, int], threshold: float, alpha: float) -> bool:
    """Whether the evidence reaches 1/alpha, so that the mean may be said to exceed the threshold."""
    return log_evidence(counts, threshold) >= _log_target(alpha)


def lower_bound(counts: Mapping[float, int], alpha: float) -> float:
    """The highest threshold that the counts pass at ``alpha`` (to 2^-40); 0 where they pass none.

    The evidence falls as the threshold rises, because every factor is a function of value/threshold
    that does; so ``passes(counts, m, alpha)`` is ``m <= lower_bound(counts, alpha)``.
    """
    return _lower_bound(_rows(counts), alpha)


def upper_bound(counts: Mapping[float, int], alpha: float) -> float:
    """The bound of :func:`lower_bound` seen from above: the mean of 1 - value exceeds 1 - bound."""
    complement = [(1.0 - value, times) for value, times in reversed(_rows(counts))]
    return 1.0 - _lower_bound(complement, alpha)


def queries_needed(counts: Mapping[float, int], threshold: float, alpha: float) -> int | None:
    """How many more queries with the present distribution reach a pass; 0 if it is passed already.

    Without any observation: what a run of perfect ones takes, the least there can be. None if the
    mean is at or below the threshold, or so near above it that even the smallest bet loses.
    """
    rows = _rows(counts)
    target = _log_target(alpha)
    queries = math.fsum(times for _, times in rows)
    if not rows:
        growth = _weighted([(1.0, 1.0)], threshold)
    else:
        if _log_evidence(rows, threshold) >= target:
            return 0
        growth = _weighted([(value, times / queries) for value, times in rows], threshold)
    if max(growth) <= 0.0:
        return None

    # Convex in n, 0 at n = 0 and below the target at the present count: it crosses once.
    def reached(more: int) -> bool:
        return _log_mean_exp([each * (queries + more) for each in growth]) >= target

    most = 1
    while not reached(most):
        most *= 2
        if most > _QUERIES_MAX:
            return None
    least = most // 2
    while most - least > 1:
        middle = (least + most) // 2
        if reached(middle):
            most = middle
        else:
            least = middle
    return most


def _rows(counts: Mapping[float, int]) -> list[tuple[float, float]]:
    # Sorted, so that equal counts give bit-equal evidence in whatever order they were merged.
    rows = sorted(counts.items())
    for value, n in rows:
        # Written so that a NaN is refused.
        if not 0.0 <= value <= 1.0:
            raise InvalidInput(f"the values of a bounded figure lie in [0, 1]; got {value!r}")
        if n < 0:
            raise InvalidInput("a count of observations is negative; counts only ever grow")
    return [(value, float(n)) for value, n in rows if n]


def _weighted(rows: Rows, threshold: float) -> list[float]:
    """The log wealth of each bet."""
    _check_threshold(threshold)
    steps = [(value / threshold - 1.0, times) for value, times in rows]
    wealths = []
    for fraction in _FRACTIONS:
        wealth = 0.0
        for step, times in steps:
            stake = fraction * step
            # The last bet stakes everything: a value of 0 ends it.
            wealth += times * math.log1p(stake) if stake > -1.0 else -math.inf
        wealths.append(wealth)
    return wealths


def _log_evidence(rows: Rows, threshold: float) -> float:
    return _log_mean_exp(_weighted(rows, threshold))


def _log_mean_exp(logs: Sequence[float]) -> float:
    peak = max(logs)
    return peak + math.log(sum([math.exp(log - peak) for log in logs])) - _LOG_BETS


def _lower_bound(rows: Rows, alpha: float) -> float:
    target = _log_target(alpha)
    total = math.fsum(times for _, times in rows)
    low, high = 0.0, math.fsum(value * times for value, times in rows) / total if total else 0.0
    if high <= 0.0:
        return 0.0
    # At the observed mean itself the evidence is at most 1 (log1p is concave): a bracket. Evidence
    # falls smoothly across it, so false position (the Illinois way: an end that stays twice counts
    # half) needs about ten looks where halving needs forty.
    above, below = math.inf, -target
    rose = fell = False
    for _ in range(_LOOKS_MAX):
        if high - low <= _PRECISION:
            break
        middle = (low + high) / 2.0
        if math.isfinite(above) and math.isfinite(below):
            middle = low + (high - low) * above / (above - below)
            # Half the precision inside the bracket, so that both of its ends come near.
            middle = min(max(middle, low + _PRECISION / 2), high - _PRECISION / 2)
        found = _log_evidence(rows, middle) - target
        if found >= 0.0:
            low, above, below = middle, found, below / 2.0 if rose else below
            rose, fell = True, False
        else:
            high, above, below = middle, above / 2.0 if fell else above, found
            rose, fell = False, True
    return low


def _log_target(alpha: float) -> float:
    if not 0.0 < alpha < 1.0:
        raise ConfigurationError(
            f"alpha is {alpha!r}; it is the chance of a wrong pass and lies between 0 and 1 "
            f"(0.05 is usual)"
        )
    return -math.log(alpha)


def _check_threshold(threshold: float) -> None:
    # A mean of exactly 1 can never be proven, and one above 0 needs no proof.
    if not 0.0 < threshold < 1.0:
        raise ConfigurationError(
            f"the threshold of a figure is {threshold!r}; choose one between 0 and 1, such as 0.95: "
            f"no amount of traffic proves a mean above 1"
        )
