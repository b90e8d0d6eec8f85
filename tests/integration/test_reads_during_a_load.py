"""A table that is being filled anew answers nothing, whatever was known of it a moment ago."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
from psycopg import sql

from shadow.core.phases import Phase
from shadow.router import Router
from tests.plugins.migrations import SmallMigration, record, until
from vectorstore.errors import StoreUnavailable
from vectorstore.postgres.connection import BoundedConnection
from vectorstore.postgres.cursor import locked_cursor, move_cursor
from vectorstore.postgres.loading import begin_load
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Query, Record

QUERY = Query(record("r-3").embedding, k=1)
READS: dict[str, tuple[Callable[[Router], Any], Any]] = {
    "get": (lambda router: [row.id for row in router.get(["r-3"])], ["r-3"]),
    "scan": (lambda router: len(router.scan()), 20),
    "count": (lambda router: router.count(), 20),
}


def begun_anew(store: PostgresStore) -> None:
    """A load begins."""
    begin_load(store, incarnation="", snapshot_id="s", seq=0)


def replaced_by_an_older_copy(store: PostgresStore) -> None:
    """Somebody restores the table from before its last write, which was that of r-3."""

    def restore(connection: BoundedConnection) -> None:
        connection.execute(
            sql.SQL("DELETE FROM {} WHERE id = 'r-3'").format(store.names.table), prepare=False
        )
        older = replace(locked_cursor(connection, store.names), incarnation="another", seq=19)
        move_cursor(connection, store.names, older)

    store.transact(restore)


@pytest.mark.parametrize("how", READS)
@pytest.mark.parametrize("change", [begun_anew, replaced_by_an_older_copy])
def test_a_table_that_is_replaced_during_a_read_does_not_empty_the_answer(
    small_migration: SmallMigration, how: str, change: Callable[[PostgresStore], None]
) -> None:
    """Between the look at the table's cursor and the look at its rows somebody replaces it: the other
    store answers."""
    small_migration.filled()
    small_migration.flipped()
    real = getattr(PostgresStore, how)
    ask, expected = READS[how]
    changed: list[Callable[[PostgresStore], None]] = []

    def late(store: PostgresStore, *arguments: Sequence[Record], **options: Any) -> Any:
        if not changed:
            changed.append(change)
            change(store)
        return real(store, *arguments, **options)

    with small_migration.routed() as router:
        until("postgresql", lambda: router.route.phase is Phase.POSTGRESQL)
        until("its answers", lambda: router.search(QUERY).store == "postgresql")
        with mock.patch.object(PostgresStore, how, late):
            assert ask(router) == expected
        assert changed


def test_a_table_that_is_being_loaded_has_applied_nothing(
    small_migration: SmallMigration,
) -> None:
    """Not even seq 0, which is enough where nothing was ever written: an index that was taken in."""
    small_migration.filled()
    with small_migration.opened() as migration:
        store = migration.link.open()
        begin_load(store, incarnation=migration.journal.incarnation, snapshot_id="s", seq=0)
        with pytest.raises(StoreUnavailable, match="being loaded"):
            store.applied_seq()
