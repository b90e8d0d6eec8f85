"""What a run found: readings of single sides, and figures that are held against targets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.interleave import Ratio, Timings

__all__ = ["Figure", "Reading", "Results", "read_results"]

FORMAT = 2


@dataclass(frozen=True, slots=True)
class Reading:
    """One side on one dataset. ``recall`` is against the exact answer; below ``recall_min`` fails."""

    part: str
    dataset: str
    side: str
    p50_us: float
    p99_us: float
    per_s: float
    recall: float | None = None
    recall_min: float | None = None

    @property
    def wrong(self) -> bool:
        """Whether the answers are not good enough for their speed to count."""
        return self.recall is not None and self.recall < (self.recall_min or 0.0)


@dataclass(frozen=True, slots=True)
class Figure:
    """A ratio or another number; ``low`` and ``high`` are the quartiles over ``rounds`` rounds.

    ``target`` says in words what was aimed at; ``met`` is None where there is no target.
    """

    part: str
    name: str
    value: float
    unit: str = "x"
    low: float | None = None
    high: float | None = None
    rounds: int = 1
    target: str | None = None
    met: bool | None = None


@dataclass(slots=True)
class Results:
    """Everything of one run; also its JSON form."""

    environment: Mapping[str, Any]
    readings: list[Reading] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    growth: list[dict[str, Any]] = field(default_factory=list)

    def read(
        self,
        part: str,
        dataset: str,
        found: Mapping[str, Timings],
        recalls: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        """Add a reading of each side; ``recalls`` gives (recall, least allowed) by side."""
        for side, timings in found.items():
            recall, least = (recalls or {}).get(side, (None, None))
            self.readings.append(
                Reading(
                    part, dataset, side, timings.us(0.5), timings.us(0.99), timings.per_s,
                    recall, least,
                )
            )  # fmt: skip

    def ratio(
        self,
        part: str,
        name: str,
        found: Ratio,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        or_met: bool = False,
        or_words: str = "",
    ) -> Figure:
        """Add a ratio; ``or_met`` is another way to meet its target, in the words ``or_words``."""
        target, met = None, None
        if at_most is not None:
            target, met = f"<= {at_most:g}x{or_words}", found.value <= at_most or or_met
        elif at_least is not None:
            target, met = f">= {at_least:g}x{or_words}", found.value >= at_least or or_met
        figure = Figure(
            part, name, found.value, "x", found.low, found.high, found.rounds, target, met
        )
        self.figures.append(figure)
        return figure

    @property
    def wrong(self) -> list[Reading]:
        """Readings whose answers are wrong."""
        return [reading for reading in self.readings if reading.wrong]

    def renewed(self, newer: Results) -> Results:
        """This run with the parts that ``newer`` measured in the place of its own.

        Raises ValueError for runs of different sizes or machines, whose figures do not stand side by side.
        """
        for fact in ("run", "processor", "cores", "postgresql", "pgvector"):
            if self.environment[fact] != newer.environment[fact]:
                raise ValueError(
                    f"the runs differ in {fact} ({self.environment[fact]}, {newer.environment[fact]}): "
                    "measure all parts anew"
                )
        parts = {one.part for one in (*newer.readings, *newer.figures)}
        renewed = dict.fromkeys(sorted(parts), newer.environment["at"])
        return Results(
            {**self.environment, "renewed": {**self.environment.get("renewed", {}), **renewed}},
            [*(one for one in self.readings if one.part not in parts), *newer.readings],
            [*(one for one in self.figures if one.part not in parts), *newer.figures],
            newer.growth or self.growth,
        )

    def write(self, path: Path) -> None:
        """Write the JSON form."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n")


def read_results(path: Path) -> Results:
    """Read what an earlier run wrote. Raises ValueError for another format."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if found.get("format") != FORMAT:
        raise ValueError(f"{path} is not of format {FORMAT}: measure it again with this version")
    return Results(
        found["environment"],
        [Reading(**one) for one in found["readings"]],
        [Figure(**one) for one in found["figures"]],
        found["growth"],
    )
