"""Latency quantiles: the special function, the bounds, and the verdict on their ratio."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
import ville
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.quantile_ratio import (
    Ratio,
    log_betaincc,
    log_evidence,
    quantile_bounds,
    ratio_verdict,
)
from vectorstore.errors import ConfigurationError, InvalidInput

special = pytest.importorskip("scipy.special")


def histogram(values: npt.NDArray[np.float64], places: int = 2) -> dict[float, int]:
    return dict(Counter(np.round(values, places).tolist()))


def test_the_incomplete_beta_function_agrees_with_scipy() -> None:
    """Over seven orders of magnitude the logarithm is right to 1e-8."""
    random = np.random.default_rng(31)
    compared = 0
    for _ in range(2000):
        a, b = (10 ** random.uniform(-1, 6, size=2)).tolist()
        x = float(random.uniform(0.001, 0.999))
        exact = float(special.betaincc(a, b, x))
        if exact > 1e-290:
            assert log_betaincc(a, b, x) == pytest.approx(math.log(exact), abs=1e-8)
            compared += 1
    assert compared > 800


@pytest.mark.parametrize("share", [0.5, 0.95, 0.05, 0.99])
def test_the_evidence_is_the_mixture_that_it_claims_to_be(share: float) -> None:
    """The closed form equals the numerical average of the likelihood ratio over larger shares."""
    integrate = pytest.importorskip("scipy.integrate")
    a, b, s, n = 100 * share, 100 * (1 - share), 97, 100
    log_weight = special.betaln(a, b) + math.log(special.betaincc(a, b, share))

    def integrand(theta: float) -> float:
        return math.exp(
            (a - 1 + s) * math.log(theta)
            + (b - 1 + n - s) * math.log1p(-theta)
            - log_weight
            - s * math.log(share)
            - (n - s) * math.log1p(-share)
        )

    average = integrate.quad(integrand, share, 1.0, limit=200, epsabs=0, epsrel=1e-10)[0]
    assert log_evidence(s, n, share) == pytest.approx(math.log(average), abs=1e-6)


@given(st.integers(0, 400), st.integers(0, 400), st.sampled_from([0.05, 0.5, 0.95]))
def test_more_successes_are_more_evidence(first: int, second: int, share: float) -> None:
    """The evidence rises with the number of successes, so that one crossing bounds the quantile."""
    low, high = sorted((first, second))
    assert log_evidence(low, 400, share) <= log_evidence(high, 400, share) + 1e-9


def test_bounds_hold_at_all_times_and_narrow() -> None:
    """In 120 streams watched at 40 times each, the true p95 leaves its bounds in at most alpha."""
    random = np.random.default_rng(32)
    truth = math.exp(0.5 * 1.6448536269514722)
    left = 0
    looks = np.unique(np.geomspace(20, 3000, 40).astype(int))
    for _ in range(120):
        values = np.round(random.lognormal(0.0, 0.5, size=3000), 2)
        for n in looks.tolist():
            found = quantile_bounds(dict(Counter(values[:n].tolist())), quantile=0.95, alpha=0.05)
            # A hundredth of rounding.
            if not found.lower - 0.01 <= truth <= found.upper + 0.01:
                left += 1
                break
    assert left / 120 <= 0.05
    assert found.upper / found.lower < 1.3


def test_an_independent_confidence_sequence_overlaps() -> None:
    """`ville`'s bounds for the same p95 and these overlap, and neither is empty."""
    values = np.random.default_rng(33).lognormal(0.0, 0.5, size=3000)
    theirs = ville.QuantileCS(q=0.95, alpha=0.05).fit(values).interval()
    ours = quantile_bounds(histogram(values), quantile=0.95, alpha=0.05)
    assert max(theirs[0], ours.lower) <= min(theirs[1], ours.upper)


def test_the_verdict_follows_the_ratio() -> None:
    """Half as slow again is within 2 and above 1.2; with few queries nothing is decided."""
    random = np.random.default_rng(34)
    primary = random.lognormal(0.0, 0.3, size=4000)
    shadow = 1.5 * random.lognormal(0.0, 0.3, size=4000)

    def verdict(n: int, ratio_max: float) -> Ratio:
        return ratio_verdict(
            histogram(primary[:n]), histogram(shadow[:n]), 0.95, ratio_max, 0.05
        ).ratio

    assert verdict(4000, 2.0) is Ratio.WITHIN
    assert verdict(4000, 1.2) is Ratio.ABOVE
    assert verdict(4000, 1.5) is Ratio.UNDECIDED
    assert verdict(40, 10.0) is Ratio.UNDECIDED


def test_timeouts_are_infinite_and_never_within() -> None:
    """A shadow that times out in a tenth of all queries has no finite p95."""
    primary = {1.0: 2000}
    shadow = {0.5: 1800, math.inf: 200}
    found = ratio_verdict(primary, shadow, 0.95, 2.0, 0.05)
    assert found.shadow.upper == math.inf
    assert found.ratio is Ratio.ABOVE
    assert ratio_verdict(shadow, shadow, 0.95, 2.0, 0.05).ratio is not Ratio.WITHIN


def test_no_traffic_bounds_nothing() -> None:
    """Empty histograms leave the verdict open."""
    found = ratio_verdict({}, {}, 0.95, 2.0, 0.05)
    assert (found.ratio, found.primary, found.shadow) == (
        Ratio.UNDECIDED,
        (0.0, math.inf),
        (0.0, math.inf),
    )


def test_nonsense_is_refused() -> None:
    """Quantiles and alphas outside (0, 1), ratios of 0 and impossible histograms are errors."""
    for quantile, alpha in ((0.0, 0.05), (1.0, 0.05), (0.95, 0.0), (0.95, 1.0)):
        with pytest.raises(ConfigurationError):
            quantile_bounds({1.0: 1}, quantile=quantile, alpha=alpha)
    for ratio_max in (0.0, math.inf, -1.0):
        with pytest.raises(ConfigurationError):
            ratio_verdict({1.0: 1}, {1.0: 1}, 0.95, ratio_max, 0.05)
    for bad in ({-1.0: 1}, {1.0: -1}, {math.nan: 1}):
        with pytest.raises(InvalidInput):
            quantile_bounds(bad, quantile=0.95, alpha=0.05)
