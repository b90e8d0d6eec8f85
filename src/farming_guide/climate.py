"""What is normal for a month: rain and temperatures by place, from a table that needs no network."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from farming_guide.places import Place, distance
from vectorstore.errors import ConfigurationError

__all__ = ["Climate", "MonthlyNormal", "months_of", "read_climate"]

# The rains of Malawi fall from November to April (Department of Climate Change and Meteorological
# Services, "Climate of Malawi").
RAINY_MONTHS = (11, 12, 1, 2, 3, 4)
DRY_MONTHS = (5, 6, 7, 8, 9, 10)


@dataclass(frozen=True, slots=True)
class MonthlyNormal:
    """The usual month: rain in mm over the month, mean daily extremes in °C."""

    month: int
    rain_mm: float
    warmest_c: float
    coldest_c: float


@dataclass(frozen=True, slots=True)
class Climate:
    """Normals of the places that are in the table, twelve months each."""

    stations: tuple[tuple[Place, tuple[MonthlyNormal, ...]], ...]

    def nearest(self, place: Place) -> tuple[Place, tuple[MonthlyNormal, ...]]:
        """The station nearest to a place, and its twelve months, January first."""
        return min(self.stations, key=lambda station: distance(station[0], place))

    def rain_mm(self, place: Place, months: Sequence[int]) -> float:
        """Usual rain over these months (1 to 12) at the nearest station."""
        _, normals = self.nearest(place)
        return sum(normal.rain_mm for normal in normals if normal.month in months)


def read_climate(path: Path) -> Climate:
    """Read ``climate_normals.csv``: a row a place and month; lines that begin with # are sources.

    Raises ConfigurationError if a column is missing, a value is no number, or a place lacks a month.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
        rows = list(csv.DictReader(lines))
        months: dict[Place, list[MonthlyNormal]] = {}
        for row in rows:
            place = Place(row["district"], float(row["latitude"]), float(row["longitude"]))
            months.setdefault(place, []).append(
                MonthlyNormal(
                    int(row["month"]),
                    float(row["rain_mm"]),
                    float(row["tmax_c"]),
                    float(row["tmin_c"]),
                )
            )
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ConfigurationError(f"the climate table {path} cannot be read: {error!r}") from error
    stations = []
    for place, normals in months.items():
        normals.sort(key=lambda normal: normal.month)
        if [normal.month for normal in normals] != list(range(1, 13)):
            raise ConfigurationError(f"the climate table {path} lacks months of {place.name}")
        stations.append((place, tuple(normals)))
    if not stations:
        raise ConfigurationError(f"the climate table {path} is empty")
    return Climate(tuple(stations))


def months_of(season: str) -> tuple[int, ...]:
    """The months (1 to 12) of ``rainy``, ``dry`` or ``all``."""
    if season == "rainy":
        return RAINY_MONTHS
    return DRY_MONTHS if season == "dry" else tuple(range(1, 13))
