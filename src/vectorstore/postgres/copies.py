"""A table's rows in a file and back: PostgreSQL's binary COPY, read at one moment, put back at once."""

from __future__ import annotations

from pathlib import Path

import psycopg
from psycopg import sql

from vectorstore.durable import sync_file
from vectorstore.errors import StoreCorrupt, Unsupported
from vectorstore.postgres.connection import BoundedConnection
from vectorstore.postgres.copying import COPY_COLUMNS
from vectorstore.postgres.cursor import Cursor, locked_cursor, move_cursor
from vectorstore.postgres.failures import translated
from vectorstore.postgres.index import ensure_index
from vectorstore.postgres.pool import connect
from vectorstore.postgres.store import PostgresStore

__all__ = ["dump_rows", "let_go", "replace_rows"]

CHUNK_BYTES = 1 << 20


def dump_rows(store: PostgresStore, path: Path) -> tuple[Cursor, int]:
    """Write every row to ``path``, synced; the cursor of the moment that was read, and how many rows.

    Reads and writes of the table go on meanwhile.
    """
    with connect(store.settings) as connection, path.open("xb") as file:
        try:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            with connection.transaction(), connection.cursor() as reader:
                # Before the moment is chosen by the first look: a TRUNCATE, with which a load begins,
                # would empty the table for this transaction too.
                reader.execute(
                    sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(store.names.table)
                )
                row = reader.execute(
                    sql.SQL(
                        "SELECT coalesce(incarnation, ''), seq, state, mark FROM {} WHERE single"
                    ).format(store.names.cursor)
                ).fetchone()
                if row is None:
                    raise StoreCorrupt(f"{store.names.cursor.as_string(None)} has lost its row")
                with reader.copy(
                    sql.SQL("COPY {} ({}) TO STDOUT (FORMAT BINARY)").format(
                        store.names.table, sql.SQL(COPY_COLUMNS)
                    )
                ) as copy:
                    for chunk in copy:
                        file.write(chunk)
                rows = reader.rowcount
        except psycopg.Error as error:
            raise translated(error, store.settings) from error
        file.flush()
        sync_file(file.fileno())
    return Cursor(*row), rows


def replace_rows(
    store: PostgresStore, path: Path, *, cursor: Cursor, rows: int, agreed: Cursor
) -> None:
    """Put the rows of ``path`` in the place of the table's, with ``cursor``, all in one transaction.

    Whatever state the table was in, ``final`` included, if it is still that of ``agreed``; else
    Unsupported. Raises StoreCorrupt if the file does not hold ``rows`` rows. Everything is then as it was.
    """
    with connect(store.settings) as connection:
        try:
            connection.execute("SET synchronous_commit = on")
            with connection.transaction():
                _require_as_agreed(locked_cursor(connection, store.names), agreed, store)
                connection.execute(
                    sql.SQL("TRUNCATE {}, {}").format(store.names.table, store.names.load)
                )
                # To copy into a graph costs five times as much as to build it afterwards.
                connection.execute(
                    sql.SQL("DROP INDEX IF EXISTS {}").format(
                        sql.Identifier(store.names.vector_index)
                    )
                )
                loaded = _load(connection, store, path)
                if loaded != rows:
                    raise StoreCorrupt(f"{path} holds {loaded:,} rows, not {rows:,}")
                move_cursor(connection, store.names, cursor)
                connection.execute(
                    sql.SQL("UPDATE {} SET load_snapshot = NULL, load_seq = NULL").format(
                        store.names.cursor
                    )
                )
            connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(store.names.table))
        except psycopg.Error as error:
            raise translated(error, store.settings, writing=True) from error
    ensure_index(store)


def let_go(store: PostgresStore, incarnation: str, *, agreed: Cursor) -> None:
    """Say that the table holds no copy of the journal ``incarnation``: it needs a backfill.

    Whatever state the table was in, ``final`` included, if it is still that of ``agreed``; else
    Unsupported. Its rows stay until the backfill.
    """

    def detach(connection: BoundedConnection) -> None:
        _require_as_agreed(locked_cursor(connection, store.names), agreed, store)
        move_cursor(connection, store.names, Cursor(incarnation, 0, "detached"))

    store.transact(detach)


def _require_as_agreed(found: Cursor, agreed: Cursor, store: PostgresStore) -> None:
    """Raise Unsupported if the table came to belong to another history, or to none, since it was asked."""
    if (found.incarnation, found.state) != (agreed.incarnation, agreed.state):
        raise Unsupported(
            f"table {store.settings.table} was {agreed.state} and is {found.state} now, of the journal "
            f"{found.incarnation or '(none)'}: something else uses it"
        )


def _load(connection: BoundedConnection, store: PostgresStore, path: Path) -> int:
    with connection.cursor() as writer, path.open("rb") as file:
        with writer.copy(
            sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
                store.names.table, sql.SQL(COPY_COLUMNS)
            )
        ) as copy:
            while chunk := file.read(CHUNK_BYTES):
                copy.write(chunk)
        return writer.rowcount
