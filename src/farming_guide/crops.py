"""Which crops a place can carry in a season: the guides that there are, held against the usual rain."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from farming_guide.catalogue import Catalogue, singular
from farming_guide.climate import Climate, months_of
from farming_guide.places import Place

__all__ = ["CropFit", "fitting_crops", "rain_needs"]

Fit = Literal["enough", "watch", "short", "unknown"]
_ORDER: Mapping[Fit, int] = {"enough": 0, "watch": 1, "unknown": 2, "short": 3}


@dataclass(frozen=True, slots=True)
class CropFit:
    """How a crop's need for rain (mm over its growing period) meets what usually falls.

    ``enough``: the upper need falls; ``watch``: between the two; ``short``: not even the lower one, so
    the crop needs watering; ``unknown``: the table has no figure for this crop.
    """

    crop: str
    fit: Fit
    rain_mm_min: float
    rain_mm_max: float


@cache
def rain_needs() -> Mapping[str, tuple[float, float]]:
    """Least and greatest need for rain by crop, mm (FAO, table in ``crop_needs.csv``)."""
    text = resources.files("farming_guide").joinpath("crop_needs.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {
        singular(row["crop"]): (float(row["rain_mm_min"]), float(row["rain_mm_max"]))
        for row in rows
    }


def fitting_crops(
    place: Place, season: str, *, catalogue: Catalogue, climate: Climate
) -> tuple[float, list[CropFit]]:
    """Usual rain of the season at the place, mm, and the crops with a guide for it, best fit first."""
    rain_mm = climate.rain_mm(place, months_of(season))
    fits = [_fit(crop, rain_mm) for crop in catalogue.crops(season)]
    return rain_mm, sorted(fits, key=lambda found: (_ORDER[found.fit], found.crop))


def _fit(crop: str, rain_mm: float) -> CropFit:
    need = rain_needs().get(singular(crop))
    if need is None:
        return CropFit(crop, "unknown", 0.0, 0.0)
    least, greatest = need
    fit: Fit = "enough" if rain_mm >= greatest else "watch" if rain_mm >= least else "short"
    return CropFit(crop, fit, least, greatest)
