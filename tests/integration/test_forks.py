"""What becomes of a router and of a store in a process that was forked after they were opened."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from shadow.process_lock import process_lock
from tests.plugins.migrations import SmallMigration, record, until
from vectorstore.errors import StoreUnavailable
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Query

FORKED = "before a fork"


def in_a_fork(does: Callable[[], None]) -> None:
    """Run it in a forked child that must come to its end; what it raises fails the test."""
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        code = 1
        try:
            does()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def refused(call: Callable[[], object]) -> None:
    """It is refused, and told why."""
    with pytest.raises(StoreUnavailable, match=FORKED):
        call()


def sessions(dsn: str, table: str) -> set[int]:
    """The server's sessions that have asked this table."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        found = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE query LIKE %s AND pid <> pg_backend_pid()",
            (f"%{table}%",),
        ).fetchall()
    return {int(pid) for (pid,) in found}


@pytest.mark.parametrize("flipped", [False, True])
def test_a_forked_router_answers_nothing_and_harms_nothing(
    small_migration: SmallMigration, flipped: bool
) -> None:
    """At once, not only when its view of the journal is old: its connections are the parent's, and on a
    connection that two processes use, each may be given the other's answer."""
    small_migration.filled()
    if flipped:
        small_migration.flipped()
    query = Query(record("r-1").embedding, k=1, timeout_ms=10_000)
    wanted = "postgresql" if flipped else "faiss"
    with small_migration.routed() as router:
        until("the wanted store answers", lambda: router.search(query).store == wanted)

        def child() -> None:
            refused(lambda: router.search(query))
            refused(lambda: router.search_many([query]))
            refused(lambda: router.get(["r-1"]))
            refused(lambda: router.count())
            refused(lambda: router.upsert([record("child")]))
            refused(lambda: router.delete(["r-1"]))
            router.close()

        in_a_fork(child)
        assert router.search(query).hits[0].id == "r-1"
        assert router.search(query).store == wanted
        assert router.upsert([record("parent")]) == 21


def test_a_forked_postgresql_store_leaves_the_connections_to_its_parent(
    postgres_store: Callable[..., PostgresStore], postgresql_dsn: str, fresh_table: str
) -> None:
    """As under a server of applications that loads first and forks then: neither a question nor a close
    in the child reaches a session of the parent."""
    store = postgres_store(table=fresh_table)
    store.upsert([record("a")])
    query = Query(record("a").embedding, k=1)
    assert store.search(query).hits[0].id == "a"
    before = sessions(postgresql_dsn, fresh_table)

    def child() -> None:
        refused(lambda: store.search(query))
        refused(lambda: store.upsert([record("b")]))
        store.close()

    in_a_fork(child)
    assert store.search(query).hits[0].id == "a"
    assert sessions(postgresql_dsn, fresh_table) == before
    assert before


def test_a_lock_is_given_back_also_if_a_forked_child_lives_on(tmp_path: Path) -> None:
    """A fork copies the files that are open, and a copy would hold a lock for as long as the child lives."""
    with process_lock(tmp_path / "lock") as mine:
        assert mine
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            signal.pause()
            os._exit(0)
    try:
        with process_lock(tmp_path / "lock") as again:
            assert again
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
