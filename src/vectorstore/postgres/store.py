"""PostgreSQL with pgvector as a store."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import psycopg

from vectorstore.errors import StoreCorrupt, Unsupported
from vectorstore.postgres.advancing import Advance
from vectorstore.postgres.connection import BoundedConnection
from vectorstore.postgres.cursor import (
    Cursor,
    State,
    locked_cursor,
    move_cursor,
    pending_changes,
    require_following,
    require_mark,
    require_own_writes,
    write_changes,
)
from vectorstore.postgres.failures import translated
from vectorstore.postgres.pool import connect
from vectorstore.postgres.readable import ReadableTable
from vectorstore.postgres.schema import ServerFacts, prepare_schema
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.types import Change, Record
from vectorstore.validation import check_batch, check_id, normalised_record

__all__ = ["PostgresStore"]

T = TypeVar("T")


class PostgresStore(ReadableTable):
    """A table of records, searched exactly or through an HNSW index. Safe to share between threads.

    Answers carry the seq that the table had applied in the same snapshot that the rows were read in.
    """

    def __init__(self, settings: PostgresSettings, facts: ServerFacts) -> None:
        super().__init__(settings, facts)
        self._advance_rows = Advance(self.names)
        self._incarnation: str | None = None

    @classmethod
    def open(cls, settings: PostgresSettings) -> PostgresStore:
        """Check the server, make or upgrade the tables, and open the pool.

        Raises ConfigurationError for what a person must correct and StoreUnavailable for what may
        pass by itself.
        """
        with connect(settings) as connection:
            connection.deadline = time.monotonic() + settings.statement_timeout_ms / 1000.0
            try:
                facts = prepare_schema(connection, settings)
            except psycopg.Error as error:
                raise translated(error, settings) from error
        return cls(settings, facts)

    def upsert(self, records: Sequence[Record]) -> int:
        """Write records of no journal. Raises Unsupported while the table follows one."""
        check_batch(records)
        ready = [
            normalised_record(r, dimension=self.dimension, metric=self.metric) for r in records
        ]
        return self._write_own([(record.id, record) for record in ready])

    def delete(self, ids: Sequence[str]) -> int:
        """Delete records by no journal. Raises Unsupported while the table follows one."""
        check_batch(ids)
        return self._write_own([(check_id(record_id), None) for record_id in ids])

    def bind(self, incarnation: str) -> Cursor:
        """Say which journal this process applies from; a table bound to none takes it on.

        Raises StoreCorrupt if the table follows another journal, and Unsupported if it has rows of
        its own. The way out of both is a backfill, which replaces the table's content.
        """

        def bind(connection: BoundedConnection) -> Cursor:
            cursor = locked_cursor(connection, self.names)
            if not cursor.incarnation and cursor.state == "empty":
                cursor = replace(cursor, incarnation=incarnation)
                move_cursor(connection, self.names, cursor)
            return cursor

        cursor = self.transact(bind)
        table = self.settings.table
        if cursor.state == "final":
            raise Unsupported(
                f"table {table} takes writes of its own (the migration was finalized, or none was "
                "begun): it cannot follow a journal; give another table name"
            )
        if cursor.incarnation != incarnation:
            raise StoreCorrupt(
                f"table {table} follows the journal {cursor.incarnation or '(none)'}, not "
                f"{incarnation}: nothing was applied; rebuild the table by a backfill"
            )
        self._incarnation = incarnation
        return cursor

    def apply(
        self,
        changes: Sequence[Change],
        *,
        after_mark: int | None = None,
        timeout_ms: float | None = None,
    ) -> int:
        """Apply journal entries; see :meth:`vectorstore.port.Replica.apply`.

        ``after_mark``: that of the entry before the first, if it is known. StoreCorrupt, and nothing is
        applied, if the table stands there on an entry of another mark.
        """
        if self._advance(changes, after_mark, timeout_ms):
            return changes[-1].seq

        def apply(connection: BoundedConnection) -> int:
            cursor = locked_cursor(connection, self.names)
            require_following(cursor, self._incarnation, self.settings.table)
            pending = pending_changes(changes, cursor.seq)
            if len(pending) == len(changes):
                require_mark(cursor, after_mark, self.settings.table)
            if pending:
                write_changes(connection, self.names, pending)
                cursor = replace(cursor, seq=pending[-1].seq, mark=pending[-1].mark)
                move_cursor(connection, self.names, cursor)
            return cursor.seq

        return self.transact(apply, timeout_ms=timeout_ms)

    def _advance(
        self, changes: Sequence[Change], after_mark: int | None, timeout_ms: float | None
    ) -> bool:
        """Apply the changes in one round trip if they are such, and the table stands right before them."""
        incarnation = self._incarnation
        if incarnation is None or not self._advance_rows.takes(changes):
            return False
        return self._run(
            lambda connection: self._advance_rows(
                connection, changes, incarnation=incarnation, after_mark=after_mark
            ),
            timeout_ms,
            writing=True,
        )

    def remember_mark(self, seq: int, mark: int | None) -> None:
        """Note what tells the entry that the cursor stands at from another one of its seq."""

        def remember(connection: BoundedConnection) -> None:
            cursor = locked_cursor(connection, self.names)
            if cursor.seq == seq:
                move_cursor(connection, self.names, replace(cursor, mark=mark))

        self.transact(remember)

    def repair(
        self,
        record_id: str,
        record: Record | None,
        *,
        expected_seq: int | None,
        unchanged: Callable[[int], bool] | None = None,
    ) -> bool:
        """Put a record back at its own seq (None: remove the row), outside the journal's order.

        Does nothing and returns False if the row's seq is no longer ``expected_seq`` (None: no row),
        or if ``unchanged``, which is told the applied seq under the lock, says no: then a write came
        between, and what was seen is out of date.
        """

        def repair(connection: BoundedConnection) -> bool:
            cursor = locked_cursor(connection, self.names)
            if unchanged is not None and not unchanged(cursor.seq):
                return False
            found = connection.execute(self._queries.row_seq, (record_id,)).fetchone()
            if (found[0] if found else None) != expected_seq:
                return False
            connection.execute(self._queries.remove_row, (record_id,))
            if record is not None:
                write_changes(connection, self.names, [Change(record.seq, record_id, record)])
            return True

        return self.transact(repair)

    def detach(self) -> Cursor:
        """Stop following: the journal will drop entries that this table has not applied."""
        return self._change_state("following", "detached")

    def finalize(self) -> Cursor:
        """End the following for good: from now on the table takes plain writes."""
        return self._change_state("following", "final")

    def transact(
        self, operation: Callable[[BoundedConnection], T], *, timeout_ms: float | None = None
    ) -> T:
        """Run ``operation`` in one transaction; it is rolled back if it raises."""

        def in_transaction(connection: BoundedConnection) -> T:
            with connection.transaction():
                return operation(connection)

        return self._run(in_transaction, timeout_ms, writing=True)

    def _change_state(self, old: State, new: State) -> Cursor:
        def change(connection: BoundedConnection) -> Cursor:
            cursor = locked_cursor(connection, self.names)
            if cursor.state == new:
                return cursor
            if cursor.state != old:
                raise Unsupported(
                    f"table {self.settings.table} is {cursor.state}, not {old}: "
                    f"it cannot become {new}"
                )
            moved = replace(cursor, state=new)
            move_cursor(connection, self.names, moved)
            return moved

        return self.transact(change)

    def _write_own(self, writes: Sequence[tuple[str, Record | None]]) -> int:
        def write(connection: BoundedConnection) -> int:
            cursor = locked_cursor(connection, self.names)
            require_own_writes(cursor, self.settings.table)
            if not writes:
                return cursor.seq
            changes = [
                Change(cursor.seq + place, record_id, record)
                for place, (record_id, record) in enumerate(writes, start=1)
            ]
            write_changes(connection, self.names, changes)
            moved = replace(cursor, seq=changes[-1].seq, state="final", mark=None)
            move_cursor(connection, self.names, moved)
            return moved.seq

        return self.transact(write)
