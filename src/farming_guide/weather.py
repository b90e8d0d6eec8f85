"""The coming days' weather from Open-Meteo."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from datetime import date
from http.client import HTTPException
from typing import Any

from farming_guide.errors import ProviderRefused, ProviderUnavailable
from farming_guide.places import Place
from vectorstore.errors import ConfigurationError

__all__ = ["Day", "Forecast", "OpenMeteo"]

DAYS = 7
ANSWER_BYTES_MAX = 1_000_000
# The names of Open-Meteo's daily variables (open-meteo.com, "Weather Forecast API", Daily Parameter).
RAIN, CHANCE = "precipitation_sum", "precipitation_probability_max"
WARMEST, COLDEST = "temperature_2m_max", "temperature_2m_min"


@dataclass(frozen=True, slots=True)
class Day:
    """One day: rain in mm, chance of rain in percent (None if not given), temperatures in °C."""

    day: date
    rain_mm: float
    chance_percent: float | None
    warmest_c: float
    coldest_c: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """The coming days for a place, today first."""

    place: Place
    days: tuple[Day, ...]

    @property
    def rain_mm(self) -> float:
        """Rain over all days."""
        return sum(day.rain_mm for day in self.days)


class OpenMeteo:
    """Asks Open-Meteo, which needs no key; safe to share between threads.

    Raises ProviderUnavailable (network, time-out, server error, rate limit) or ProviderRefused (an
    answer that is not its interface).
    """

    def __init__(
        self, base_url: str = "https://api.open-meteo.com", *, timeout_s: float = 5.0
    ) -> None:
        if urllib.parse.urlsplit(base_url).scheme not in ("http", "https"):
            raise ConfigurationError(
                f"the weather address {base_url!r} must begin with http:// or https://"
            )
        self._base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s

    def forecast(self, place: Place) -> Forecast:
        """The next seven days."""
        query = urllib.parse.urlencode(
            {
                "latitude": f"{place.latitude:.4f}",
                "longitude": f"{place.longitude:.4f}",
                "daily": ",".join((RAIN, CHANCE, WARMEST, COLDEST)),
                "timezone": "Africa/Blantyre",
                "forecast_days": DAYS,
            }
        )
        answer = self._get(f"{self._base_url}/v1/forecast?{query}")
        try:
            daily = answer["daily"]
            days = tuple(
                Day(
                    date.fromisoformat(daily["time"][at]),
                    float(daily[RAIN][at] or 0.0),
                    None if daily[CHANCE][at] is None else float(daily[CHANCE][at]),
                    float(daily[WARMEST][at]),
                    float(daily[COLDEST][at]),
                )
                for at in range(len(daily["time"]))
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ProviderRefused("the weather service answered without daily values") from error
        if not days:
            raise ProviderRefused("the weather service answered no days")
        return Forecast(place, days)

    def _get(self, url: str) -> Any:
        try:
            with urllib.request.urlopen(url, timeout=self._timeout_s) as response:  # noqa: S310 - http(s) only, checked above
                return json.loads(response.read(ANSWER_BYTES_MAX))
        except urllib.error.HTTPError as error:
            kind = ProviderRefused if error.code in (400, 404) else ProviderUnavailable
            raise kind(f"the weather service answered HTTP {error.code}") from error
        # A cut connection shows as one of several kinds of OSError and HTTPException.
        except (OSError, HTTPException) as error:
            raise ProviderUnavailable("the weather service cannot be reached") from error
        except ValueError as error:
            raise ProviderRefused(
                "the weather service answered something that is not JSON"
            ) from error
