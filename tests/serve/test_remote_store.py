"""The client of the proxy when the proxy refuses, fails or is not there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from farming_guide.settings import BotSettings
from farming_guide.wiring import open_backend
from tests.fakes.http_server import FakeServer
from tests.serve.running import WRITE_TOKEN, Running, running, settings_for
from vectorstore.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InvalidInput,
    StoreUnavailable,
)
from vectorstore.remote import RemoteStore
from vectorstore.types import Query, Record


def record(name: str) -> Record:
    return Record(name, np.arange(1, 9, dtype=np.float32), "text", {})


class Double(FakeServer):
    """Takes the place of a proxy: acknowledges every write, and can be made to fail."""

    def respond(self, request):  # type: ignore[no-untyped-def]
        if request.path == "/v1/info":
            return 200, {"name": "x", "dimension": 8, "metric": "cosine", "describe": {}}
        return 200, {"seq": 1}


def test_a_write_that_is_tried_again_keeps_its_operation_id() -> None:
    """Connections that break and 503 answers lead to the same request again, with the same id."""
    with Double() as server:
        store = RemoteStore(server.url)
        server.faults.extend(["cut", 503, 429])
        assert store.upsert([record("a")]) == 1
        writes = [one.body for one in server.requests if one.path == "/v1/records"]
        assert len(writes) == 4
        assert len({one["op_id"] for one in writes}) == 1
        store.close()


def test_a_proxy_that_stays_away_is_given_up(tmp_path: Path) -> None:
    """After the time allowed StoreUnavailable says where it was tried and what to do."""
    with Double() as server:
        store = RemoteStore(server.url, retry_ms=300)
        server.permanent_fault = "cut"
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="shadow serve"):
            store.count()
        assert time.monotonic() - started < 2
        store.close()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        RemoteStore("http://127.0.0.1:1", retry_ms=100)


@pytest.mark.parametrize(
    "read",
    [
        lambda store: store.search(Query(np.ones(8), timeout_ms=100)),
        lambda store: store.get(["a"], timeout_ms=100),
        lambda store: store.scan(timeout_ms=100),
        lambda store: store.count(timeout_ms=100),
        lambda store: store.describe(timeout_ms=100),
    ],
    ids=["search", "get", "scan", "count", "describe"],
)
def test_a_deadline_is_kept_by_the_client_too(read: Callable[[RemoteStore], object]) -> None:
    """A proxy that says nothing at all ends a read soon after its deadline."""
    with Double() as server:
        store = RemoteStore(server.url)
        server.permanent_fault = "hang"
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            read(store)
        assert time.monotonic() - started < 3
        store.close()


def test_a_deadline_is_sent_along() -> None:
    """The proxy hears of it: what it waits for, it waits no longer for than the caller does."""

    class Holding(Double):
        def respond(self, request):  # type: ignore[no-untyped-def]
            status, answer = super().respond(request)
            return status, {"records": [], "count": 0, **answer}

    with Holding() as server:
        store = RemoteStore(server.url)
        store.get(["a"], timeout_ms=5_000.0)
        store.count(timeout_ms=5_000.0)
        sent = [one.body["timeout_ms"] for one in server.requests[-2:]]
        store.scan(timeout_ms=5_000.0)
        store.describe(timeout_ms=5_000.0)
        sent += [float(one.query["timeout_ms"]) for one in server.requests[-2:]]
        assert [one for one in sent if not 4_000 < one <= 5_000] == []
        for read in (store.scan, store.describe):
            read()
            assert "timeout_ms" not in server.requests[-1].query
        store.close()


@pytest.mark.parametrize(("given", "told"), [(0.0, 1.0), (0.3, 1.0), (7_200_000.0, 3_600_000.0)])
def test_a_deadline_that_the_proxy_would_refuse_is_told_as_one_that_it_takes(
    given: float, told: float
) -> None:
    """What is left of an application's time may be next to nothing: that is no wrong question."""

    class Answering(Double):
        def respond(self, request):  # type: ignore[no-untyped-def]
            status, answer = super().respond(request)
            empty = {"records": [], "count": 0, "hits": [], "store": "faiss", "applied_seq": 0}
            return status, {**empty, **answer}

    with Answering() as server:
        store = RemoteStore(server.url)
        store.search(Query(np.ones(8), timeout_ms=given))
        store.get(["a"], timeout_ms=given)
        store.count(timeout_ms=given)
        assert [one.body["timeout_ms"] for one in server.requests[-3:]] == [told] * 3
        store.describe(timeout_ms=given)
        assert float(server.requests[-1].query["timeout_ms"]) == told
        store.close()


def test_something_else_at_the_address_is_named() -> None:
    """A web server that is no proxy is a configuration error, not a store."""
    with Double() as server:
        server.faults.append("rubbish")
        with pytest.raises(ConfigurationError, match="not a proxy"):
            RemoteStore(server.url)
        server.permanent_fault = 404
        with pytest.raises((ConfigurationError, StoreUnavailable)):
            RemoteStore(server.url, retry_ms=100)


def test_the_write_token_is_sent(guarded: Running) -> None:
    """With it writes are taken; without it a configuration error says what is missing."""
    with_token = RemoteStore(guarded.url, write_token=WRITE_TOKEN)
    assert with_token.upsert([record("token")]) > 0
    without = RemoteStore(guarded.url)
    with pytest.raises(ConfigurationError, match="token"):
        without.upsert([record("token")])
    with_token.close()
    without.close()


def test_what_the_proxy_refuses_is_the_stores_own_error(guarded: Running) -> None:
    """A limit of the proxy's comes back as InvalidInput with its words."""
    store = RemoteStore(guarded.url, write_token=WRITE_TOKEN)
    with pytest.raises(InvalidInput, match="at most 50"):
        store.search(Query(np.ones(8), k=51))
    with pytest.raises(InvalidInput, match="at most 3"):
        store.get(["a", "b", "c", "d"])
    store.close()


def test_many_threads_share_one_client(proxy: Running) -> None:
    """Writes of sixteen threads through one client all arrive, each once."""
    store = RemoteStore(proxy.url)
    before = store.count()

    def write(n: int) -> None:
        for part in range(5):
            store.upsert([record(f"t{n}-{part}")])

    threads = [threading.Thread(target=write, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.count() == before + 80
    store.close()


def test_a_client_survives_a_restart_of_the_proxy(tmp_path: Path) -> None:
    """A proxy that comes back under the same address is used again without a new client."""
    settings = settings_for(tmp_path / "state")
    with running(settings) as first:
        store = RemoteStore(first.url)
        store.upsert([record("before")])
    with pytest.raises(StoreUnavailable):
        RemoteStore(first.url, retry_ms=50)
    store.close()


def test_the_bot_uses_the_proxy_by_one_setting(proxy: Running) -> None:
    """VECTOR_DB_TYPE=remote and the address; another model's dimension is refused."""
    backends = {
        "remote": {
            "class": "RemoteBackend",
            "module": "farming_guide.remote_backend",
            "settings": {"url": proxy.url},
        }
    }
    settings = BotSettings.model_validate(
        {"vector_db_type": "remote", "database_backends": backends}
    )
    backend = open_backend(settings, 8)
    backend.store.upsert([record("from the bot")])
    assert backend.load()
    assert backend.store.get(["from the bot"])[0].text == "text"
    backend.store.close()
    with pytest.raises(ConfigurationError, match="8 dimensions"):
        open_backend(settings, 384)
