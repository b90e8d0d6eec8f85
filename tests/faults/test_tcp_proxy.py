"""The proxy that the fault tests stand on does what its modes say."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.faults.tcp_proxy import TcpProxy

DEADLINE_S = 5.0


class Echo(socketserver.BaseRequestHandler):
    """Sends back what it gets."""

    def handle(self) -> None:
        while data := self.request.recv(4096):
            self.request.sendall(data)


class EchoServer(socketserver.ThreadingTCPServer):
    """Quiet about connections that the proxy resets."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        return


@pytest.fixture
def proxy() -> Iterator[TcpProxy]:
    with EchoServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            with TcpProxy(("127.0.0.1", server.server_address[1])) as proxy:
                yield proxy
        finally:
            server.shutdown()
            thread.join()


def connect(proxy: TcpProxy, timeout_s: float = DEADLINE_S) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=timeout_s)


def ask(client: socket.socket, message: bytes = b"hello") -> bytes:
    client.sendall(message)
    return client.recv(4096)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def test_pass_is_the_server(proxy: TcpProxy) -> None:
    """Bytes go through both ways, and closing one side closes the other."""
    with connect(proxy) as client:
        assert ask(client) == b"hello"
        assert proxy.connections == 1
    until(lambda: proxy.connections == 0)


def test_refuse_and_return(proxy: TcpProxy) -> None:
    """New connections are refused at once, and accepted on the same port afterwards."""
    proxy.switch("refuse")
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.switch("pass")
    with connect(proxy) as client:
        assert ask(client) == b"hello"


def test_hang_goes_deaf_on_old_and_new_connections(proxy: TcpProxy) -> None:
    """Connecting works, answers never come, and nothing is closed."""
    with connect(proxy, timeout_s=0.2) as old:
        assert ask(old) == b"hello"
        proxy.switch("hang")
        with pytest.raises(TimeoutError):
            ask(old)
        with connect(proxy, timeout_s=0.2) as new, pytest.raises(TimeoutError):
            ask(new)


def test_slow_adds_its_latency(proxy: TcpProxy) -> None:
    """One exchange takes the latency twice, once each way."""
    with connect(proxy) as client:
        ask(client)
        proxy.switch("slow", latency_ms=50)
        start = time.monotonic()
        assert ask(client) == b"hello"
        assert time.monotonic() - start >= 0.1


def test_cut_resets_what_is_open(proxy: TcpProxy) -> None:
    """Existing connections get a reset; new ones work."""
    with connect(proxy) as client:
        ask(client)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        until(lambda: proxy.connections == 0)
    with connect(proxy) as client:
        assert ask(client) == b"hello"


def test_garbage_reaches_the_client_only(proxy: TcpProxy) -> None:
    """Replies have the right length and the wrong bytes."""
    proxy.switch("garbage")
    with connect(proxy) as client:
        answer = ask(client, b"x" * 64)
        assert len(answer) == 64
        assert answer != b"x" * 64


def test_an_absent_server_ends_the_connection(proxy: TcpProxy) -> None:
    """With nothing behind the proxy a client is let in and sent away, as a load balancer does."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with TcpProxy(("127.0.0.1", port)) as lonely, connect(lonely) as client:
        assert client.recv(1) == b""


def test_large_messages_pass_whole(proxy: TcpProxy) -> None:
    """More than the sockets can buffer, in both directions at once, arrives complete."""
    message = bytes(range(256)) * 32_768
    received = bytearray()
    with connect(proxy) as client:
        sender = threading.Thread(target=client.sendall, args=(message,))
        sender.start()
        while len(received) < len(message):
            received += client.recv(1 << 16)
        sender.join()
    assert bytes(received) == message
