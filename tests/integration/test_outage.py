"""PostgreSQL goes away for the length of a burst of writes, as the shadow and as the primary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import conninfo

from shadow.core.phases import Phase, Wanted
from shadow.status import status
from shadow.verdict import open_sentences
from tests.fakes.running import QUERY, Reader, Running, record_of, running, through, until
from tests.faults.tcp_proxy import Mode, TcpProxy

BATCH = 20


@pytest.fixture
def proxy(postgresql_dsn: str) -> Iterator[TcpProxy]:
    """A way to the session's server that can fail."""
    parts = conninfo.conninfo_to_dict(postgresql_dsn)
    with TcpProxy((str(parts["host"]), int(str(parts["port"])))) as way:
        yield way


@pytest.fixture
def migration(
    tmp_path: Path, postgresql_dsn: str, fresh_table: str, proxy: TcpProxy
) -> Iterator[Running]:
    """A migration in the phase shadow, its PostgreSQL behind the proxy."""
    dsn = through(postgresql_dsn, proxy.port)
    with running(tmp_path / "state", dsn, fresh_table) as started:
        started.router.upsert([record_of(number) for number in range(100)])
        started.fill()
        yield started


def burst(migration: Running, reader: Reader, writes: int) -> None:
    """Upserts and deletes in batches, ids overwritten again and again; every tenth one goes for good."""
    for start in range(0, writes, BATCH):
        numbers = range(1_000 + start % 500, 1_000 + start % 500 + BATCH)
        seq = migration.router.upsert([record_of(n, version=start) for n in numbers])
        reader.acknowledged = seq
        doomed = f"gone {start}"
        migration.router.upsert([_named(doomed)])
        seq = migration.router.delete([doomed])
        reader.deleted[doomed], reader.acknowledged = seq, seq


def _named(name: str) -> object:
    record = record_of(0)
    return type(record)(name, QUERY.vector, name, {})


@pytest.mark.parametrize("writes", [2_000, pytest.param(30_000, marks=pytest.mark.slow)])
def test_the_shadow_goes_away(migration: Running, proxy: TcpProxy, writes: int) -> None:
    """Reads and writes never fail; lag shows and the gate holds; then it catches up, and a verify finds
    no difference."""
    reader, operator = Reader(migration), migration.operator
    operator.postgresql.look()
    proxy.switch("refuse")
    proxy.cut()
    with reader.reading():
        burst(migration, reader, writes)
        operator.postgresql.look()
        operator.lag.refresh()
        until("the lag", lambda: operator.desk.behind() is not None)
        lag = status(operator, look=False)["stores"]["postgresql"]
        assert lag["state"] == "unavailable"
        assert lag["lag_entries"] >= writes
        assert lag["lag_oldest_ms"] > 0.0
        assert any("behind" in one or "lag" in one for one in open_sentences(operator.desk.ready()))
        migration.ask(Wanted.POSTGRESQL)
        assert operator.routes.current().phase is not Phase.POSTGRESQL
        migration.ask(Wanted.FAISS)
        proxy.switch("pass")
        rows = migration.proves_equal()
    assert set(reader.stores) == {"faiss"}
    assert rows == migration.router.count() > 100


@pytest.mark.parametrize(
    ("mode", "writes"),
    [("refuse", 2_000), ("hang", 500), pytest.param("refuse", 10_000, marks=pytest.mark.slow)],
)
def test_the_primary_dies(migration: Running, proxy: TcpProxy, mode: Mode, writes: int) -> None:
    """Writes and deletes go on; no read is older than the read rule allows and no deleted id is seen;
    PostgreSQL answers again by itself, and only once it has caught up."""
    migration.flip()
    reader = Reader(migration)
    with reader.reading():
        until("answers", lambda: "postgresql" in reader.stores)
        proxy.switch(mode)
        if mode == "refuse":
            proxy.cut()
        burst(migration, reader, writes)
        until("FAISS in its place", lambda: reader.stores[-1] == "faiss")
        if mode == "hang":
            proxy.cut()
        proxy.switch("pass")
        until("PostgreSQL again", lambda: reader.stores[-1] == "postgresql", 30.0)
    answer = migration.router.search(QUERY)
    assert answer.applied_seq >= reader.acknowledged
    assert migration.proves_equal() == migration.router.count()
