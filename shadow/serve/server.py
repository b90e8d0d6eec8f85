"""`shadow serve`: the proxy under uvicorn, until SIGTERM, which lets what is under way end."""

from __future__ import annotations

import math
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from shadow.config import Settings
from shadow.events import EventLog
from shadow.opening import open_migration
from shadow.serve.app import create_app
from shadow.serve.security import Tokens, is_loopback
from shadow.serve.standing import Standing
from shadow.service import route_through
from vectorstore.errors import ConfigurationError

__all__ = ["ProxyServer", "listening", "serve"]

BACKLOG = 512

log = EventLog("shadow.serve")


class ProxyServer(uvicorn.Server):
    """Tells the proxy that it drains before uvicorn waits for what is under way."""

    def __init__(
        self, app: FastAPI, *, drain_s: float, on_ready: Callable[[], None] | None = None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                # Its access log names query strings, and filters stand in them.
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=max(1, math.ceil(drain_s)),
            )
        )
        self._standing: Standing = app.state.standing
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._on_ready is not None:
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._standing.draining = True
        super().handle_exit(sig, frame)

    def drain(self) -> None:
        """Stop as SIGTERM does; for a server that runs in a thread."""
        self.handle_exit(signal.SIGTERM, None)


def serve(
    settings: Settings, *, subject: str = "vector search", on_ready: Callable[[str], None]
) -> None:
    """Serve until SIGTERM or SIGINT. ``on_ready`` is told the address once it can be asked.

    Raises ConfigurationError if the address cannot be listened on, and as ``open_router``.
    """
    # A mistake in these is told before anything is opened.
    Tokens.of(settings.serve)
    if not is_loopback(settings.serve.host):
        log.warning(
            "reads_are_open",
            why="the address can be reached from other machines, and reads need no token: put a "
            "reverse proxy with a login in front",
        )
    with listening(settings.serve.host, settings.serve.port) as listener:
        host, port = listener.getsockname()[:2]
        migration = open_migration(settings)
        router = route_through(migration)
        try:
            app = create_app(migration, router, subject=subject)
            shown = f"[{host}]" if ":" in host else host
            server = ProxyServer(
                app,
                drain_s=settings.serve.drain_s,
                on_ready=lambda: on_ready(f"http://{shown}:{port}"),
            )
            with _handled_by(server):
                server.run(sockets=[listener])
        finally:
            router.close()


@contextmanager
def _handled_by(server: ProxyServer) -> Iterator[None]:
    """Signals go to the server, before and after it handles them itself: it sends itself those that it
    caught again when it has ended, and what is open must be closed first."""
    kept = {sig: signal.signal(sig, server.handle_exit) for sig in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for sig, handler in kept.items():
            signal.signal(sig, handler)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises ConfigurationError if the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol must be named: asyncio switches Nagle's algorithm off only for sockets that say
    # that they are TCP, and with it every answer waits 40 ms for the client's delayed ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; set serve.host and serve.port"
        ) from error
    return listener
