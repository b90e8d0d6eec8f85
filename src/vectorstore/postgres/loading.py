"""Fills a table from a verified snapshot, in parts that several processes may load at once.

A block and the progress it makes are committed together, so after a kill the load goes on exactly
after the last block that was committed: no row is missed and none is loaded twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from vectorstore.errors import StoreCorrupt, StoreUnavailable, Unsupported
from vectorstore.postgres.building import BuildProgress
from vectorstore.postgres.connection import BoundedConnection
from vectorstore.postgres.copying import COPY_COLUMNS, copy_stream
from vectorstore.postgres.cursor import Cursor, locked_cursor, move_cursor, require_own_rows
from vectorstore.postgres.failures import translated
from vectorstore.postgres.index import drop_index, ensure_index
from vectorstore.postgres.pool import connect
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Record

__all__ = ["LoadProgress", "begin_load", "finish_load", "load_block", "load_progress"]


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """An open load: of which snapshot, taken at which ``seq``, and each part's next position.

    A position is whatever the loader counts by, usually rows of its part.
    """

    snapshot_id: str
    seq: int
    positions: tuple[int, ...]


def begin_load(
    store: PostgresStore,
    *,
    incarnation: str,
    snapshot_id: str,
    seq: int,
    parts: int = 1,
    own: Collection[str] | None = None,
) -> LoadProgress:
    """Empty the table and open a load of the snapshot ``snapshot_id`` taken at ``seq``.

    Searches are refused and journal entries wait until :func:`finish_load`. This is also the way out
    when the table followed another journal, one of ``own``; of any other one ConfigurationError is
    raised, under the lock that the table is emptied under (None: of no one). Raises Unsupported for a
    table that takes writes of its own, which no journal could bring back.
    """
    if parts < 1:
        raise ValueError(f"parts is {parts}; it must be at least 1")

    def begin(connection: BoundedConnection) -> None:
        cursor = locked_cursor(connection, store.names)
        if own is not None:
            require_own_rows(cursor, store.settings.table, incarnation=incarnation, own=own)
        if cursor.state == "final":
            raise Unsupported(
                f"table {store.settings.table} holds rows that no journal has (it is final): "
                "load into another table, or drop this one"
            )
        connection.execute(sql.SQL("TRUNCATE {}, {}").format(store.names.table, store.names.load))
        connection.execute(
            sql.SQL("INSERT INTO {} (part) SELECT generate_series(0, %s - 1)").format(
                store.names.load
            ),
            (parts,),
        )
        move_cursor(connection, store.names, Cursor(incarnation, 0, "loading"))
        connection.execute(
            sql.SQL("UPDATE {} SET load_snapshot = %s, load_seq = %s").format(store.names.cursor),
            (snapshot_id, seq),
        )

    store.transact(begin)
    drop_index(store)
    store.bind(incarnation)
    return LoadProgress(snapshot_id, seq, (0,) * parts)


def load_progress(store: PostgresStore) -> LoadProgress | None:
    """How far the open load has come, or None if none is open."""

    def look(connection: BoundedConnection) -> LoadProgress | None:
        row = connection.execute(
            sql.SQL(
                "SELECT load_snapshot, load_seq, "
                "(SELECT array_agg(position ORDER BY part) FROM {}) "
                "FROM {} WHERE state = 'loading'"
            ).format(store.names.load, store.names.cursor)
        ).fetchone()
        return LoadProgress(row[0], row[1], tuple(row[2])) if row else None

    return store.read(look)


def load_block(
    store: PostgresStore,
    records: Sequence[Record],
    *,
    position_start: int,
    position_end: int,
    part: int = 0,
) -> None:
    """Copy a block of records and move its part from ``position_start`` to ``position_end``.

    The commit does not wait for the disk: a crash of the server may take the last blocks back, together
    with their progress. Ids must be new and embeddings of the table's dimension; vectors are stored as they are. Raises
    StoreCorrupt if the part is not at ``position_start``: then someone else loaded this block.
    """

    def load(connection: BoundedConnection) -> None:
        # Rows and progress are committed together, so what a crash of the server takes back is both;
        # finish_load, which waits for the disk, sees whether anything is missing.
        connection.execute("SET LOCAL synchronous_commit = off")
        # Share locks: parts load side by side, but never beside begin or finish.
        row = connection.execute(
            sql.SQL("SELECT state FROM {} WHERE single FOR SHARE").format(store.names.cursor),
            prepare=True,
        ).fetchone()
        if row is None or row[0] != "loading":
            raise StoreUnavailable(f"no load of table {store.settings.table} is open")
        moved = connection.execute(
            sql.SQL("UPDATE {} SET position = %s WHERE part = %s AND position = %s").format(
                store.names.load
            ),
            (position_end, part, position_start),
            prepare=True,
        )
        if moved.rowcount != 1:
            raise StoreCorrupt(
                f"part {part} of the load of {store.settings.table} is not at {position_start}: "
                "another loader is at work, or the server lost its last blocks in a crash; run the "
                "load again, which goes on from where the table stands"
            )
        with (
            connection.cursor() as cursor,
            cursor.copy(
                sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
                    store.names.table, sql.SQL(COPY_COLUMNS)
                )
            ) as copy,
        ):
            for chunk in copy_stream(records, store.dimension):
                copy.write(chunk)

    store.transact(load)


def finish_load(
    store: PostgresStore,
    *,
    rows: int | None = None,
    on_progress: Callable[[BuildProgress], None] | None = None,
) -> Cursor:
    """Build the index if the rows call for one, ANALYZE, and let the table follow from the load's seq.

    ``rows``: what the positions of all parts must come to. May be called again after it was killed.
    Raises StoreUnavailable if no load is open, or if the server lost blocks in a crash.
    """
    progress = load_progress(store)
    if progress is None:
        raise StoreUnavailable(f"no load of table {store.settings.table} is open")
    # Nothing else uses the table now, and a plain build is the quicker one.
    ensure_index(store, concurrently=False, on_progress=on_progress)
    with connect(store.settings) as connection:
        try:
            # Also sets the visibility map, which scans of ids alone live from.
            connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(store.names.table))
        except psycopg.Error as error:
            raise translated(error, store.settings) from error

    def finish(connection: BoundedConnection) -> Cursor:
        cursor = locked_cursor(connection, store.names)
        if cursor.state != "loading":
            raise StoreUnavailable(f"the load of table {store.settings.table} was ended elsewhere")
        held = connection.execute(
            sql.SQL("SELECT sum(position)::bigint FROM {}").format(store.names.load)
        ).fetchone()
        if rows is not None and held is not None and held[0] != rows:
            raise StoreUnavailable(
                f"table {store.settings.table} holds {held[0]:,} of {rows:,} rows: the server was "
                "restarted and lost the last blocks. Run the load again: it goes on from there"
            )
        following = Cursor(cursor.incarnation, progress.seq, "following")
        move_cursor(connection, store.names, following)
        connection.execute(sql.SQL("DELETE FROM {}").format(store.names.load))
        connection.execute(
            sql.SQL("UPDATE {} SET load_snapshot = NULL, load_seq = NULL").format(
                store.names.cursor
            )
        )
        return following

    return store.transact(finish)
