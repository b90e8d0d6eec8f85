"""The sampling decision and the mirror's processor budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.config import MirrorSettings
from shadow.core.phases import Phase, Route
from shadow.core.sampling import RATE_SHARE_MIN, BudgetState, next_rate
from shadow.evidence import EvidenceBook
from shadow.mirror import Mirror
from vectorstore.errors import ConfigurationError


def test_rates_zero_and_one_sample_nothing_and_everything(tmp_path: Path) -> None:
    """And nothing before PostgreSQL was tried for the first time."""
    mirror = mirror_of(tmp_path)
    assert not mirror.samples(Route(1, Phase.SHADOW, mirror_rate=1.0))
    mirror.begin()
    for rate in (0.0, 1.0):
        route = Route(1, Phase.SHADOW, mirror_rate=rate)
        assert {mirror.samples(route) for _ in range(10_000)} == {rate == 1.0}


def test_each_occurrence_is_drawn_by_itself(tmp_path: Path) -> None:
    """At a rate of 10 %, a query that is 30 % of the traffic is 30 % of the sample."""
    mirror = mirror_of(tmp_path)
    mirror.begin()
    route = Route(1, Phase.SHADOW, mirror_rate=0.1)
    bad = np.random.default_rng(2).random(100_000) < 0.3
    sampled = np.array([mirror.samples(route) for _ in bad])
    assert sampled.mean() == pytest.approx(0.1, abs=0.01)
    assert bad[sampled].mean() == pytest.approx(0.3, abs=0.025)


def mirror_of(directory: Path) -> Mirror:
    """A mirror that was not started: it only decides."""
    return Mirror(
        evidence=EvidenceBook(directory),
        judge=lambda batch: [],
        era=lambda: 1,
        watch_means={},
        settings=MirrorSettings.model_validate({}),
    )


def settle(cost: float, *, start: float, rate_max: float, intervals: int = 60) -> list[float]:
    """Rates over time of a mirror whose share of the processor is cost times rate."""
    state = BudgetState(start)
    rates = []
    for _ in range(intervals):
        state = next_rate(state, cpu_share=cost * state.rate, share_max=0.05, rate_max=rate_max)
        rates.append(state.rate)
    return rates


@given(
    cost=st.floats(0.0, 10.0),
    start=st.floats(0.0, 1.0),
    rate_max=st.floats(0.01, 1.0),
)
def test_the_rate_settles_within_the_budget(cost: float, start: float, rate_max: float) -> None:
    """For any constant cost the share ends within its budget and the rate stands still."""
    rates = settle(cost, start=start, rate_max=rate_max)
    assert rates[-1] == rates[-2] == rates[-3]
    assert rates[-1] <= rate_max
    if rates[-1] > rate_max * RATE_SHARE_MIN:
        assert cost * rates[-1] <= 0.05 * (1 + 1e-9)
    if cost * rate_max < 0.04:
        assert rates[-1] == rate_max


def test_an_overrun_is_cut_at_once_and_recovery_is_gradual() -> None:
    """Ten times too much is one interval's affair; the way back is at most a quarter a time."""
    cut = next_rate(BudgetState(1.0), cpu_share=0.5, share_max=0.05, rate_max=1.0)
    assert cut.rate == pytest.approx(0.09)
    back = next_rate(cut, cpu_share=0.0001, share_max=0.05, rate_max=1.0)
    assert back.rate == pytest.approx(0.09 * 1.25)


def test_ten_percent_noise_does_not_move_the_rate_far() -> None:
    """With a noisy share the rate stays within a quarter of where it settled."""
    random = np.random.default_rng(3)
    state = BudgetState(0.9)
    rates = []
    for _ in range(500):
        share = 0.1 * state.rate * random.uniform(0.95, 1.05)
        state = next_rate(state, cpu_share=share, share_max=0.05, rate_max=1.0)
        rates.append(state.rate)
    assert max(rates[5:]) <= 1.25 * min(rates[5:])


def test_a_rate_of_zero_stays_zero_and_bad_settings_are_refused() -> None:
    """The mirror can be switched off; a budget of nothing or a rate above 1 is an error."""
    off = next_rate(BudgetState(0.5), cpu_share=0.0, share_max=0.05, rate_max=0.0)
    assert off.rate == 0.0
    with pytest.raises(ConfigurationError, match="mirror_cpu_share_max"):
        next_rate(BudgetState(0.5), cpu_share=0.0, share_max=0.0, rate_max=1.0)
    with pytest.raises(ConfigurationError, match="rate"):
        next_rate(BudgetState(0.5), cpu_share=0.0, share_max=0.05, rate_max=1.5)
