"""An entry that PostgreSQL refuses stops its applier, loudly; nothing is skipped and nobody else stops."""

from __future__ import annotations

from unittest import mock

import psycopg
import structlog

from shadow.status import status
from shadow.writes.verify import Clean
from tests.plugins.migrations import SmallMigration, record, until
from vectorstore.types import Query

LONG = "longer than the column allows"


def let_in(small: SmallMigration, dsn: str, kind: str) -> None:
    """Narrow or widen the column of the texts behind the router's back, as a careless migration does."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            f"ALTER TABLE {small.settings.postgresql.table} ALTER COLUMN text TYPE {kind}"
        )


def test_a_poison_entry_halts_postgresql_alone(
    small_migration: SmallMigration, postgresql_dsn: str
) -> None:
    """What came before it is applied and nothing after it; the log and the status name it and show the
    lag; writes and reads go on; a backfill, once the row can live there, brings the running router's
    applier back without a restart."""
    small_migration.filled()
    let_in(small_migration, postgresql_dsn, "varchar(10)")
    with (
        structlog.testing.capture_logs() as told,
        mock.patch("shadow.steward.BACKOFF_S_MAX", 0.2),
        small_migration.routed() as router,
        small_migration.opened() as operator,
    ):
        router.upsert([record("before")])
        poison = router.upsert([record("poison", LONG)])
        last = router.upsert([record(f"after-{n}") for n in range(5)])
        until("the halt", lambda: any(one["event"] == "applier_halted" for one in told))
        why = next(str(one["why"]) for one in told if one["event"] == "applier_halted")
        assert f"entry {poison} (id 'poison')" in why
        assert "shadow backfill" in why
        answer = router.search(Query(record("poison").embedding, k=1))
        assert (answer.store, answer.hits[0].text) == ("faiss", LONG)
        assert operator.link.open().cursor().seq == poison - 1
        stores = status(operator)["stores"]["postgresql"]
        told_lag = stores["lag_entries"], stores["lag_oldest_ms"] > 0.0
        assert told_lag == (last - poison + 1, True)
        held = operator.link.open().get(["before", "poison", "after-0"])
        assert [row.id for row in held] == ["before"]

        let_in(small_migration, postgresql_dsn, "text")
        small_migration.backfilled()
        until("the applier", lambda: operator.postgresql.look().applied_seq == last)
        after = router.upsert([record("again")])
        until("the next write", lambda: operator.postgresql.look().applied_seq == after)
        assert isinstance(small_migration.verified(operator), Clean)


def test_a_table_that_cannot_be_searched_is_met_by_faiss(
    small_migration: SmallMigration, postgresql_dsn: str
) -> None:
    """A row of another length, from behind the router's back, is PostgreSQL's failure and not the
    reader's."""
    small_migration.filled()
    small_migration.flipped()
    table = small_migration.settings.postgresql.table
    one = Query(record("r-1").embedding, k=1)
    with small_migration.routed() as router:
        until("PostgreSQL", lambda: router.search(one).store == "postgresql")
        with psycopg.connect(postgresql_dsn, autocommit=True) as connection:
            connection.execute(f"ALTER TABLE {table} ALTER COLUMN embedding TYPE vector")
            connection.execute(f"UPDATE {table} SET embedding = '[1,2,3]' WHERE id = 'r-2'")
        for _ in range(20):
            answer = router.search(one)
            assert (answer.store, answer.hits[0].id) == ("faiss", "r-1")
