"""Limits of the proxy: size, k, batch, concurrency, deadlines, draining."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import httpx
import pytest

from tests.serve.running import DIMENSION, WRITE_TOKEN, Running, eventually
from vectorstore.faiss.store import FaissStore

VECTOR = [1.0] * DIMENSION
HEADERS = {"authorization": f"Bearer {WRITE_TOKEN}"}


def kind(response: httpx.Response) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["title"]
    assert problem["detail"]
    return problem["type"].removeprefix("/problems/")


def test_a_large_body_is_refused_before_it_is_read(guarded: Running) -> None:
    """By its announced length, and by its true length when none is announced."""
    large = b"x" * 5_000
    announced = guarded.client.post("/v1/search", content=large)
    assert announced.status_code == 413
    assert kind(announced) == "too-large"
    streamed = guarded.client.post("/v1/search", content=iter([large[:3_000], large[3_000:]]))
    assert streamed.status_code == 413


def test_k_and_batches_are_bounded(guarded: Running) -> None:
    """The refusal names the limit."""
    refused = guarded.client.post("/v1/search", json={"vector": VECTOR, "k": 51})
    assert refused.status_code == 422
    assert "at most 50" in refused.json()["detail"]
    many = [{"vector": VECTOR}] * 4
    for path, body in (
        ("search/batch", {"queries": many}),
        ("records", {"records": [{"id": str(n), "vector": VECTOR} for n in range(4)]}),
        ("records/delete", {"ids": list("abcd")}),
        ("records/get", {"ids": list("abcd")}),
    ):
        refused = guarded.client.post(f"/v1/{path}", json=body, headers=HEADERS)
        assert refused.status_code == 422, path
        assert "at most 3" in refused.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"vector": VECTOR, "text": "both"},
        {"vector": VECTOR, "unknown": 1},
        {"vector": VECTOR, "k": 0},
        {"vector": VECTOR, "k": 1001},
        {"vector": VECTOR[:-1]},
        {"vector": [0.0] * DIMENSION},
        {"vector": ["x"] * DIMENSION},
        {"vector_base64": "%%%"},
        {"vector_base64": "AAAA"},
        {"vector": VECTOR, "filter": {"a": {"b": 1}}},
        {"vector": VECTOR, "filter": {"a\0": 1}},
        {"vector": VECTOR, "timeout_ms": -1},
        {"vector": VECTOR, "min_seq": -1},
        {"vector": VECTOR, "k": "5"},
        {"vector": [*VECTOR[:-1], "1"]},
    ],
    ids=str,
)
def test_bad_searches_are_refused(proxy: Running, body: dict[str, object]) -> None:
    """What no store may accept is a 422 with words, never a fault."""
    refused = proxy.client.post("/v1/search", json=body)
    assert refused.status_code == 422
    assert kind(refused) in ("invalid-input", "unsupported")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400"])
def test_numbers_that_are_none_are_refused(proxy: Running, number: str) -> None:
    """JSON's extensions do not get through."""
    text = f'{{"vector": [{number}{", 1" * (DIMENSION - 1)}]}}'
    refused = proxy.client.post(
        "/v1/search", content=text, headers={"content-type": "application/json"}
    )
    assert refused.status_code == 422


@pytest.mark.parametrize(
    "body",
    [b"[" * 200_000, b'{"vector": "\xff\xfe"}', b'{"vector": [' + b"9" * 6_000 + b"]}"],
    ids=["deep", "not UTF-8", "long number"],
)
def test_what_a_parser_chokes_on_is_refused(proxy: Running, body: bytes) -> None:
    """Nesting without end, other encodings and numbers of thousands of digits are a 422 with words."""
    refused = proxy.client.post(
        "/v1/search", content=body, headers={"content-type": "application/json"}
    )
    assert (refused.status_code, kind(refused)) == (422, "invalid-input")
    assert "cannot be read as JSON" in refused.json()["detail"]


def test_text_that_utf8_cannot_encode_is_refused(proxy: Running) -> None:
    """A lone surrogate in metadata is refused, and the refusal itself can be sent."""
    record = '{"id": "a", "vector": [1,1,1,1,1,1,1,1], "metadata": {"\\ud800": "\\udfff"}}'
    text = f'{{"records": [{record}]}}'
    refused = proxy.client.post(
        "/v1/records", content=text, headers={"content-type": "application/json"}
    )
    assert refused.status_code == 422
    assert "surrogate" in refused.json()["detail"]


def test_other_types_and_addresses_are_refused(proxy: Running) -> None:
    """Forms, unknown addresses and wrong methods are problems too."""
    form = proxy.client.post("/v1/search", data={"vector": "1"})
    assert (form.status_code, kind(form)) == (415, "unsupported-media-type")
    none = proxy.client.get("/v1/nowhere")
    assert (none.status_code, kind(none)) == (404, "not-found")
    broken = proxy.client.post(
        "/v1/search", content=b'{"vector": [1,', headers={"content-type": "application/json"}
    )
    assert "no JSON from character" in broken.json()["detail"]
    method = proxy.client.delete("/v1/search")
    assert (method.status_code, kind(method)) == (405, "method-not-allowed")
    assert method.headers["allow"] == "POST"
    assert proxy.client.delete("/v1/records").headers["allow"] == "GET, POST"
    assert proxy.client.post("/static/page.js").headers["allow"] == "GET"


def test_a_deadline_is_passed_through(proxy: Running) -> None:
    """A write that is never applied cannot be waited for longer than the caller allows."""
    head = proxy.migration.journal.head()
    started = time.monotonic()
    late = proxy.client.post(
        "/v1/search", json={"vector": VECTOR, "min_seq": head + 1_000, "timeout_ms": 200}
    )
    assert late.status_code == 503
    assert kind(late) == "deadline-exceeded"
    assert late.headers["retry-after"] == "1"
    assert 0.1 < time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("asked", "path", "body"),
    [
        ("get", "records/get", {"ids": []}),
        ("count", "count", {}),
        ("scan", "records", None),
        ("describe", "info", None),
    ],
)
def test_every_read_may_bring_a_deadline(
    proxy: Running, asked: str, path: str, body: dict[str, object] | None
) -> None:
    """It reaches the store, less what the request waited; one that is no length of time is refused."""
    seen: list[float | None] = []
    original = getattr(FaissStore, asked)

    def spied(store: FaissStore, *given: Any, **options: Any) -> Any:
        seen.append(options.get("timeout_ms"))
        return original(store, *given, **options)

    def read(timeout_ms: float) -> int:
        given = {"timeout_ms": timeout_ms}
        if body is None:
            return proxy.client.get(f"/v1/{path}", params=given).status_code
        return proxy.client.post(f"/v1/{path}", json=body | given).status_code

    with mock.patch.object(FaissStore, asked, spied):
        assert read(5_000.0) == 200
    # The proxy's own threads ask, too, and bring none.
    assert [one for one in seen if one is not None and 4_000 < one < 5_000]
    assert read(-1.0) == 422


@contextmanager
def half_sent(proxy: Running, sent: bytes, *, announced: int) -> Iterator[socket.socket]:
    """A client that stops in the middle of its body."""
    place = httpx.URL(proxy.url)
    with socket.create_connection((place.host, place.port or 80), timeout=10) as client:
        head = (
            f"POST /v1/search HTTP/1.1\r\nHost: {place.host}:{place.port}\r\nContent-Type: "
            f"application/json\r\nContent-Length: {announced}\r\nConnection: close\r\n\r\n"
        )
        client.sendall(head.encode() + sent)
        yield client


def test_clients_that_stop_in_the_middle_keep_nobody_out(guarded: Running) -> None:
    """More of them than may be worked on at a time; and who goes on after all is answered."""
    body = json.dumps({"vector": VECTOR}).encode()
    with ExitStack() as stack:
        clients = [
            stack.enter_context(half_sent(guarded, body[:5], announced=len(body))) for _ in range(8)
        ]
        for _ in range(100):
            assert guarded.client.post("/v1/search", json={"vector": VECTOR}).status_code == 200
        for client in clients:
            client.sendall(body[5:])
            assert client.recv(1_000).startswith(b"HTTP/1.1 200")


def test_the_bodies_that_are_held_are_bounded(guarded: Running) -> None:
    """By the bytes of as many of the largest as may be worked on at a time: here two."""
    with ExitStack() as stack:
        clients = [
            stack.enter_context(half_sent(guarded, b"x" * 4_000, announced=4_096)) for _ in range(3)
        ]
        answered, _, _ = select.select(clients, [], [], 20)
        assert len(answered) == 1
        assert answered[0].recv(1_000).startswith(b"HTTP/1.1 429")
    # Let go of with its client.
    eventually(
        lambda: guarded.client.post("/v1/search", json={"vector": VECTOR}).status_code == 200
    )


def test_too_many_at_a_time_are_told_to_come_back(guarded: Running) -> None:
    """Beyond the limit 429 with Retry-After; who watches the proxy is answered all the same."""
    waiting = {
        "vector": VECTOR,
        "min_seq": guarded.migration.journal.head() + 1_000,
        "timeout_ms": 3_000,
    }

    def wait() -> None:
        # One that came while this test was asking takes its turn after that.
        while (
            httpx.post(
                f"{guarded.url}/v1/search", json=waiting, timeout=10, trust_env=False
            ).status_code
            == 429
        ):
            time.sleep(0.01)

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    refusals: list[httpx.Response] = []

    def refused() -> bool:
        refusals.append(guarded.client.post("/v1/search", json={"vector": VECTOR}))
        return refusals[-1].status_code == 429

    eventually(refused, within_s=2.5)
    assert kind(refusals[-1]) == "overloaded"
    assert refusals[-1].headers["retry-after"] == "1"
    for path in ("/healthz", "/readyz", "/metrics", "/v1/status"):
        assert guarded.client.get(path).status_code == 200
    for thread in threads:
        thread.join()
    assert guarded.client.post("/v1/search", json={"vector": VECTOR}).status_code == 200
