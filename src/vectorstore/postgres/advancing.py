"""Journal entries applied in one statement: the cursor moves and the rows are written, or neither.

The statement moves the cursor only from exactly where the entries begin, so whoever was first wins and
the other one changes nothing. It takes the cursor's row lock by that update, before the first row is
written, and upserts act on the newest version of a row whatever the statement's snapshot is. A delete
would not: it overlooks a row that was inserted while the statement waited for the lock. So a batch with
deletes is left to the transaction that locks first (``PostgresStore.apply``).

One entry, which is what a writer brings who waits for it, has a statement of its own: to unpack arrays
takes the server longer than to write one row. Arrays are laid out as PostgreSQL's array_recv reads them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import LiteralString

from psycopg import sql

from vectorstore.canonical import canonical_json
from vectorstore.postgres.connection import BoundedConnection
from vectorstore.postgres.schema import Names
from vectorstore.postgres.wire import vector_bytes
from vectorstore.types import Change, Record

__all__ = ["Advance"]

ADVANCE_ENTRIES_MAX = 500

_TEXT, _BIGINT, _JSONB = 25, 20, 3802
_TEXT_ARRAY, _BIGINT_ARRAY, _JSONB_ARRAY = 1009, 1016, 3807
_JSONB_VERSION = b"\x01"
_ARRAY_HEAD = struct.Struct(">iiIii")
_LENGTH = struct.Struct(">i")
_INT8 = struct.Struct(">q")

_STATEMENT = """
    WITH moved AS (
        UPDATE {cursor} SET seq = $1, mark = $2, updated_at = now()
        WHERE single AND state = 'following' AND incarnation = $3 AND seq = $4
            AND coalesce(mark = $5, true)
        RETURNING 1
    ), written AS (
        INSERT INTO {table} AS t (id, seq, embedding, text, metadata)
        SELECT {columns} FROM {source}
        ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, embedding = excluded.embedding,
            text = excluded.text, metadata = excluded.metadata
        WHERE t.seq < excluded.seq
    )
    SELECT count(*) FROM moved
"""
_ONE = {"columns": "$6, $7, $8, $9, $10", "source": "moved"}
_MANY = {
    "columns": "n.id, n.seq, n.embedding, n.text, n.metadata",
    "source": "moved, unnest($6, $7, $8, $9, $10) AS n (id, seq, embedding, text, metadata)",
}


class Advance:
    """Applies upserts that follow each other to one table."""

    def __init__(self, names: Names) -> None:
        self._one = _text(names, _ONE)
        self._many = _text(names, _MANY)

    @staticmethod
    def takes(changes: Sequence[Change]) -> bool:
        """Whether these are upserts that follow each other, and no more than one statement should take."""
        if not 0 < len(changes) <= ADVANCE_ENTRIES_MAX:
            return False
        for seq, change in enumerate(changes, changes[0].seq):
            if change.record is None or change.seq != seq:
                return False
        return True

    def __call__(
        self,
        connection: BoundedConnection,
        changes: Sequence[Change],
        *,
        incarnation: str,
        after_mark: int | None,
    ) -> bool:
        """Whether the changes were applied; false, with nothing changed, if the cursor is elsewhere.

        They must be such as it :meth:`takes`. The cursor must stand right before the first of them, on
        an entry of ``after_mark`` (None: any).
        """
        last: dict[str, Record] = {}
        for change in changes:
            if change.record is None:
                raise ValueError("a delete cannot be applied in one statement")
            last[change.id] = change.record
        end = changes[-1]
        move = (
            _INT8.pack(end.seq),
            None if end.mark is None else _INT8.pack(end.mark),
            incarnation.encode(),
            _INT8.pack(changes[0].seq - 1),
            None if after_mark is None else _INT8.pack(after_mark),
        )
        records = list(last.values())
        types: tuple[int, ...]
        if len(records) == 1:
            text, values = self._one, _fields(records[0])
            types = (_TEXT, _BIGINT, connection.vector_oid, _TEXT, _JSONB)
        else:
            text = self._many
            elements = (_TEXT, _BIGINT, connection.vector_oid, _TEXT, _JSONB)
            columns = zip(*map(_fields, records), strict=True)
            values = tuple(map(_array, elements, columns))
            types = (
                _TEXT_ARRAY,
                _BIGINT_ARRAY,
                connection.vector_array_oid,
                _TEXT_ARRAY,
                _JSONB_ARRAY,
            )
        moved = (_BIGINT, _BIGINT, _TEXT, _BIGINT, _BIGINT)
        rows = connection.fetch(text, moved + types, move + values)
        return bool(rows[0][0])


def _text(names: Names, parts: Mapping[str, LiteralString]) -> str:
    written = {name: sql.SQL(part) for name, part in parts.items()}
    statement = sql.SQL(_STATEMENT).format(cursor=names.cursor, table=names.table, **written)
    return statement.as_string(None)


def _fields(record: Record) -> tuple[bytes, ...]:
    """The record's columns, each as PostgreSQL receives it."""
    return (
        record.id.encode(),
        _INT8.pack(record.seq),
        vector_bytes(record.embedding),
        record.text.encode(),
        _JSONB_VERSION + canonical_json(record.metadata).encode(),
    )


def _array(element_oid: int, values: Sequence[bytes]) -> bytes:
    """A one-dimensional array without NULLs."""
    parts = [_ARRAY_HEAD.pack(1, 0, element_oid, len(values), 1)]
    for value in values:
        parts += (_LENGTH.pack(len(value)), value)
    return b"".join(parts)
