"""A real PostgreSQL for tests: one embedded server a session, one table a test."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from vectorstore.postgres.embedded import EmbeddedServer
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.postgres.store import PostgresStore

UNSAFE_BUT_QUICK = {"fsync": "off", "full_page_writes": "off"}


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[EmbeddedServer]:
    """The session's server. Do not stop or kill it: tests that do so start their own."""
    # pytest's own temporary folders are closed to the account that runs the server when we are root.
    directory = Path(tempfile.mkdtemp(prefix="shadow-tests-"))
    server = EmbeddedServer(directory, settings=UNSAFE_BUT_QUICK)
    server.start()
    yield server
    server.destroy()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgresql_dsn(postgresql_server: EmbeddedServer) -> str:
    """The session server's DSN, as superuser."""
    return postgresql_server.start()


@pytest.fixture
def fresh_table(postgresql_dsn: str) -> Iterator[str]:
    """A table name that no other test uses; the tables made under it are dropped afterwards."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    yield name
    drop_tables(postgresql_dsn, name)


@pytest.fixture
def postgres_store(postgresql_dsn: str) -> Iterator[Callable[..., PostgresStore]]:
    """Opens stores, each on a table of its own unless `table` is given; closes and drops them.

    Takes the keywords of PostgresSettings; `dimension` is 8 unless given.
    """
    opened: list[tuple[PostgresStore, PostgresSettings]] = []

    def open_store(**options: Any) -> PostgresStore:
        settings = PostgresSettings(
            **{
                "dsn": postgresql_dsn,
                "table": f"t_{uuid.uuid4().hex[:12]}",
                "dimension": 8,
                "pool_size_min": 0,
                **options,
            }
        )
        store = PostgresStore.open(settings)
        opened.append((store, settings))
        return store

    yield open_store
    for store, _ in opened:
        store.close()
    for table in {settings.table for _, settings in opened}:
        drop_tables(postgresql_dsn, table)


def drop_tables(dsn: str, table: str) -> None:
    """Drop a store's tables."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE %s", (f"{table}%",)
        ).fetchall()
        for (name,) in rows:
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(name)))
