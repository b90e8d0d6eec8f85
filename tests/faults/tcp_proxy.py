"""A TCP proxy in front of a server, which can be told to fail in the ways that networks and servers do.

======== =====================================================================================
mode     what a client sees
======== =====================================================================================
pass     the server
refuse   connections refused; existing ones go on until they are cut
hang     connections accepted and kept, bytes swallowed in both directions
slow     the server, with ``latency_ms`` added in each direction of every exchange
garbage  rubbish in place of the server's replies
======== =====================================================================================

``cut`` resets every existing connection, in any mode. A mode holds for existing connections too.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Literal

__all__ = ["Mode", "TcpProxy"]

Mode = Literal["pass", "refuse", "hang", "slow", "garbage"]

POLL_S = 0.02
CHUNK_BYTES = 1 << 16


class _Connection:
    """A client and its server side. Two pumps use the sockets; the last of them closes both."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.ended = threading.Event()
        self._pumps = 2
        self._lock = threading.Lock()
        for side in (client, server):
            side.setblocking(False)
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def reset(self) -> None:
        """Make the close that follows a reset: that is what a linger of zero does."""
        with self._lock:
            if self._pumps:
                for side in (self.client, self.server):
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.ended.set()

    def leave(self) -> bool:
        """One pump is done; whether it was the last, which then has closed the sockets."""
        self.ended.set()
        with self._lock:
            self._pumps -= 1
            if not self._pumps:
                self.client.close()
                self.server.close()
            return not self._pumps


class TcpProxy:
    """Listens on 127.0.0.1 and forwards to ``upstream`` (host and port), as :attr:`mode` says."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self._upstream = upstream
        self._mode: Mode = "pass"
        self._latency_ms = 0.0
        self._lock = threading.Lock()
        self._open: set[_Connection] = set()
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._listener: socket.socket | None = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self._spawn(self._accept)

    @property
    def mode(self) -> Mode:
        """What the proxy does now."""
        return self._mode

    @property
    def connections(self) -> int:
        """How many connections are open."""
        with self._lock:
            return len(self._open)

    def switch(self, mode: Mode, *, latency_ms: float = 0.0) -> None:
        """Change what happens to new and existing connections from now on."""
        with self._lock:
            self._mode, self._latency_ms = mode, latency_ms
            if mode == "refuse" and self._listener is not None:
                self._listener.close()
                self._listener = None
            elif mode != "refuse" and self._listener is None:
                self._listener = self._listen(self.port)

    def cut(self) -> None:
        """Reset every existing connection (RST, both sides)."""
        with self._lock:
            for connection in self._open:
                connection.reset()

    def stop(self) -> None:
        """Close everything and wait for the threads."""
        self._stopping.set()
        with self._lock:
            if self._listener is not None:
                self._listener.close()
                self._listener = None
        self.cut()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> TcpProxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=64)
        listener.setblocking(False)
        return listener

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="tcp-proxy", daemon=True)
        thread.start()
        self._threads = [*filter(threading.Thread.is_alive, self._threads), thread]

    def _accept(self) -> None:
        while not self._stopping.wait(0):
            try:
                with self._lock:
                    client = None if self._listener is None else self._listener.accept()[0]
            except BlockingIOError:
                client = None
            if client is None:
                self._stopping.wait(POLL_S / 4)
                continue
            self.accepted += 1
            try:
                server = socket.create_connection(self._upstream, timeout=5)
            except OSError:
                client.close()
                continue
            connection = _Connection(client, server)
            with self._lock:
                self._open.add(connection)
            self._spawn(self._pump, connection, client, server)
            self._spawn(self._pump, connection, server, client)

    def _pump(self, connection: _Connection, source: socket.socket, target: socket.socket) -> None:
        """Carry bytes one way until either side ends, treating them as the mode says."""
        rubbish = random.Random(7)
        try:
            while not connection.ended.is_set():
                if not select.select([source], [], [], POLL_S)[0]:
                    continue
                data = source.recv(CHUNK_BYTES)
                if not data:
                    break
                if self._mode == "hang":
                    continue
                if self._mode == "slow":
                    connection.ended.wait(self._latency_ms / 1e3)
                if self._mode == "garbage" and source is connection.server:
                    data = rubbish.randbytes(len(data))
                while data and not connection.ended.is_set():
                    if select.select([], [target], [], POLL_S)[1]:
                        data = data[target.send(data) :]
        except ConnectionError:
            # One side was reset; the other one hears of it when the last pump closes.
            connection.ended.set()
        finally:
            if connection.leave():
                with self._lock:
                    self._open.discard(connection)
