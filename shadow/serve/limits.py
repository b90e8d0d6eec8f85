"""The proxy's outer shell: every request is counted, bounded and answered, whatever happens inside."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shadow.config import ServeSettings
from shadow.events import EventLog
from shadow.serve.metrics import HttpMetrics
from shadow.serve.problems import Problem, problem_of, problem_response
from shadow.serve.security import HEADERS, Callers
from shadow.serve.standing import Standing

__all__ = ["UNCOUNTED", "Shell"]

BODY_WAIT_S_MAX = 30.0
ARRIVING_MAX = 512
# These are asked for by who watches the proxy, most of all when it is busy.
UNCOUNTED = frozenset({"/healthz", "/readyz", "/metrics", "/v1/events", "/v1/status"})
ENDLESS = frozenset({"/v1/events"})
BODY_TYPES = frozenset({"application/json", "application/octet-stream"})

log = EventLog("shadow.serve")


class Shell:
    """ASGI middleware: host and origin, body size, concurrency, security headers, metrics, log.

    The log names the address's pattern, never what stood in it, in the query string or in the body.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: ServeSettings,
        callers: Callers,
        metrics: HttpMetrics,
        standing: Standing,
    ) -> None:
        self._app = app
        self._settings = settings
        self._callers = callers
        self._metrics = metrics
        self._standing = standing
        self._under_way = 0
        self._arriving = 0
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        scope.setdefault("state", {})["arrived"] = started
        method = scope["method"]
        if method == "HEAD" and scope["path"] not in ENDLESS:
            # What is answered to GET but for the body, which the server leaves out.
            scope = {**scope, "method": "GET"}
        answered: list[int] = []

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered.append(message["status"])
                present = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((name, value) for name, value in HEADERS if name not in present),
                ]
            await send(message)

        try:
            await self._bounded(scope, receive, answer)
        except Exception as error:  # noqa: BLE001 - every request gets an answer, and no fault its words in the log
            problem = problem_of(error)
            if problem.kind == "internal":
                log.error("request_failed", error=type(error).__name__, at=_place(error))
            if not answered:
                await problem_response(problem)(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            status = answered[0] if answered else 499
            elapsed_s = time.perf_counter() - started
            self._metrics.request(method, route, status, elapsed_s)
            log.debug(
                "request",
                method=method,
                route=route,
                status=status,
                ms=round(elapsed_s * 1e3, 2),
            )

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        self._callers.check(headers.get(b"host", ""), headers.get(b"origin"))
        if scope["path"] in UNCOUNTED:
            await self._app(scope, receive, send)
            return
        self._require_room()
        parts: list[bytes] = []
        try:
            # What has not arrived is no work yet, and counts by itself: else a few clients that stop in the
            # middle of a body would keep everybody out until it is given up.
            self._arriving += 1
            try:
                await self._receive_body(headers, receive, parts)
            finally:
                self._arriving -= 1
            self._require_room()
            self._under_way += 1
            self._metrics.in_progress.set(self._under_way)
            try:
                await self._app(scope, _replayed(b"".join(parts), receive), send)
            finally:
                self._under_way -= 1
                self._metrics.in_progress.set(self._under_way)
        finally:
            self._held_bytes -= sum(map(len, parts))

    def _require_room(self) -> None:
        if self._standing.draining:
            raise Problem("draining", "the proxy is stopping; ask another one, or come back")
        allowed = self._settings.concurrency_max
        if self._under_way >= allowed:
            raise _overloaded(f"{allowed} requests are under way")
        if self._arriving >= ARRIVING_MAX:
            raise _overloaded(f"{ARRIVING_MAX} requests are arriving")

    async def _receive_body(
        self, headers: dict[bytes, str], receive: Receive, parts: list[bytes]
    ) -> None:
        """Receive the whole body while it, and all that are held with it, are within their limits."""
        limit = self._settings.body_bytes_max
        held_max = limit * self._settings.concurrency_max
        told = headers.get(b"content-length", "0")
        if told.isdigit() and int(told) > limit:
            raise _too_large(limit)
        size = 0
        try:
            async with asyncio.timeout(BODY_WAIT_S_MAX):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Problem("timeout", "the client went away")
                    part = message.get("body", b"")
                    size += len(part)
                    if size > limit:
                        raise _too_large(limit)
                    if self._held_bytes + len(part) > held_max:
                        raise _overloaded(f"{held_max:,} bytes of requests are held")
                    self._held_bytes += len(part)
                    parts.append(part)
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            raise Problem(
                "timeout", f"the body did not arrive within {BODY_WAIT_S_MAX:.0f} s"
            ) from None
        kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
        if size and kind not in BODY_TYPES:
            raise Problem(
                "unsupported-media-type", "send application/json or application/octet-stream"
            )


def _overloaded(why: str) -> Problem:
    return Problem("overloaded", f"{why}; come back in a moment")


def _too_large(limit: int) -> Problem:
    return Problem(
        "too-large", f"the body is larger than {limit:,} bytes: send it in several requests"
    )


def _replayed(body: bytes, receive: Receive) -> Receive:
    told = False

    async def replay() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _place(error: BaseException) -> str:
    """File and line where an error was raised: enough to find it, without the values it met."""
    trace: Any = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
