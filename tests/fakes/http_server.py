"""A small HTTP server on localhost that answers as told and can be made to fail on purpose."""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

__all__ = ["FakeServer", "Request"]


@dataclass(frozen=True)
class Request:
    """What came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any = field(repr=False, default=None)


class FakeServer:
    """Serves on a free port; subclasses answer in :meth:`respond`. Use as a context manager.

    Faults are taken from ``faults``, one a request: a status code, ``"cut"`` (the connection closes in
    the middle of the answer), ``"rubbish"`` (HTML with status 200) or ``"hang"`` (until closed).
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.faults: deque[int | str] = deque()
        self.permanent_fault: int | str | None = None
        self.error_text = "planned failure"
        self._released = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                fake._handle(self)

            def do_POST(self) -> None:
                fake._handle(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # clients that were cut off on purpose

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def respond(self, request: Request) -> tuple[int, Any]:
        """The status and the JSON body for a request."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        raw = handler.rfile.read(length)
        url = urlsplit(handler.path)
        request = Request(
            handler.command,
            url.path,
            dict(parse_qsl(url.query)),
            {name.lower(): value for name, value in handler.headers.items()},
            _decoded(raw, handler.headers.get("Content-Type", "")),
        )
        self.requests.append(request)
        fault = self.faults.popleft() if self.faults else self.permanent_fault
        if fault == "hang":
            self._released.wait(60)
            handler.close_connection = True
        elif fault == "cut":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{")
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
        elif fault == "rubbish":
            self._write_answer(handler, 200, b"<html>login</html>", "text/html")
        elif isinstance(fault, int):
            body = {"error": {"message": self.error_text, "type": "planned", "code": fault}}
            self._write_answer(handler, fault, json.dumps(body).encode(), "application/json")
        else:
            status, answer = self.respond(request)
            self._write_answer(handler, status, json.dumps(answer).encode(), "application/json")

    def _write_answer(
        self, handler: BaseHTTPRequestHandler, status: int, body: bytes, kind: str
    ) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        if status == 429:
            handler.send_header("Retry-After-Ms", "10")
        handler.end_headers()
        handler.wfile.write(body)


def _decoded(raw: bytes, kind: str) -> Any:
    if not raw:
        return None
    if "json" in kind:
        return json.loads(raw)
    if "form-urlencoded" in kind:
        return dict(parse_qsl(raw.decode()))
    return raw
