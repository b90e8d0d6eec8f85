"""A TCP proxy that goes deaf, refuses or comes back on demand: faults through a real socket."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator

import pytest
from psycopg import conninfo


class TcpProxy:
    """Forwards bytes to ``target`` and back, while it is told to.

    ``deaf``: accepts and keeps connections but passes nothing on. ``refuse`` closes every connection
    and the listener; ``serve`` opens it again on the same port.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.deaf = False
        self._target = target
        self._peers: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._lock = threading.RLock()
        self._listener: socket.socket | None = None
        self._stopping = False
        self.port = 0
        self.serve()
        self._thread = threading.Thread(target=self._run, name="tcp proxy", daemon=True)
        self._thread.start()

    def serve(self) -> None:
        """Accept connections, on the port of the first time."""
        with self._lock:
            if self._listener is None:
                self._listener = socket.create_server(("127.0.0.1", self.port))
                self.port = self._listener.getsockname()[1]
                self._selector.register(self._listener, selectors.EVENT_READ)

    def refuse(self) -> None:
        """Refuse new connections and cut those there are."""
        with self._lock:
            if self._listener is not None:
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener = None
        self.cut()

    def cut(self) -> None:
        """Cut the connections there are."""
        with self._lock:
            for side in list(self._peers):
                self._drop(side)

    def close(self) -> None:
        """Stop for good."""
        self._stopping = True
        self._thread.join()
        self.refuse()
        self._selector.close()

    def _run(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select(timeout=0.02):
                with self._lock:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._peers:
                        self._forward(key.fileobj)

    def _accept(self) -> None:
        assert self._listener is not None
        client, _ = self._listener.accept()
        server = socket.create_connection(self._target)
        for one, other in ((client, server), (server, client)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _forward(self, side: socket.socket) -> None:
        if self.deaf:
            # Unread bytes stay readable; the pause keeps the loop from spinning.
            threading.Event().wait(0.005)
            return
        try:
            data = side.recv(1 << 16)
            if data:
                self._peers[side].sendall(data)
                return
        except OSError:
            pass
        self._drop(side)

    def _drop(self, side: socket.socket) -> None:
        for one in (side, self._peers.get(side)):
            if one is not None and self._peers.pop(one, None) is not None:
                self._selector.unregister(one)
                with contextlib.suppress(OSError):
                    one.close()


@pytest.fixture
def postgres_proxy(postgresql_dsn: str) -> Iterator[TcpProxy]:
    """A proxy in front of the session's server."""
    parts = conninfo.conninfo_to_dict(postgresql_dsn)
    proxy = TcpProxy((str(parts["host"]), int(str(parts["port"]))))
    yield proxy
    proxy.close()


@pytest.fixture
def proxied_dsn(postgresql_dsn: str, postgres_proxy: TcpProxy) -> str:
    """The session server's DSN by way of the proxy."""
    port = conninfo.conninfo_to_dict(postgresql_dsn)["port"]
    return postgresql_dsn.replace(f":{port}/", f":{postgres_proxy.port}/")
