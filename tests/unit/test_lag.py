"""How old what a store lacks is, whatever becomes of the machine's clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shadow.lag import MOMENTS_MAX, LagClock
from shadow.writes.journal import Journal
from vectorstore.types import Metric


class Clock:
    """A clock that a test moves."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Machine:
    """A journal, the machine's clock, and the one that is never set."""

    def __init__(self, directory: Path) -> None:
        self.wall, self.steady = Clock(1_700_000_000.0), Clock(50.0)
        self.journal = Journal.open(directory, clock=self.wall)
        self.journal.bind(4, Metric.COSINE)
        self.lag = self.started()

    def started(self) -> LagClock:
        """What a process that starts now knows."""
        return LagClock(self.journal, head_age_ms_max=250.0, wall=self.wall, clock=self.steady)

    def write(self) -> int:
        """One entry, by this process."""
        seq = self.journal.append([("a", None)]).last_seq
        self.lag.raise_to(seq)
        return seq

    def tick(self, seconds: float) -> None:
        self.wall.now += seconds
        self.steady.now += seconds


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.journal.close()


def test_the_age_is_that_of_the_first_entry_that_is_lacking(machine: Machine) -> None:
    """Nothing lacking has no age; a truncated entry is older than any."""
    assert machine.lag.oldest_unapplied_ms(0) is None
    machine.write()
    machine.tick(2.0)
    machine.write()
    machine.tick(0.5)
    assert machine.lag.oldest_unapplied_ms(0) == pytest.approx(2_500.0)
    assert machine.lag.oldest_unapplied_ms(1) == pytest.approx(500.0)
    assert machine.lag.oldest_unapplied_ms(2) is None
    machine.journal.truncate(1)
    assert machine.lag.oldest_unapplied_ms(0) == float("inf")


def test_a_clock_that_is_set_back_makes_nothing_younger(machine: Machine) -> None:
    """A store that lags does not become fresh because the machine was told another time: neither for
    this process's writes, nor for those of others that it has seen, nor after a restart."""
    machine.write()
    machine.journal.append([("b", None)])
    machine.lag.refresh()
    machine.wall.now -= 3_600.0
    machine.tick(2.0)
    assert machine.lag.oldest_unapplied_ms(0) == pytest.approx(2_000.0)
    assert machine.lag.oldest_unapplied_ms(1) == pytest.approx(2_000.0)
    restarted = machine.started()
    machine.tick(1.5)
    assert restarted.oldest_unapplied_ms(0) == pytest.approx(1_500.0)


def test_what_is_remembered_is_bounded_and_never_too_young(machine: Machine) -> None:
    """After any number of writes the age that is told is at least the true one, less a moment."""
    machine.wall.now -= 3_600.0
    for _ in range(20 * MOMENTS_MAX):
        machine.write()
        machine.tick(0.003)
    machine.wall.now -= 3_600.0
    head = machine.lag.head()
    for lacking in (1, 10, 100, 600):
        age_ms = machine.lag.oldest_unapplied_ms(head - lacking)
        assert age_ms is not None
        assert lacking * 3.0 - 0.01 <= age_ms <= lacking * 3.0 + 25.0
    age_ms = machine.lag.oldest_unapplied_ms(1)
    assert age_ms is not None
    assert age_ms > 2_000.0
