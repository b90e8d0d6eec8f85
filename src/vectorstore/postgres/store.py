"""PostgreSQL with pgvector as a store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import psycopg
from psycopg.rows import TupleRow

from vectorstore.errors import StoreCorrupt, StoreUnavailable, Unsupported
from vectorstore.filters import Filter, check_filter
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
from vectorstore.postgres.description import describe
from vectorstore.postgres.failures import translated
from vectorstore.postgres.pool import Pool, connect
from vectorstore.postgres.queries import Queries, clause_values, filter_parameters
from vectorstore.postgres.schema import Names, ServerFacts, prepare_schema
from vectorstore.postgres.search import VectorSearch
from vectorstore.postgres.session import pending_settings, send_settings, start_session
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.types import Answer, Change, Metric, Query, Record, check_ms
from vectorstore.validation import (
    check_batch,
    check_id,
    check_ids,
    check_page,
    normalised_record,
    possible_ids,
)

__all__ = ["PostgresStore"]

T = TypeVar("T")

_PIPELINE_QUERIES_MAX = 64
_BIGINT_MAX = 2**63 - 1


class PostgresStore:
    """A table of records, searched exactly or through an HNSW index. Safe to share between threads.

    Answers carry the seq that the table had applied in the same snapshot that the rows were read in.
    """

    def __init__(self, settings: PostgresSettings, facts: ServerFacts) -> None:
        self.settings = settings
        self.facts = facts
        self.names = Names.of(settings.table)
        self._queries = Queries(settings)
        self._advance_rows = Advance(self.names)
        self._incarnation: str | None = None
        self._pool = Pool(settings, self._configure)
        self._search = VectorSearch(settings, facts, self._queries, self._pool)
        self._pool.open()

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

    @property
    def name(self) -> str:
        return "postgresql"

    @property
    def dimension(self) -> int:
        return self.settings.dimension

    @property
    def metric(self) -> Metric:
        return self.settings.metric

    def search(self, query: Query) -> Answer:
        return self._search.answer(
            query, exact=False, deadline=self._pool.deadline(query.timeout_ms)
        )

    def search_exact(self, query: Query) -> Answer:
        """The true nearest rows, by a scan that no vector index can shorten."""
        return self._search.answer(
            query, exact=True, deadline=self._pool.deadline(query.timeout_ms)
        )

    def search_many(self, queries: Sequence[Query]) -> list[Answer]:
        """Answers in order, pipelined on one connection; the shortest timeout holds for the batch."""
        timeouts = [query.timeout_ms for query in queries if query.timeout_ms is not None]
        deadline = self._pool.deadline(min(timeouts, default=None))
        answers: list[Answer] = []
        for start in range(0, len(queries), _PIPELINE_QUERIES_MAX):
            answers += self._search.answers(
                queries[start : start + _PIPELINE_QUERIES_MAX], exact=False, deadline=deadline
            )
        return answers

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

    def get(self, ids: Sequence[str], *, timeout_ms: float | None = None) -> list[Record]:
        check_ids(ids)
        check_ms("timeout_ms", timeout_ms)
        rows = self._rows(self._queries.get, (possible_ids(ids),), timeout_ms)
        found = {row[0]: Record(*row) for row in rows}
        return [found[record_id] for record_id in ids if record_id in found]

    def scan(
        self, *, after: str = "", limit: int = 1000, timeout_ms: float | None = None
    ) -> list[Record]:
        check_page(after, limit)
        check_ms("timeout_ms", timeout_ms)
        parameters = (after, min(int(limit), _BIGINT_MAX))
        rows = self._rows(self._queries.scan, parameters, timeout_ms)
        return [Record(*row) for row in rows]

    def count(self, filter: Filter | None = None, *, timeout_ms: float | None = None) -> int:
        check_filter(filter)
        check_ms("timeout_ms", timeout_ms)
        clauses = filter_parameters(filter)
        text = self._queries.count(len(clauses))
        rows = self._rows(text, clause_values(clauses), timeout_ms)
        return int(rows[0][0])

    def applied_seq(self, *, timeout_ms: float | None = None) -> int:
        """What the table has applied; StoreUnavailable while it is being loaded, half full."""
        cursor = self.cursor(timeout_ms=timeout_ms)
        if cursor.state == "loading":
            raise StoreUnavailable(f"table {self.settings.table} is being loaded")
        return cursor.seq

    def cursor(self, *, timeout_ms: float | None = None) -> Cursor:
        """Which journal the table follows, how far, and in what state."""
        rows = self._rows(self._queries.cursor, (), timeout_ms)
        return Cursor(*rows[0])

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

    def describe(self, *, timeout_ms: float | None = None) -> Mapping[str, Any]:
        check_ms("timeout_ms", timeout_ms)
        return describe(self, timeout_ms=timeout_ms)

    def pool_statistics(self) -> Mapping[str, int]:
        """How the pool of this process stands; see :meth:`Pool.statistics`."""
        return self._pool.statistics()

    def close(self) -> None:
        self._pool.close()

    def transact(
        self, operation: Callable[[BoundedConnection], T], *, timeout_ms: float | None = None
    ) -> T:
        """Run ``operation`` in one transaction; it is rolled back if it raises."""

        def in_transaction(connection: BoundedConnection) -> T:
            with connection.transaction():
                return operation(connection)

        return self._run(in_transaction, timeout_ms, writing=True)

    def read(
        self, operation: Callable[[BoundedConnection], T], *, timeout_ms: float | None = None
    ) -> T:
        """Run reading statements on a pooled connection."""
        return self._run(operation, timeout_ms, writing=False)

    def refresh_index(self) -> bool:
        """Look again whether there is a valid vector index; new connections do so by themselves."""
        self._search.indexed = bool(self._rows(self._queries.indexed, ())[0][0])
        return self._search.indexed

    def _configure(self, connection: BoundedConnection) -> None:
        start_session(connection, self.settings, self.facts)
        row = connection.execute(self._queries.indexed).fetchone()
        self._search.indexed = bool(row and row[0])

    @staticmethod
    def _refresh_session(connection: BoundedConnection) -> None:
        changes = pending_settings(connection, {"enable_seqscan": 1})
        if changes:
            send_settings(connection, changes)
            connection.session.update(changes)

    def _run(
        self,
        operation: Callable[[BoundedConnection], T],
        timeout_ms: float | None,
        *,
        writing: bool,
    ) -> T:
        def running(connection: BoundedConnection) -> T:
            self._refresh_session(connection)
            return operation(connection)

        return self._pool.run(running, self._pool.deadline(timeout_ms), writing=writing)

    def _rows(self, text: str, parameters: Any, timeout_ms: float | None = None) -> list[TupleRow]:
        def fetch(connection: BoundedConnection) -> list[TupleRow]:
            return connection.reader.execute(text, parameters).fetchall()

        return self.read(fetch, timeout_ms=timeout_ms)

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
