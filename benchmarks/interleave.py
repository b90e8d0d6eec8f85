"""Sides of a comparison measured in turn, in short blocks of one run.

A machine drifts: other work, clock speed, caches. Absolute figures of two runs differ by that drift,
while two sides that alternate every few hundred milliseconds share it. So a ratio is taken block by
block, between blocks that ran one after the other, and its median over the rounds is the figure. The
order of the sides turns round with every round, so that none always comes first.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["Ratio", "Seconds", "Side", "Timings", "interleave", "ratio", "unrest"]

Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Side:
    """One way of doing it: ``call`` is given the number of the call.

    ``before`` and ``after`` run around each block, untimed. ``per_call`` is how many items one call
    handles: times are divided by it.
    """

    call: Callable[[int], object]
    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None
    per_call: int = 1


@dataclass(slots=True)
class Timings:
    """Seconds per item of one side: one array per block, and each block's wall time per item."""

    blocks: list[Seconds] = field(default_factory=list)
    walls_s: list[float] = field(default_factory=list)

    def quantiles(self, share: float) -> Seconds:
        """The quantile of each block."""
        return np.array([np.quantile(block, share) for block in self.blocks])

    def us(self, share: float = 0.5) -> float:
        """The median over the blocks of their quantile, in microseconds."""
        return float(np.median(self.quantiles(share))) * 1e6

    @property
    def per_s(self) -> float:
        """Items a second, the median over the blocks."""
        return 1.0 / float(np.median(self.walls_s))


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of the rounds' ratios, with its quartiles."""

    value: float
    low: float
    high: float
    rounds: int


def interleave(
    sides: Mapping[str, Side], *, rounds: int, calls: int = 0, block_s: float = 0.0
) -> dict[str, Timings]:
    """Run the sides in turn: a block is ``calls`` calls, or as many as fit in ``block_s`` seconds.

    A first block of each side, a quarter as long, warms up and is not counted. The garbage collector
    rests while a block runs.
    """
    found = {name: Timings() for name in sides}
    order = list(sides)
    for name in order:
        _block(sides[name], 0, max(1, calls // 4) if calls else 0, block_s / 4)
    for turn in range(rounds):
        for name in order if turn % 2 == 0 else reversed(order):
            seconds, wall = _block(sides[name], turn * calls, calls, block_s)
            per_call = sides[name].per_call
            found[name].blocks.append(seconds / per_call)
            found[name].walls_s.append(wall / per_call)
    return found


def ratio(one: Timings, other: Timings, *, share: float | None = 0.5) -> Ratio:
    """``one`` over ``other``, round by round: of a quantile, or (share None) of the wall time."""
    return _ratio(_per_block(one, share), _per_block(other, share))


def unrest(side: Timings, *, share: float | None = 0.5) -> Ratio:
    """A side over itself, each round over the one before: what the machine does of its own accord.

    Its quartiles tell what a ratio between two sides cannot tell from 1 in a single round.
    """
    found = _per_block(side, share)
    return _ratio(found[1:], found[:-1])


def _per_block(side: Timings, share: float | None) -> Seconds:
    return np.array(side.walls_s) if share is None else side.quantiles(share)


def _ratio(above: Seconds, below: Seconds) -> Ratio:
    found = above / below
    low, middle, high = np.quantile(found, [0.25, 0.5, 0.75])
    return Ratio(float(middle), float(low), float(high), len(found))


def _block(side: Side, first: int, calls: int, block_s: float) -> tuple[Seconds, float]:
    """Seconds of each call, and wall seconds per call."""
    call, clock = side.call, time.perf_counter
    if side.before is not None:
        side.before()
    gc.collect()
    gc.disable()
    try:
        seconds: list[float] = []
        number, started = first, clock()
        until = started + block_s
        while True:
            begun = clock()
            call(number)
            ended = clock()
            seconds.append(ended - begun)
            number += 1
            if (number - first >= calls) if calls else ended >= until:
                break
        wall = (clock() - started) / len(seconds)
    finally:
        gc.enable()
    if side.after is not None:
        side.after()
    return np.array(seconds), wall
