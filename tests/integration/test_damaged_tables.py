"""A colleague empties or drops tables under a running router: what is told helps, and nothing else is needed."""

from __future__ import annotations

import re

import psycopg
import pytest

from tests.plugins.migrations import SmallMigration, record, until
from vectorstore.types import Query

QUERY = Query(record("r-1").embedding, k=3, timeout_ms=10_000)


@pytest.mark.parametrize(
    ("damage", "flipped"),
    [
        ("TRUNCATE {0}_cursor", False),
        ("TRUNCATE {0}_cursor", True),
        ("DROP TABLE {0}_cursor", False),
        ("DROP TABLE {0}, {0}_load", True),
    ],
)
def test_what_is_told_of_damaged_tables_helps(
    small_migration: SmallMigration, postgresql_dsn: str, damage: str, flipped: bool
) -> None:
    """FAISS answers and writes go on. The command says which tables are damaged and what to do; after
    that the router that ran all the while uses them again."""
    table = small_migration.settings.postgresql.table
    small_migration.filled()
    if flipped:
        small_migration.flipped()
    with (
        psycopg.connect(postgresql_dsn, autocommit=True) as colleague,
        small_migration.routed() as router,
    ):
        if flipped:
            until("the flip", lambda: router.search(QUERY).store == "postgresql")
        else:
            until("the shadow follows", lambda: router.describe()["lag_entries"] == 0)
        colleague.execute(damage.format(table).encode())
        router.upsert([record("later")])
        assert router.search(QUERY).store == "faiss"
        until("no lag is known", lambda: router.describe()["lag_entries"] is None)
        command = small_migration.command("backfill")
        told = command.communicate(timeout=60)[1]
        assert command.returncode == 2, told
        assert re.search(rf"{table}\w* (is gone|has lost its row)", told), told
        assert "Traceback" not in told
        named = re.search(r"those of the tables (.*) that are left", told)
        assert named is not None, told
        names = named.group(1).replace(" and ", ", ")
        colleague.execute(f"DROP TABLE IF EXISTS {names}".encode())
        command = small_migration.command("backfill")
        assert command.wait(timeout=60) == 0, command.communicate()
        until("it follows", lambda: router.describe()["lag_entries"] == 0)
        command = small_migration.command("verify")
        assert command.wait(timeout=60) == 0, command.communicate()
