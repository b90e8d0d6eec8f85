"""Places in Malawi by name or by coordinates."""

from __future__ import annotations

import csv
import difflib
import math
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from vectorstore.errors import InvalidInput

__all__ = ["Place", "distance", "find_place", "known_places"]

# Malawi lies within these bounds (degrees), with a margin of half a degree.
SOUTH, NORTH, WEST, EAST = -17.7, -8.9, 32.2, 36.5

_NUMBER = r"[+-]?\d{1,3}(?:\.\d+)?"
_COORDINATES = re.compile(
    rf"({_NUMBER})\s*°?\s*([NS])?\s*[,;\s]\s*({_NUMBER})\s*°?\s*([EW])?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Place:
    """A point, in degrees north and east, and what it is called."""

    name: str
    latitude: float
    longitude: float


@cache
def known_places() -> tuple[Place, ...]:
    """District capitals and main towns."""
    table = resources.files("farming_guide").joinpath("handbook", "places.csv")
    rows = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    return tuple(
        Place(row["name"], float(row["latitude"]), float(row["longitude"])) for row in rows
    )


def find_place(text: str) -> Place:
    """A place by name (``Lilongwe``) or coordinates (``-13.9833, 33.7833``, ``13.9833S, 33.7833E``).

    Raises InvalidInput with the nearest spellings, or if the point is outside Malawi.
    """
    wanted = " ".join(text.split())
    if not wanted:
        raise InvalidInput(
            "which place? Say a name like Lilongwe, or coordinates like -13.98, 33.78"
        )
    match = _COORDINATES.fullmatch(wanted)
    if match:
        return _at(match)
    names = {place.name.lower(): place for place in known_places()}
    name = wanted.lower().removesuffix(" district")
    if name in names:
        return names[name]
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(names[c].name for c in close)}?" if close else ""
    raise InvalidInput(
        f"I do not know the place {wanted[:60]!r}. "
        f"{hint or 'Say a district or town of Malawi, or coordinates like -13.98, 33.78.'}"
    )


def _at(match: re.Match[str]) -> Place:
    latitude = _signed(match[1], match[2], "S")
    longitude = _signed(match[3], match[4], "W")
    if not (SOUTH <= latitude <= NORTH and WEST <= longitude <= EAST):
        raise InvalidInput(
            f"{latitude:g}, {longitude:g} is not in Malawi: latitude is {SOUTH:g} to {NORTH:g}, "
            f"longitude {WEST:g} to {EAST:g}"
        )
    point = Place("", latitude, longitude)
    near = min(known_places(), key=lambda known: distance(known, point))
    return Place(f"{latitude:.4f}, {longitude:.4f} (near {near.name})", latitude, longitude)


def _signed(number: str, letter: str | None, negative: str) -> float:
    value = float(number)
    if letter is None:
        return value
    if value < 0:
        raise InvalidInput(f"{number}{letter}: give a sign or a letter, not both")
    return -value if letter.upper() == negative else value


def distance(one: Place, other: Place) -> float:
    """How far apart, in degrees of latitude: good enough to rank places within one small country."""
    scale = math.cos(math.radians(one.latitude))
    return math.hypot(one.latitude - other.latitude, (one.longitude - other.longitude) * scale)
