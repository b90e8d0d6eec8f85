"""`shadow serve`: the proxy under uvicorn, until SIGTERM, which lets what is under way end."""

from __future__ import annotations

import math
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from shadow.config import Settings
from shadow.opening import open_migration
from shadow.serve.app import create_app
from shadow.serve.standing import Standing
from shadow.service import route_through
from vectorstore.errors import ConfigurationError

__all__ = ["ProxyServer", "serve"]


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
    with _listening(settings) as listener:
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
            server.run(sockets=[listener])
        finally:
            router.close()


def _listening(settings: Settings) -> socket.socket:
    host, port = settings.serve.host.strip("[]"), settings.serve.port
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; set serve.host and serve.port"
        ) from error
