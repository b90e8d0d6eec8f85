"""How the mirror stays within its share of the processor.

The budget lowers the rate *before* the draw: a query that was drawn and then left out would be a hole
in the sample, and the gate counts holes as misses.
"""

from __future__ import annotations

from dataclasses import dataclass

from vectorstore.errors import ConfigurationError

__all__ = ["RATE_SHARE_MIN", "BudgetState", "next_rate"]

# The rate never falls below this share of its maximum: at 0 there would be nothing to measure a
# recovery by.
RATE_SHARE_MIN = 1e-3
# After a cut the share lands here, inside the band that is left alone, so that the rate settles.
_AIM = 0.9
_BAND_LOW = 0.8
_RISE_MAX = 1.25


@dataclass(frozen=True, slots=True)
class BudgetState:
    """The mirror rate in force, from 0 to 1."""

    rate: float


def next_rate(
    state: BudgetState, *, cpu_share: float, share_max: float, rate_max: float
) -> BudgetState:
    """The rate for the next interval, from the mirror's share of the processor in the last one.

    The share is taken to be proportional to the rate. Above ``share_max`` the rate is cut at once to
    where the share would be 90 % of it. From 80 to 100 % nothing changes. Below 80 % it rises towards
    90 %, by at most a quarter in one interval, so that one idle interval does not open the gate wide.
    So it settles after one cut, without oscillation, as long as the cost of a mirrored query changes
    by less than a tenth from one interval to the next.

    Raises ConfigurationError for a ``share_max`` that is not above 0 or a ``rate_max`` outside [0, 1].
    """
    if share_max <= 0.0:
        raise ConfigurationError(
            f"mirror_cpu_share_max is {share_max!r}; it must be above 0 "
            f"(to switch the mirror off, set its rate to 0)"
        )
    if not 0.0 <= rate_max <= 1.0:
        raise ConfigurationError(f"the mirror rate is {rate_max!r}; it must be from 0 to 1")
    rate_min = rate_max * RATE_SHARE_MIN
    rate = min(max(state.rate, rate_min), rate_max)
    if _BAND_LOW * share_max <= cpu_share <= share_max:
        return BudgetState(rate)
    factor = _AIM * share_max / cpu_share if cpu_share > 0.0 else _RISE_MAX
    return BudgetState(min(max(rate * min(factor, _RISE_MAX), rate_min), rate_max))
