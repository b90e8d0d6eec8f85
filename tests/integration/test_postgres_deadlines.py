"""Calls end in time and come back by themselves, whatever the server does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import quote, urlencode

import psycopg
import pytest
from psycopg import conninfo

from tests.conformance.suite import changes, query, record
from tests.faults import tcp_proxy as latency
from tests.plugins.tcp_proxy import TcpProxy
from vectorstore.errors import ConfigurationError, DeadlineExceeded, InvalidInput, StoreUnavailable
from vectorstore.filters import Filter
from vectorstore.postgres.index import ensure_index
from vectorstore.postgres.loading import begin_load, finish_load, load_block
from vectorstore.postgres.pool import connect
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Answer, Query

OpenStore = Callable[..., PostgresStore]


SHORT = (
    "statement_timeout=150",
    "lock_timeout=150",
    "idle_in_transaction_session_timeout=150",
)


@pytest.fixture
def proxied_store(postgres_store: OpenStore, proxied_dsn: str) -> PostgresStore:
    store = postgres_store(dsn=proxied_dsn, pool_size_max=2)
    store.upsert([record("one")])
    return store


@pytest.fixture
def locked(postgresql_dsn: str) -> Iterator[Callable[[str], None]]:
    """Locks a table against every use until the test ends."""
    with psycopg.connect(postgresql_dsn) as connection:

        def lock(table: str) -> None:
            connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")

        yield lock
        connection.rollback()


def test_a_deaf_server_does_not_hold_the_caller(
    proxied_store: PostgresStore, postgres_proxy: TcpProxy
) -> None:
    """With the peer alive and silent, each call ends at its deadline, not later."""
    postgres_proxy.deaf = True
    for _ in range(3):
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            proxied_store.search(query(timeout_ms=150))
        assert 0.14 < time.monotonic() - started < 0.25
    postgres_proxy.deaf = False
    postgres_proxy.cut()
    answer = eventually(lambda: proxied_store.search(query(timeout_ms=1000)))
    assert [hit.id for hit in answer.hits] == ["one"]


def test_a_deaf_server_does_not_hold_writes(
    postgres_store: OpenStore, proxied_dsn: str, postgres_proxy: TcpProxy
) -> None:
    """Calls without a deadline of their own are bounded by the statement timeout."""
    # The tables are made without that limit: it is not what a busy machine needs for them.
    table = postgres_store(dsn=proxied_dsn).settings.table
    store = postgres_store(dsn=proxied_dsn, table=table, statement_timeout_ms=200)
    store.upsert([record("one")])
    postgres_proxy.deaf = True
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        store.upsert([record("two")])
    assert time.monotonic() - started < 0.35
    postgres_proxy.deaf = False
    postgres_proxy.cut()


def test_many_callers_of_a_deaf_server_all_end_in_time(
    proxied_store: PostgresStore, postgres_proxy: TcpProxy
) -> None:
    """Waiting for a connection counts against the deadline too."""
    postgres_proxy.deaf = True

    def timed(_: int) -> float:
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            proxied_store.search(query(timeout_ms=200))
        return time.monotonic() - started

    with ThreadPoolExecutor(8) as threads:
        assert max(threads.map(timed, range(16))) < 0.4
    postgres_proxy.deaf = False
    postgres_proxy.cut()


def test_a_refusing_server_fails_the_call_at_once(
    proxied_store: PostgresStore, postgres_proxy: TcpProxy
) -> None:
    """Nobody waits for a deadline when the answer is known."""
    postgres_proxy.refuse()
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        proxied_store.search(query(timeout_ms=5000))
    assert time.monotonic() - started < 0.5


def test_the_first_call_after_a_return_succeeds(
    proxied_store: PostgresStore, postgres_proxy: TcpProxy
) -> None:
    """Connections that died idle are replaced within the call, and no back-off delays the return."""
    postgres_proxy.cut()
    assert proxied_store.search(query(timeout_ms=2000)).hits
    postgres_proxy.refuse()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            proxied_store.search(query(timeout_ms=500))
    postgres_proxy.serve()
    assert proxied_store.search(query(timeout_ms=2000)).hits


@pytest.mark.parametrize(
    "read",
    [
        lambda store: store.get(["one"], timeout_ms=300.0),
        lambda store: store.scan(timeout_ms=300.0),
        lambda store: store.count(timeout_ms=300.0),
        lambda store: store.count(Filter.of({"n": 1}), timeout_ms=300.0),
        lambda store: store.describe(timeout_ms=300.0),
        lambda store: store.applied_seq(timeout_ms=300.0),
    ],
    ids=["get", "scan", "count", "count some", "describe", "applied_seq"],
)
def test_every_read_may_bring_a_deadline(
    proxied_store: PostgresStore,
    postgres_proxy: TcpProxy,
    read: Callable[[PostgresStore], object],
) -> None:
    """A server that says nothing is waited for until then, and not for as long as a statement may take."""
    postgres_proxy.deaf = True
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        read(proxied_store)
    assert time.monotonic() - started < proxied_store.settings.statement_timeout_ms / 1e3 / 3
    postgres_proxy.deaf = False


def test_connections_ended_by_the_server_are_replaced(
    postgres_store: OpenStore, postgresql_dsn: str
) -> None:
    """As after a restart: the farewell in the socket is not taken for an answer."""
    store = postgres_store(pool_size_max=1)
    store.upsert([record("one")])
    with psycopg.connect(postgresql_dsn, autocommit=True) as other:
        for call in (lambda: store.search(query()), lambda: store.upsert([record("two")])):
            pid = store.read(lambda connection: connection.info.backend_pid)
            other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
            call()
    assert store.count() == 2


def test_a_write_over_a_dead_connection_is_made_once(
    postgres_store: OpenStore, proxied_dsn: str, postgres_proxy: TcpProxy
) -> None:
    """Applying starts again on a new connection and skips nothing and repeats nothing."""
    store = postgres_store(dsn=proxied_dsn)
    begin_load(store, incarnation="j", snapshot_id="s", seq=0)
    finish_load(store)
    assert store.apply(changes("a", "b")) == 2
    postgres_proxy.cut()
    assert store.apply(changes("a", "b", "c")) == 3
    assert [(row.id, row.seq) for row in store.scan()] == [("a", 1), ("b", 2), ("c", 3)]


def test_a_slow_query_is_cancelled_by_the_server(
    postgres_store: OpenStore, locked: Callable[[str], None], postgresql_dsn: str
) -> None:
    """The statement timeout fires before the client gives up, so the connection lives on."""
    store = postgres_store()
    store.upsert([record("one")])
    before = store.read(lambda connection: connection.info.backend_pid)
    locked(store.settings.table)
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="statement timeout"):
        store.search(query(timeout_ms=500))
    assert time.monotonic() - started < 0.55
    assert store.read(lambda connection: connection.info.backend_pid) == before


def test_a_short_deadline_does_not_stick_to_the_connection(postgres_store: OpenStore) -> None:
    """The next call on the same connection has its own time."""
    store = postgres_store(pool_size_max=1)
    # To connect may take longer than that on a busy machine.
    store.search(query())
    store.search(query(timeout_ms=40))
    store.read(lambda connection: connection.execute("SELECT pg_sleep(0.2)"))


def test_the_longest_deadline_that_a_query_may_have_is_one_that_the_server_can_count(
    postgres_store: OpenStore,
) -> None:
    """A day."""
    store = postgres_store()
    store.upsert([record("one")])
    assert store.search(query(timeout_ms=86_400_000.0)).hits
    assert store.search(query(timeout_ms=86_400_000.0, filter=Filter.of({"n": 1}))).hits == []
    with pytest.raises(InvalidInput, match="a day at most"):
        query(timeout_ms=86_400_001.0)


@pytest.mark.parametrize(
    "ask",
    [
        lambda store, one: store.search(one),
        lambda store, one: store.search(replace(one, filter=Filter.of({"all": True}))),
        lambda store, one: store.search_many([one, replace(one, timeout_ms=None)]),
        lambda store, one: store.search_many([replace(one, k=1)] * 65),
    ],
    ids=["plain", "filtered", "batch", "two batches"],
)
def test_one_deadline_holds_for_all_that_an_answer_takes(
    postgres_store: OpenStore,
    postgresql_dsn: str,
    ask: Callable[[PostgresStore, Query], object],
) -> None:
    """The index gives fewer rows than wanted, so an exact scan follows, in what is left of the time."""
    parts = conninfo.conninfo_to_dict(postgresql_dsn)
    with latency.TcpProxy((str(parts["host"]), int(str(parts["port"])))) as slow:
        dsn = postgresql_dsn.replace(f":{parts['port']}/", f":{slow.port}/")
        store = postgres_store(dsn=dsn, pool_size_max=1, exact_rows_max=0)
        store.upsert([record(f"r{n}", seed=n, metadata={"all": True}) for n in range(5)])
        assert ensure_index(store)
        # What is prepared on first use is prepared now.
        for _ in range(8):
            ask(store, query(timeout_ms=5_000))
        slow.switch("slow", latency_ms=100)
        # With its change of settings each of the two takes about 500 ms.
        with pytest.raises(DeadlineExceeded):
            ask(store, query(timeout_ms=700))


def test_the_accounts_own_timeouts_do_not_end_long_work(
    postgres_store: OpenStore, postgresql_dsn: str
) -> None:
    """An index is built for as long as it takes, whatever role or database allow by default."""
    store = postgres_store(dsn=with_defaults(postgresql_dsn, *SHORT), exact_rows_max=0)
    begin_load(store, incarnation="j", snapshot_id="s", seq=0)
    rows = [record(f"r{n:04d}", seed=n) for n in range(4_000)]
    load_block(store, rows, position_start=0, position_end=len(rows))
    finish_load(store, rows=len(rows))
    assert store.describe()["index_kind"] == "hnsw"
    with connect(store.settings) as connection:
        for name in SHORT:
            shown = connection.execute(f"SHOW {name.split('=')[0]}").fetchone()
            assert shown == ("0",), name


def test_a_write_waits_for_a_lock_until_its_own_deadline(
    postgres_store: OpenStore, postgresql_dsn: str
) -> None:
    """Not until the account's: whoever writes waits for those who write."""
    store = postgres_store(dsn=with_defaults(postgresql_dsn, *SHORT))
    store.upsert([record("one")])
    with psycopg.connect(postgresql_dsn) as other, ThreadPoolExecutor(1) as thread:
        other.execute(f"SELECT FROM {store.settings.table}_cursor FOR UPDATE")
        written = thread.submit(store.upsert, [record("two")])
        with pytest.raises(TimeoutError):
            written.result(timeout=0.4)
        other.rollback()
        assert written.result(timeout=10) == 2


def test_a_settings_change_and_the_query_are_one_round_trip(postgres_store: OpenStore) -> None:
    """A larger k widens ef_search for its own query only, in the same exchange."""
    store = postgres_store(pool_size_max=1, exact_rows_max=0, ef_search=50)
    store.upsert([record(f"r{n}", seed=n) for n in range(300)])
    assert ensure_index(store)
    for k, ef_search in ((200, "200"), (10, "50")):
        assert len(store.search(query(k=k)).hits) == k
        shown = store.read(lambda connection: connection.execute("SHOW hnsw.ef_search").fetchone())
        assert shown == (ef_search,)


def test_a_wrong_password_is_masked(postgresql_dsn: str) -> None:
    """The error says what is wrong and never repeats the secret."""
    dsn = "postgresql://postgres:s3cr3t%40x@" + postgresql_dsn.split("@")[1]
    with pytest.raises(ConfigurationError, match="password") as caught:
        PostgresStore.open(PostgresSettings(dsn=dsn, dimension=8))
    assert "s3cr3t" not in str(caught.value)
    assert "s3cr3t" not in repr(PostgresSettings(dsn=dsn, dimension=8))


def test_an_unreachable_server_is_named(postgresql_dsn: str) -> None:
    """Opening fails with where, without the password."""
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1/") as caught:
        PostgresStore.open(
            PostgresSettings(dsn="postgresql://me:hidden@127.0.0.1:1/db", dimension=8)
        )
    assert "hidden" not in str(caught.value)


def with_defaults(dsn: str, *settings: str) -> str:
    """The DSN of an account whose sessions begin with these settings."""
    return f"{dsn}?{urlencode({'options': ' '.join(f'-c {one}' for one in settings)}, quote_via=quote)}"


def eventually(call: Callable[[], Answer], timeout_s: float = 10.0) -> Answer:
    """The call's result as soon as the store is back."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return call()
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise
