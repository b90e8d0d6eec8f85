"""A sick shadow changes nothing; a sick primary is met by the other store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psycopg
import pytest
from psycopg import conninfo

from shadow.config import Settings
from shadow.config_sources import load_settings
from shadow.core.phases import Phase, Request, Wanted
from shadow.opening import Migration, open_migration
from shadow.router import Router
from shadow.service import open_router
from shadow.writes.backfill import backfill
from tests.faults.tcp_proxy import Mode, TcpProxy
from vectorstore import Filter, Query, Record
from vectorstore.errors import DeadlineExceeded
from vectorstore.faiss.store import FaissStore

ROWS, DIMENSION = 200, 16
DEADLINE_S = 30.0


def until(what: str, met: Callable[[], bool], seconds: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, f"{what} not within {seconds} s"
        time.sleep(0.02)


@pytest.fixture
def proxy(postgresql_dsn: str) -> Iterator[TcpProxy]:
    parts = conninfo.conninfo_to_dict(postgresql_dsn)
    with TcpProxy((str(parts["host"]), int(str(parts["port"])))) as found:
        yield found


@pytest.fixture
def settings(tmp_path: Path, proxy: TcpProxy, postgresql_dsn: str, fresh_table: str) -> Settings:
    port = conninfo.conninfo_to_dict(postgresql_dsn)["port"]
    return load_settings(
        environment={
            "SHADOW_STATE_DIRECTORY": str(tmp_path / "state"),
            "SHADOW_FAISS__DIMENSION": str(DIMENSION),
            "DATABASE_URL": postgresql_dsn.replace(f":{port}/", f":{proxy.port}/"),
            "SHADOW_POSTGRESQL__TABLE": fresh_table,
            "SHADOW_MIRROR__EVENTS": "off",
            "SHADOW_MIRROR__TIMEOUT_MS": "300",
            "SHADOW_ROUTER__TIMEOUT_MS": "1500",
            "SHADOW_ROUTER__BREAKER_FAILURES": "3",
            "SHADOW_POSTGRESQL__CONNECT_TIMEOUT_MS": "500",
            # A connection that was given up has to be made anew, through a proxy that may be slow.
            "SHADOW_GATE__LATENCY_BUDGET_MS": "500",
        }
    )


@pytest.fixture
def router(settings: Settings) -> Iterator[Router]:
    """A router in the phase shadow, with some rows."""
    rng = np.random.default_rng(5)
    found = open_router(settings)
    found.upsert(
        [
            Record(
                f"r{n}",
                rng.normal(size=DIMENSION).astype(np.float32),
                f"text {n}",
                {"even": n % 2 == 0},
            )
            for n in range(ROWS)
        ]
    )
    beside = open_migration(settings)
    backfill(
        directory=settings.state_directory,
        journal=beside.journal,
        snapshots=beside.snapshots,
        store=beside.link.open(),
        current=lambda: beside.load_faiss().store,
    )
    beside.close()
    until("the phase shadow", lambda: found.route.phase is Phase.SHADOW)
    yield found
    found.close()


def queries(n: int = 40) -> list[Query]:
    rng = np.random.default_rng(6)
    even = Filter.of({"even": True})
    return [Query(rng.normal(size=DIMENSION), 5, even if i % 3 == 0 else None) for i in range(n)]


@pytest.mark.parametrize("mode", ["refuse", "hang", "slow", "garbage"])
def test_a_sick_shadow_changes_no_answer_and_no_error(
    mode: Mode, router: Router, proxy: TcpProxy
) -> None:
    """Every answer is the one that FAISS gave before, by FAISS, and long before the shadow's deadline;
    what the shadow failed is counted against it."""
    before = [router.search(query) for query in queries()]
    proxy.switch(mode, latency_ms=2_000)
    proxy.cut()
    worst_s = 0.0
    for query, earlier in zip(queries(), before, strict=True):
        started = time.perf_counter()
        answer = router.search(query)
        worst_s = max(worst_s, time.perf_counter() - started)
        assert answer == earlier
        assert answer.store == "faiss"
    router.upsert([Record("new", np.ones(DIMENSION, dtype=np.float32), "written meanwhile", {})])
    assert router.search(Query(np.ones(DIMENSION), 1)).hits[0].id == "new"
    # The shadow's own deadline is 300 ms: no reader may have waited for one.
    assert worst_s < 0.25
    proxy.switch("pass")


def test_failures_of_the_shadow_are_evidence(
    router: Router, proxy: TcpProxy, settings: Settings
) -> None:
    """What it refused counts as missed, so the gate cannot pass on what remains."""
    proxy.switch("refuse")
    proxy.cut()
    for query in queries():
        router.search(query)
    looking = open_migration(settings)
    try:
        until("the failures", lambda: failures(looking) >= len(queries()))
    finally:
        looking.close()
    proxy.switch("pass")


def failures(migration: Migration) -> int:
    era = migration.evidence.era()
    counts = migration.evidence.counts(0 if era is None else era.number, "postgresql")
    return counts.get(("success", "all"), {}).get(0.0, 0)


@pytest.mark.parametrize("mode", ["refuse", "hang", "garbage"])
def test_a_sick_primary_is_met_by_faiss(
    mode: Mode, router: Router, proxy: TcpProxy, settings: Settings
) -> None:
    """With PostgreSQL as the primary and sick, every read is answered by FAISS with every write in it,
    writes go on, and PostgreSQL answers again when it has caught up."""
    decide = open_migration(settings)
    try:
        # Without a mirror no change detector looks, which would roll back: the read rule is alone.
        decide.routes.change(decide.routes.current(), who="test", why="test", mirror_rate=0.0)
        decide.routes.ask(Request(Wanted.POSTGRESQL, "test", "test", force_reason="a test"))
        until("the flip", lambda: router.route.phase is Phase.POSTGRESQL)
        assert router.search(queries()[0]).store == "postgresql"
        proxy.switch(mode)
        proxy.cut()
        for n in range(10):
            vector = np.full(DIMENSION, 1.0 + n, dtype=np.float32)
            vector[0] = -n
            router.upsert([Record(f"during-{n}", vector, "written while the primary was away", {})])
            answer = router.search(Query(vector, 1))
            assert answer.store == "faiss"
            assert answer.hits[0].id == f"during-{n}"
        proxy.switch("pass")
        until("PostgreSQL again", lambda: router.search(queries()[0]).store == "postgresql")
        assert {record.id for record in router.get([f"during-{n}" for n in range(10)])} == {
            f"during-{n}" for n in range(10)
        }
    finally:
        decide.close()


def test_an_impatient_caller_takes_the_primary_from_nobody(
    router: Router, proxy: TcpProxy, settings: Settings
) -> None:
    """Who allows less than is fast enough is answered by FAISS if need be. That is no failure of
    PostgreSQL, which everybody else goes on being answered by, and nothing rolls back."""
    with closing(open_migration(settings)) as decide:
        decide.routes.ask(Request(Wanted.POSTGRESQL, "test", "test", force_reason="a test"))
        until("the flip", lambda: router.route.phase is Phase.POSTGRESQL)
        until("PostgreSQL", lambda: router.search(queries()[0]).store == "postgresql")
        proxy.switch("slow", latency_ms=2)
        for query in queries(30):
            assert router.search(replace(query, timeout_ms=1.0)).store == "faiss"
            assert router.search_many([replace(query, timeout_ms=1.0)])[0].store == "faiss"
            assert router.search(query).store == "postgresql"
        assert router._mirror.drain(DEADLINE_S)
        proxy.switch("pass")
        assert decide.routes.current().phase is Phase.POSTGRESQL


def test_who_is_asked_late_is_not_to_blame(
    router: Router, proxy: TcpProxy, settings: Settings
) -> None:
    """The second store has what is left of the deadline; that this does not suffice is no failure of its."""
    allowed_ms, exchange_ms = 800.0, 300.0
    ahead = router.upsert([record_of_ones("last")]) + 1
    query = replace(queries()[1], min_seq=ahead)

    heard: list[str] = []

    def refused(timeout_ms: float) -> bool:
        """Whether PostgreSQL said, too, that it lacks the write."""
        with pytest.raises(DeadlineExceeded) as raised:
            router.search(replace(query, timeout_ms=timeout_ms))
        heard.append(str(raised.value))
        return "postgresql: it has applied" in heard[-1]

    for _ in range(2 * settings.router.breaker_failures):
        proxy.switch("pass")
        until("PostgreSQL", lambda: refused(200.0))
        proxy.switch("slow", latency_ms=exchange_ms / 2)
        # It says so after two exchanges, and is asked once more.
        refused(allowed_ms)
    proxy.switch("pass")
    assert not [one for one in heard if "left alone" in one]


def test_a_deaf_second_store_holds_no_read_beyond_its_deadline(
    router: Router, proxy: TcpProxy
) -> None:
    """It is not asked how far it is first, which no deadline would bound."""
    ahead = router.upsert([record_of_ones("last")]) + 1
    proxy.switch("hang")
    started = time.perf_counter()
    with pytest.raises(DeadlineExceeded, match=r"faiss: .*; postgresql: "):
        router.search(replace(queries()[1], timeout_ms=400.0, min_seq=ahead))
    # The server's own limit for a statement is 30 s.
    assert time.perf_counter() - started < 10.0
    proxy.switch("pass")
    proxy.cut()


@pytest.mark.parametrize("timeout_ms", [None, 700.0])
@pytest.mark.parametrize(
    "read",
    [
        lambda router, ms: [record.id for record in router.get(["r7", "r3"], timeout_ms=ms)],
        lambda router, ms: [record.id for record in router.scan(limit=3, timeout_ms=ms)],
        lambda router, ms: router.count(timeout_ms=ms),
        lambda router, ms: router.count(Filter.of({"even": True}), timeout_ms=ms),
        lambda router, ms: router.describe(timeout_ms=ms)["phase"],
    ],
    ids=["get", "scan", "count", "count some", "describe"],
)
def test_a_deaf_primary_holds_no_read_beyond_its_deadline(
    read: Callable[[Router, float | None], object],
    timeout_ms: float | None,
    router: Router,
    proxy: TcpProxy,
    settings: Settings,
) -> None:
    """Whatever is read has the deadline of a search, its own or the router's; then FAISS answers. Such a
    store is left alone soon, as if searches had met it."""
    with flipped(router, settings):
        before = read(router, None)
        proxy.switch("hang")
        for _ in range(settings.router.breaker_failures):
            started = time.perf_counter()
            assert read(router, timeout_ms) == before
            # One statement may take 30 s, and a read has three.
            assert time.perf_counter() - started < 10.0
        assert router._reads.breakers["postgresql"].is_open
        proxy.switch("pass")
        proxy.cut()


def test_a_large_count_is_no_failure_of_the_primary(
    router: Router, proxy: TcpProxy, settings: Settings, postgresql_dsn: str
) -> None:
    """One that takes longer than its caller allows is made by FAISS, and PostgreSQL, which answers
    everything else, is not left alone for it. Who sets no deadline waits longer than for a search."""
    table = settings.postgresql.table
    allowed_ms = 1.2 * settings.gate.latency_budget_ms
    longer_s = 1.5 * settings.router.timeout_ms / 1e3
    with (
        flipped(router, settings),
        ThreadPoolExecutor(1) as thread,
        psycopg.connect(postgresql_dsn) as other,
    ):
        # Whoever counts waits for this, and then finds a row less than FAISS has.
        other.execute(f"DELETE FROM {table} WHERE id = 'r0'")
        other.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        for _ in range(settings.router.breaker_failures):
            assert router.count(timeout_ms=allowed_ms) == ROWS
        counted = thread.submit(router.count)
        until("a long count", lambda: waits(postgresql_dsn, table, longer_s))
        other.commit()
        assert counted.result(DEADLINE_S) == ROWS - 1
        assert router.search(queries()[0]).store == "postgresql"


def waits(dsn: str, table: str, seconds: float) -> bool:
    """Whether somebody has waited so long for the table."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_locks WHERE relation = %s::regclass AND NOT granted "
            "AND clock_timestamp() - waitstart > make_interval(secs => %s)",
            (table, seconds),
        ).fetchone()
    return row is not None and row[0] > 0


@contextmanager
def flipped(router: Router, settings: Settings) -> Iterator[None]:
    """PostgreSQL answers, and without a mirror no change detector rolls that back."""
    with closing(open_migration(settings)) as decide:
        decide.routes.change(decide.routes.current(), who="test", why="test", mirror_rate=0.0)
        decide.routes.ask(Request(Wanted.POSTGRESQL, "test", "test", force_reason="a test"))
        until("the flip", lambda: router.route.phase is Phase.POSTGRESQL)
        until("PostgreSQL", lambda: router.search(queries()[0]).store == "postgresql")
        yield


def test_a_read_that_waits_does_not_search_a_faiss_that_is_behind(router: Router) -> None:
    """A look at how far it is costs nothing, and searches would slow those that may be answered."""
    ahead = router.upsert([record_of_ones("last")]) + 1
    searches = 0
    search = FaissStore.search

    def counted(store: FaissStore, query: Query) -> Any:
        nonlocal searches
        searches += 1
        return search(store, query)

    with (
        mock.patch.object(FaissStore, "search", counted),
        pytest.raises(DeadlineExceeded, match="faiss: "),
    ):
        router.search(replace(queries()[1], timeout_ms=400.0, min_seq=ahead))
    assert searches <= 1


def record_of_ones(name: str) -> Record:
    return Record(name, np.ones(DIMENSION, dtype=np.float32), "text", {})


def test_batches_that_fail_are_evidence(
    router: Router, proxy: TcpProxy, settings: Settings
) -> None:
    """An application that only asks in batches is rolled back as any other."""
    with closing(open_migration(settings)) as decide:
        decide.routes.ask(Request(Wanted.POSTGRESQL, "test", "test", force_reason="a test"))
        until("the flip", lambda: router.route.phase is Phase.POSTGRESQL)
        until("PostgreSQL", lambda: router.search_many(queries(4))[0].store == "postgresql")
        proxy.switch("refuse")
        proxy.cut()
        until(
            "the rollback",
            lambda: (
                {answer.store for answer in router.search_many(queries(4))} == {"faiss"}
                and decide.routes.current().phase is Phase.SHADOW
            ),
        )
        proxy.switch("pass")


def test_batches_that_are_answered_bring_a_store_back(
    router: Router, proxy: TcpProxy, settings: Settings
) -> None:
    """For good, and not for one call in each pause of the breaker."""
    batch = queries(4)
    with closing(open_migration(settings)) as decide:
        decide.routes.change(decide.routes.current(), who="test", why="test", mirror_rate=0.0)
        decide.routes.ask(Request(Wanted.POSTGRESQL, "test", "test", force_reason="a test"))
        until("the flip", lambda: router.route.phase is Phase.POSTGRESQL)
        proxy.switch("refuse")
        proxy.cut()
        for _ in range(settings.router.breaker_failures):
            assert {answer.store for answer in router.search_many(batch)} == {"faiss"}
        proxy.switch("pass")
        until("PostgreSQL again", lambda: router.search_many(batch)[0].store == "postgresql")
        assert all(router.search_many(batch)[0].store == "postgresql" for _ in range(20))


def test_a_process_that_starts_says_nothing_against_the_primary(
    router: Router, proxy: TcpProxy, settings: Settings
) -> None:
    """While a new process is still connecting, FAISS answers there; none of these reads counts as a
    failure of PostgreSQL, which would roll the migration back at every deployment."""
    decide = open_migration(settings)
    started: Router | None = None
    try:
        decide.routes.ask(Request(Wanted.POSTGRESQL, "test", "test", force_reason="a test"))
        until("the flip", lambda: router.route.phase is Phase.POSTGRESQL)
        proxy.switch("slow", latency_ms=10)
        started = open_router(settings)
        assert started.route.phase is Phase.POSTGRESQL
        assert started.search(queries()[0]).store == "faiss"
        asked = iter(range(1_000_000))
        one = queries(300)
        until(
            "an answer by PostgreSQL in the new process",
            lambda: started.search(one[next(asked) % 300]).store == "postgresql",
        )
        proxy.switch("pass")
        until("an answer at once", lambda: started.search(one[0]).store == "postgresql")
        started._mirror.drain(DEADLINE_S)
        era = decide.evidence.era()
        failed = decide.evidence.latencies(0 if era is None else era.number, "postgresql")
        assert [n for ms, n in failed if ms == float("inf")] == []
        assert decide.routes.current().phase is Phase.POSTGRESQL
    finally:
        decide.close()
        if started is not None:
            started.close()
