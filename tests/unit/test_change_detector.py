"""The change detector: delays, false alarms, latching, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import gate_simulation as simulation
from shadow.core.change_detector import ALARM, BETS, CusumState, step
from vectorstore.errors import ConfigurationError, InvalidInput


@pytest.mark.parametrize(("after", "expected"), [(0.90, 195), (0.85, 57)])
def test_a_fall_is_noticed_after_the_announced_delay(after: float, expected: int) -> None:
    """From .98 to .90 in about 195 queries and to .85 in about 57, within 20 %, in every stream."""
    found = simulation.detect(
        before=0.98, after=after, m1=0.95, streams=1500, queries=3000, seed=21, quiet=200
    )
    assert found.alarm_share == 1.0
    assert found.median_delay == pytest.approx(expected, rel=0.20)


def test_good_traffic_raises_no_alarm() -> None:
    """At .96, above m1 = .95, at least 99 % of the streams are quiet for 10,000 queries."""
    found = simulation.detect(
        before=0.96, after=0.96, m1=0.95, streams=1000, queries=10_000, seed=22
    )
    assert found.alarm_share <= 0.01


def test_the_simulation_is_the_real_detector() -> None:
    """One simulated stream, replayed through step, raises its alarm at the same query."""
    found = simulation.detect(before=0.85, after=0.85, m1=0.95, streams=1, queries=2000, seed=23)
    random = np.random.default_rng(23)
    edges = np.cumsum(simulation.miss_distribution(0.85))[:-1]
    state = CusumState()
    for _ in range(2000):
        misses = int(np.searchsorted(edges, random.random(1), side="right")[0])
        state = step(state, (10 - misses) / 10, 0.95)
    assert state.alarm_at == found.delays[0]


def test_the_alarm_latches() -> None:
    """After an alarm, perfect answers do not take it back, and the count goes on."""
    state = CusumState()
    while not state.alarm:
        state = step(state, 0.0, 0.95)
    raised = state
    assert raised.evidence >= ALARM
    for _ in range(1000):
        state = step(state, 1.0, 0.95)
    assert state.alarm_at == raised.alarm_at == raised.observations
    assert state.observations == raised.observations + 1000


def test_a_long_good_past_does_not_delay_the_alarm() -> None:
    """Wealth starts again from 1, so 100,000 perfect queries buy the shadow no credit."""
    past = CusumState()
    for _ in range(100_000):
        past = step(past, 1.0, 0.95)
    fresh = CusumState()
    delays = []
    for state in (past, fresh):
        start = state.observations
        while not state.alarm:
            state = step(state, 0.5, 0.95)
        delays.append(state.observations - start)
    assert abs(delays[0] - delays[1]) <= 1


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_impossible_values_are_refused(value: float) -> None:
    """Values outside [0, 1] are errors."""
    with pytest.raises(InvalidInput):
        step(CusumState(), value, 0.95)


@pytest.mark.parametrize("m1", [0.0, 1.0, float("nan")])
def test_a_meaningless_level_is_refused(m1: float) -> None:
    """A level of 0 or 1 cannot be watched."""
    with pytest.raises(ConfigurationError):
        step(CusumState(), 1.0, m1)


def test_a_new_state_has_one_unit_on_each_bet() -> None:
    """The detector starts at evidence 1."""
    assert CusumState().wealths == (1.0,) * len(BETS)
    assert CusumState().evidence == 1.0
