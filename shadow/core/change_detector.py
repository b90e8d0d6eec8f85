"""Notices that a figure has become worse, soon and with few false alarms: an e-CUSUM.

The figure's complement ``y = 1 - value`` is bet on with six fixed fractions b of what may be staked,
``lambda = b / (1 - m1)``: each bet's wealth is multiplied by ``1 + lambda (y - (1 - m1))`` and starts
again from 1 whenever it has fallen below. The alarm is raised when the average of the six reaches
``ALARM``. While the mean stays at or above ``m1`` the expected time to a false alarm is at least
``ALARM`` observations (Shin, Ramdas and Rinaldo, 2023: each wealth is at most that of the
Shiryaev-Roberts procedure, which minus the time is a supermartingale).
"""

from __future__ import annotations

from dataclasses import dataclass

from vectorstore.errors import ConfigurationError, InvalidInput

__all__ = ["ALARM", "BETS", "CusumState", "step"]

ALARM = 1e5
BETS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7)


@dataclass(frozen=True, slots=True)
class CusumState:
    """Wealth of each bet, how many observations were seen, and at which one the alarm was raised.

    The alarm latches: a state that has raised it changes no more but for the count.
    """

    wealths: tuple[float, ...] = (1.0,) * len(BETS)
    observations: int = 0
    alarm_at: int | None = None

    @property
    def alarm(self) -> bool:
        """Whether the figure has become worse."""
        return self.alarm_at is not None

    @property
    def evidence(self) -> float:
        """The average wealth, to be read against ``ALARM``."""
        return sum(self.wealths) / len(self.wealths)


def step(state: CusumState, value: float, m1: float) -> CusumState:
    """The state after one more ``value`` in [0, 1]; ``m1`` is the mean that is still good enough.

    Raises InvalidInput for a value outside [0, 1], ConfigurationError for an ``m1`` that is not
    between 0 and 1. One detector is fed with one ``m1`` throughout.
    """
    if not 0.0 <= value <= 1.0:
        raise InvalidInput(f"a bounded figure lies in [0, 1]; got {value!r}")
    if not 0.0 < m1 < 1.0:
        raise ConfigurationError(
            f"the change detector watches for a mean below {m1!r}; choose one between 0 and 1"
        )
    seen = state.observations + 1
    if state.alarm_at is not None:
        return CusumState(state.wealths, seen, state.alarm_at)
    allowed = 1.0 - m1
    surprise = (1.0 - value) / allowed - 1.0
    # Plain products: below the alarm no wealth exceeds 6 ALARM, and none can reach 0 as b < 1.
    wealths = tuple(
        (wealth if wealth > 1.0 else 1.0) * (1.0 + bet * surprise)
        for wealth, bet in zip(state.wealths, BETS, strict=True)
    )
    return CusumState(wealths, seen, seen if sum(wealths) >= ALARM * len(BETS) else None)
