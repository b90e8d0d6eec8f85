"""A fake of Open-Meteo's forecast endpoint."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from tests.fakes.http_server import FakeServer, Request

__all__ = ["FakeOpenMeteo"]

FIRST_DAY = date(2026, 1, 5)


class FakeOpenMeteo(FakeServer):
    """Seven days; ``rain_mm`` falls on the first and the third."""

    rain_mm = 12.0

    def respond(self, request: Request) -> tuple[int, Any]:
        if request.path != "/v1/forecast":
            return 404, {"error": True, "reason": "no such path"}
        names = request.query["daily"].split(",")
        days = int(request.query["forecast_days"])
        values: dict[str, list[Any]] = {
            "precipitation_sum": [self.rain_mm if d in (0, 2) else 0.0 for d in range(days)],
            "precipitation_probability_max": [80 if d in (0, 2) else None for d in range(days)],
            "temperature_2m_max": [28.4] * days,
            "temperature_2m_min": [17.6] * days,
        }
        daily = {name: values[name] for name in names}
        daily["time"] = [(FIRST_DAY + timedelta(days=d)).isoformat() for d in range(days)]
        return 200, {"latitude": float(request.query["latitude"]), "daily": daily}
