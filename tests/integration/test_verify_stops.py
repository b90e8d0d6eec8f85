"""A verify of stores that differ in most rows breaks off, and says that it could not check."""

from __future__ import annotations

from psycopg import sql

from shadow.writes.verify import RANGE_ROWS, CouldNotCheck, verify
from tests.plugins.migrations import SmallMigration

ROWS = RANGE_ROWS + 500


def test_it_breaks_off_where_too_many_rows_differ(small_migration: SmallMigration) -> None:
    """Every row is altered: the ranges after the one that shows it are not looked at."""
    small_migration.filled(ROWS)
    with small_migration.opened() as migration:
        store = migration.link.open()
        text = sql.SQL("UPDATE {} SET text = 'a lie'").format(store.names.table)
        store.transact(lambda connection: connection.execute(text))
        faiss = migration.load_faiss()
        told: list[tuple[int, int]] = []
        found = verify(
            faiss=faiss,
            postgresql=store,
            suspects_max=100,
            on_rows=lambda done, total: told.append((done, total)),
        )
        assert isinstance(found, CouldNotCheck)
        assert f"at least {RANGE_ROWS:,} rows differ" in found.why
        assert (found.rows, told) == (0, [])


def test_it_breaks_off_where_too_many_rows_are_extra(small_migration: SmallMigration) -> None:
    """All of PostgreSQL's extra rows fall into FAISS's last range: they are not all fetched and held."""
    small_migration.filled(10)
    with small_migration.opened() as migration:
        store = migration.link.open()
        text = sql.SQL(
            "INSERT INTO {table} (id, seq, embedding, text, metadata) "
            "SELECT 'x-' || n, seq, embedding, text, metadata "
            "FROM {table}, generate_series(1, {rows}) n WHERE id = 'r-1'"
        ).format(table=store.names.table, rows=sql.Literal(3 * RANGE_ROWS))
        store.transact(lambda connection: connection.execute(text))
        faiss = migration.load_faiss()
        found = verify(faiss=faiss, postgresql=store, suspects_max=100)
        assert isinstance(found, CouldNotCheck)
        assert f"at least {RANGE_ROWS - 10:,} rows differ" in found.why
