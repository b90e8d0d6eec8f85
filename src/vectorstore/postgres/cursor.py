"""The table's cursor: which journal it follows and how far. Its row lock orders all writers.

Every function here runs inside a transaction of the caller's that has locked the cursor with
:func:`locked_cursor`. A statement of its own reads after the lock is held, so what it returns is what
the previous holder committed, not what was true when this transaction began to wait.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from psycopg import sql

from vectorstore.canonical import canonical_json
from vectorstore.errors import ConfigurationError, StoreCorrupt, StoreUnavailable, Unsupported
from vectorstore.postgres.connection import BoundedConnection
from vectorstore.postgres.schema import Names, damaged
from vectorstore.types import Change

__all__ = [
    "Cursor",
    "State",
    "locked_cursor",
    "lost_row",
    "move_cursor",
    "pending_changes",
    "require_following",
    "require_mark",
    "require_own_rows",
    "require_own_writes",
    "write_changes",
]

State = Literal["empty", "loading", "following", "detached", "final"]

_ROWS_PER_STATEMENT = 500


@dataclass(frozen=True, slots=True)
class Cursor:
    """``incarnation``: the journal's id, or "" if bound to none. ``seq``: the last entry applied.

    ``state``: ``empty`` (never loaded), ``loading``, ``following`` a journal, ``detached`` from it
    (needs a new load), or ``final`` (takes writes of its own). ``mark``: that of the entry ``seq``.
    """

    incarnation: str
    seq: int
    state: State
    mark: int | None = None


def locked_cursor(connection: BoundedConnection, names: Names) -> Cursor:
    """The cursor, locked until the transaction ends."""
    row = connection.execute(
        sql.SQL(
            "SELECT coalesce(incarnation, ''), seq, state, mark FROM {} WHERE single FOR UPDATE"
        ).format(names.cursor),
        prepare=True,
    ).fetchone()
    if row is None:
        raise lost_row(names)
    return Cursor(row[0], row[1], cast(State, row[2]), row[3])


def lost_row(names: Names) -> StoreCorrupt:
    """The error for a cursor whose row is gone: nobody knows any more what the table holds."""
    table = names.table.as_string(None).strip('"')
    return StoreCorrupt(damaged(table, f"{table}_cursor has lost its row"))


def move_cursor(connection: BoundedConnection, names: Names, cursor: Cursor) -> None:
    """Write the cursor."""
    connection.execute(
        sql.SQL(
            "UPDATE {} SET incarnation = nullif(%s::text, ''), seq = %s, state = %s, mark = %s, "
            "updated_at = now() WHERE single"
        ).format(names.cursor),
        (cursor.incarnation, cursor.seq, cursor.state, cursor.mark),
        prepare=True,
    )


def require_following(cursor: Cursor, incarnation: str | None, table: str) -> None:
    """Raise unless entries of the journal ``incarnation`` may be applied now."""
    if incarnation is None:
        raise Unsupported(f"bind table {table} to a journal's incarnation before applying entries")
    if cursor.incarnation != incarnation:
        raise StoreCorrupt(
            f"table {table} follows the journal {cursor.incarnation or '(none)'}, "
            f"not {incarnation}: nothing was applied; rebuild the table by a backfill"
        )
    if cursor.state == "loading":
        raise StoreUnavailable(f"table {table} is being loaded; entries wait until that is done")
    if cursor.state == "empty":
        raise StoreUnavailable(f"table {table} has never been loaded: run a backfill first")
    if cursor.state != "following":
        raise Unsupported(
            f"table {table} is {cursor.state}: run a backfill to make it follow again"
        )


def require_mark(cursor: Cursor, mark: int | None, table: str) -> None:
    """Raise if the table stands on another entry than the one of ``mark`` (None: not known)."""
    if None not in (mark, cursor.mark) and cursor.mark != mark:
        raise StoreCorrupt(
            f"table {table} has applied another write {cursor.seq} than this journal's: nothing was "
            "applied; rebuild the table by a backfill"
        )


def require_own_rows(cursor: Cursor, table: str, *, incarnation: str, own: Collection[str]) -> None:
    """Raise ConfigurationError if the table holds rows that are not copies of one of the journals ``own``.

    Before they are replaced by those of the journal ``incarnation``.
    """
    if cursor.state == "empty" or cursor.incarnation in own:
        return
    whose = (
        f"follows the journal {cursor.incarnation}, and this one is {incarnation}: it belongs to "
        "another migration, or to a state directory that was deleted"
        if cursor.incarnation
        else "holds rows that were written to it by no journal"
    )
    raise ConfigurationError(
        f"table {table} {whose}. A backfill would replace its rows, so nothing was changed. Give another "
        f"name (postgresql.table); or, if nobody needs those rows any more, drop the tables {table}, "
        f"{table}_cursor, {table}_load and {table}_schema, and run it again"
    )


def require_own_writes(cursor: Cursor, table: str) -> None:
    """Raise unless the table takes writes that come from no journal."""
    standalone = cursor.state == "empty" and not cursor.incarnation
    if cursor.state != "final" and not standalone:
        raise Unsupported(
            f"table {table} follows a journal ({cursor.state}): write through the router, "
            "or finalize the migration first"
        )


def pending_changes(changes: Sequence[Change], applied_seq: int) -> list[Change]:
    """The changes above ``applied_seq``, checked to leave no gap."""
    pending: list[Change] = []
    reached = applied_seq
    for change in changes:
        if change.seq <= reached:
            continue
        if change.seq != reached + 1:
            raise StoreCorrupt(f"journal gap: entry {change.seq} follows {reached}")
        reached = change.seq
        pending.append(change)
    return pending


def write_changes(connection: BoundedConnection, names: Names, changes: Sequence[Change]) -> None:
    """Make the rows what the changes say. The last change of an id wins; no row's seq ever falls."""
    last = {change.id: change for change in changes}
    upserts = [change for change in last.values() if change.record is not None]
    deletes = [change for change in last.values() if change.record is None]
    with connection.pipeline():
        for start in range(0, len(upserts), _ROWS_PER_STATEMENT):
            _upsert(connection, names, upserts[start : start + _ROWS_PER_STATEMENT])
        if deletes:
            connection.execute(
                sql.SQL(
                    "DELETE FROM {} t USING unnest(%s::text[], %s::bigint[]) AS d (id, seq) "
                    "WHERE t.id = d.id AND t.seq < d.seq"
                ).format(names.table),
                ([c.id for c in deletes], [c.seq for c in deletes]),
                prepare=True,
            )


def _upsert(connection: BoundedConnection, names: Names, changes: Sequence[Change]) -> None:
    records = [change.record for change in changes if change.record is not None]
    connection.execute(
        sql.SQL(
            """
            INSERT INTO {} AS t (id, seq, embedding, text, metadata)
            SELECT n.id, n.seq, n.embedding, n.text, n.metadata::jsonb
            FROM unnest(%s::text[], %s::bigint[], %b::vector[], %s::text[], %s::text[])
                AS n (id, seq, embedding, text, metadata)
            ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, embedding = excluded.embedding,
                text = excluded.text, metadata = excluded.metadata
            WHERE t.seq < excluded.seq
            """
        ).format(names.table),
        (
            [record.id for record in records],
            [change.seq for change in changes],
            [record.embedding for record in records],
            [record.text for record in records],
            [canonical_json(record.metadata) for record in records],
        ),
        prepare=True,
    )
