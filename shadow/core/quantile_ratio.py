"""Whether a quantile of the shadow's latency is at most a multiple of the primary's, at any time.

How many observations lie at or below x is a sum of yes/no answers. Against the claim "at most a
share p of them do" stands a mixture of all larger shares, weighted by a Beta(100 p, 100 (1 - p)) cut
off at p. Its likelihood ratio K is, with s of n observations at or below x,

    log K = betaln(a+s, b+n-s) + log I'(a+s, b+n-s, p) - betaln(a, b) - log I'(a, b, p)
            - s log p - (n-s) log(1-p),      a = 100 p,  b = 100 (1 - p),

where I' is the upper regularised incomplete beta function. K reaches 1/alpha with a chance of at most
alpha while the claim holds (Howard and Ramdas, 2022, by Ville's inequality), and rises with s, so one
crossing bounds the quantile for every x at once.
"""

from __future__ import annotations

import bisect
import enum
import math
from collections.abc import Mapping
from typing import NamedTuple

from vectorstore.errors import ConfigurationError, InvalidInput

__all__ = [
    "QuantileBounds",
    "Ratio",
    "RatioVerdict",
    "log_betaincc",
    "log_evidence",
    "quantile_bounds",
    "ratio_verdict",
]

_PRIOR = 100.0
_TINY = 1e-300
_PRECISION = 1e-15
_ITERATIONS_MAX = 200_000


class QuantileBounds(NamedTuple):
    """Between which latencies a quantile lies, in the histogram's unit; 0 and infinity if unknown."""

    lower: float
    upper: float


class Ratio(enum.StrEnum):
    """What the two histograms say about the ratio of the quantiles."""

    WITHIN = "within"
    ABOVE = "above"
    UNDECIDED = "undecided"


class RatioVerdict(NamedTuple):
    """The verdict with the bounds on both quantiles and the counts that it rests on."""

    ratio: Ratio
    quantile: float
    ratio_max: float
    primary: QuantileBounds
    shadow: QuantileBounds
    primary_queries: int
    shadow_queries: int


def log_betaincc(a: float, b: float, x: float) -> float:
    """Log of the upper regularised incomplete beta function, 1 - I_x(a, b), for 0 < x < 1.

    By Lentz's continued fraction on the side where it converges fast (DLMF 8.17.22). Raises
    ArithmeticError if it does not converge, which counts below 1e9 do not reach.
    """
    if x < (a + 1.0) / (a + b + 2.0):
        # Rounding must not turn a whole into more than one.
        return math.log1p(-min(math.exp(_log_betainc(a, b, x)), 1.0 - _PRECISION))
    return _log_betainc(b, a, 1.0 - x)


def log_evidence(successes: float, queries: float, share: float) -> float:
    """Log of the evidence that more than ``share`` of all answers are successes (log K above)."""
    a, b = _PRIOR * share, _PRIOR * (1.0 - share)
    failures = queries - successes
    return (
        _betaln(a + successes, b + failures)
        + log_betaincc(a + successes, b + failures, share)
        - _betaln(a, b)
        - log_betaincc(a, b, share)
        - successes * math.log(share)
        - failures * math.log1p(-share)
    )


def quantile_bounds(
    histogram: Mapping[float, int], *, quantile: float, alpha: float
) -> QuantileBounds:
    """Bounds that hold together with a chance of at least 1 - ``alpha`` at all times.

    ``histogram``: latency to how often it was seen; a timeout is ``math.inf``. The bounds are among
    its latencies, so they are as fine as its buckets.
    """
    if not 0.0 < quantile < 1.0:
        raise ConfigurationError(
            f"the latency quantile is {quantile!r}; choose one between 0 and 1, such as 0.95"
        )
    if not 0.0 < alpha < 1.0:
        raise ConfigurationError(f"alpha is {alpha!r}; it must lie between 0 and 1")
    rows = sorted((latency, n) for latency, n in histogram.items() if n)
    if any(n < 0 or math.isnan(latency) or latency < 0.0 for latency, n in rows):
        raise InvalidInput(
            "a latency histogram holds a negative count, or a latency below 0 or NaN"
        )
    queries = sum(n for _, n in rows)
    # Half of alpha for each bound.
    target = math.log(2.0 / alpha)
    at_or_below: list[int] = []
    seen = 0
    for _, n in rows:
        seen += n
        at_or_below.append(seen)

    def is_proven_above(place: int) -> bool:
        """Whether the quantile is proven to be at or below the latency at ``place``."""
        return log_evidence(at_or_below[place], queries, quantile) >= target

    def is_below(place: int) -> bool:
        """Whether the quantile is proven to be at or above the latency at ``place``."""
        below = at_or_below[place - 1] if place else 0
        return log_evidence(queries - below, queries, 1.0 - quantile) >= target

    # Both proofs are monotone in the place: bisect for where they turn.
    first = bisect.bisect_left(range(len(rows)), True, key=is_proven_above)
    last = bisect.bisect_left(range(len(rows)), True, key=lambda place: not is_below(place)) - 1
    return QuantileBounds(
        rows[last][0] if last >= 0 else 0.0, rows[first][0] if first < len(rows) else math.inf
    )


def ratio_verdict(
    primary_hist: Mapping[float, int],
    shadow_hist: Mapping[float, int],
    quantile: float,
    ratio_max: float,
    alpha: float,
) -> RatioVerdict:
    """Whether the shadow's quantile is at most ``ratio_max`` times the primary's.

    ``WITHIN`` and ``ABOVE`` are each wrong with a chance of at most ``alpha``, half of it for each
    store. Both histograms have one unit; a timeout is ``math.inf``.
    """
    if not 0.0 < ratio_max < math.inf:
        raise ConfigurationError(
            f"the latency ratio is {ratio_max!r}; it must be above 0, such as 1.5"
        )
    # Each bound of a store has alpha / 2: the two that a verdict rests on sum to alpha.
    primary = quantile_bounds(primary_hist, quantile=quantile, alpha=alpha)
    shadow = quantile_bounds(shadow_hist, quantile=quantile, alpha=alpha)
    ratio = Ratio.UNDECIDED
    # An unbounded shadow is never within, whatever the primary does.
    if shadow.upper < math.inf and shadow.upper <= ratio_max * primary.lower:
        ratio = Ratio.WITHIN
    elif shadow.lower > ratio_max * primary.upper:
        ratio = Ratio.ABOVE
    return RatioVerdict(
        ratio,
        quantile,
        ratio_max,
        primary,
        shadow,
        sum(primary_hist.values()),
        sum(shadow_hist.values()),
    )


def _betaln(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _log_betainc(a: float, b: float, x: float) -> float:
    """Log of I_x(a, b) for x below (a + 1) / (a + b + 2)."""
    front = a * math.log(x) + b * math.log1p(-x) - _betaln(a, b) - math.log(a)
    c, d = 1.0, _inverse(1.0 - (a + b) * x / (a + 1.0))
    fraction = d
    for m in range(1, _ITERATIONS_MAX):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        change = 1.0
        for term in (even, odd):
            d = _inverse(1.0 + term * d)
            c = 1.0 + term / c
            if abs(c) < _TINY:
                c = _TINY
            change *= c * d
        fraction *= change
        if abs(change - 1.0) < _PRECISION:
            return front + math.log(fraction)
    raise ArithmeticError(f"the incomplete beta function of ({a}, {b}, {x}) does not converge")


def _inverse(value: float) -> float:
    return 1.0 / (value if abs(value) >= _TINY else _TINY)
