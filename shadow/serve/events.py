"""Live updates for the page, as server-sent events: only what changed is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from fastapi import APIRouter
from starlette.responses import StreamingResponse

from shadow.config import ServeSettings
from shadow.serve.facts import json_status
from shadow.serve.panels import panels
from shadow.serve.problems import Problem
from shadow.serve.standing import Standing
from shadow.serve.watch import Watch

__all__ = ["event_routes"]

DRAIN_LOOK_S = 0.25


def event_routes(watch: Watch, standing: Standing, settings: ServeSettings) -> APIRouter:
    """The route of the live events."""
    routes = APIRouter(prefix="/v1", tags=["look"])

    @routes.get("/events", summary="Live events", response_class=StreamingResponse)
    async def events() -> StreamingResponse:
        """`status` with the facts as JSON, and `panel` with a part of the page, whenever one changes."""
        if standing.draining:
            raise Problem("draining", "the proxy is stopping")
        if standing.streams >= settings.streams_max:
            raise Problem("overloaded", f"{settings.streams_max} pages follow the events already")
        return StreamingResponse(
            _events(watch, standing, settings.refresh_ms / 1e3),
            media_type="text/event-stream",
            headers={"x-accel-buffering": "no"},
        )

    return routes


async def _events(watch: Watch, standing: Standing, every_s: float) -> AsyncIterator[bytes]:
    sent: dict[str, str] = {}
    standing.streams += 1
    try:
        while not standing.draining:
            look = await asyncio.to_thread(watch.look)
            fresh = {name: str(html) for name, html in panels(look).items()}
            for name, html in fresh.items():
                if sent.get(name) != html:
                    yield _event("panel", {"name": name, "html": html})
            sent = fresh
            yield _event("status", json_status(look))
            waited_s = 0.0
            while waited_s < every_s and not standing.draining:
                await asyncio.sleep(min(DRAIN_LOOK_S, every_s))
                waited_s += min(DRAIN_LOOK_S, every_s)
    finally:
        standing.streams -= 1


def _event(name: str, values: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(values)}\n\n".encode()
