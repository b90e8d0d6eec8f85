"""Journal entries applied in one statement: the cursor moves and the rows are written, or neither.

The statement moves the cursor only from exactly where the entries begin, so whoever was first wins and
the other one changes nothing. It takes the cursor's row lock by that update, before the first row is
written, and upserts act on the newest version of a row whatever the statement's snapshot is. A delete
would not: it overlooks a row that was inserted while the statement waited for the lock. So a batch with
deletes is left to the transaction that locks first (``PostgresStore.apply``).

Arrays are laid out as PostgreSQL's array_recv reads them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from psycopg import sql

from vectorstore.canonical import canonical_json
from vectorstore.postgres.connection import BoundedConnection
from vectorstore.postgres.schema import Names
from vectorstore.postgres.wire import vector_bytes
from vectorstore.types import Change, Record

__all__ = ["ADVANCE_ENTRIES_MAX", "advance", "advance_text"]

ADVANCE_ENTRIES_MAX = 500

_TEXT, _BIGINT = 25, 20
_TEXT_ARRAY, _BIGINT_ARRAY = 1009, 1016
_ARRAY_HEAD = struct.Struct(">iiIii")
_LENGTH = struct.Struct(">i")
_INT8 = struct.Struct(">q")


def advance_text(names: Names) -> str:
    """The statement for one table."""
    return (
        sql.SQL(
            """
            WITH moved AS (
                UPDATE {cursor} SET seq = $1, mark = $2, updated_at = now()
                WHERE single AND state = 'following' AND incarnation = $3 AND seq = $4
                    AND coalesce(mark = $5, true)
                RETURNING 1
            ), written AS (
                INSERT INTO {table} AS t (id, seq, embedding, text, metadata)
                SELECT n.id, n.seq, n.embedding, n.text, n.metadata::jsonb
                FROM moved, unnest($6, $7, $8, $9, $10) AS n (id, seq, embedding, text, metadata)
                ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, embedding = excluded.embedding,
                    text = excluded.text, metadata = excluded.metadata
                WHERE t.seq < excluded.seq
            )
            SELECT count(*) FROM moved
            """
        )
        .format(cursor=names.cursor, table=names.table)
        .as_string(None)
    )


def advance(
    connection: BoundedConnection,
    text: str,
    changes: Sequence[Change],
    *,
    incarnation: str,
    after_mark: int | None,
) -> bool:
    """Apply upserts that follow each other; false, with nothing changed, if the cursor is elsewhere.

    The cursor must stand right before the first of them, on an entry of ``after_mark`` (None: any).
    """
    last: dict[str, Record] = {}
    for change in changes:
        if change.record is None:
            raise ValueError("a delete cannot be applied in one statement")
        last[change.id] = change.record
    records = list(last.values())
    rows = connection.fetch(
        text,
        (
            _BIGINT,
            _BIGINT,
            _TEXT,
            _BIGINT,
            _BIGINT,
            _TEXT_ARRAY,
            _BIGINT_ARRAY,
            connection.vector_array_oid,
            _TEXT_ARRAY,
            _TEXT_ARRAY,
        ),
        (
            _INT8.pack(changes[-1].seq),
            None if changes[-1].mark is None else _INT8.pack(changes[-1].mark),
            incarnation.encode(),
            _INT8.pack(changes[0].seq - 1),
            None if after_mark is None else _INT8.pack(after_mark),
            _array(_TEXT, [record.id.encode() for record in records]),
            _array(_BIGINT, [_INT8.pack(record.seq) for record in records]),
            _array(connection.vector_oid, [vector_bytes(record.embedding) for record in records]),
            _array(_TEXT, [record.text.encode() for record in records]),
            _array(_TEXT, [canonical_json(record.metadata).encode() for record in records]),
        ),
    )
    return bool(rows[0][0])


def _array(element_oid: int, values: Sequence[bytes]) -> bytes:
    """A one-dimensional array without NULLs."""
    parts = [_ARRAY_HEAD.pack(1, 0, element_oid, len(values), 1)]
    for value in values:
        parts += (_LENGTH.pack(len(value)), value)
    return b"".join(parts)
