"""A table of records as it is read: searched, fetched, paged, counted and described."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from psycopg.rows import TupleRow

from vectorstore.errors import StoreUnavailable
from vectorstore.filters import Filter, check_filter
from vectorstore.postgres.connection import BoundedConnection
from vectorstore.postgres.cursor import Cursor, lost_row
from vectorstore.postgres.description import describe
from vectorstore.postgres.pool import Pool
from vectorstore.postgres.queries import Queries, clause_values, filter_parameters
from vectorstore.postgres.schema import Names, ServerFacts
from vectorstore.postgres.search import VectorSearch
from vectorstore.postgres.session import pending_settings, send_settings, start_session
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.types import Answer, Metric, Query, Record, check_ms
from vectorstore.validation import check_ids, check_page, possible_ids

__all__ = ["ReadableTable"]

T = TypeVar("T")

_PIPELINE_QUERIES_MAX = 64
_BIGINT_MAX = 2**63 - 1


class ReadableTable:
    """What the store stands on: its connections, and everything that changes nothing.

    A call without a deadline of its own ends at the settings' ``statement_timeout_ms``.
    """

    def __init__(self, settings: PostgresSettings, facts: ServerFacts) -> None:
        self.settings = settings
        self.facts = facts
        self.names = Names.of(settings.table)
        self._queries = Queries(settings)
        self._pool = Pool(settings, self._configure)
        self._search = VectorSearch(settings, facts, self._queries, self._pool)
        self._pool.open()

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
        if not rows:
            raise lost_row(self.names)
        return Cursor(*rows[0])

    def describe(self, *, timeout_ms: float | None = None) -> Mapping[str, Any]:
        check_ms("timeout_ms", timeout_ms)
        return describe(self, timeout_ms=timeout_ms)

    def pool_statistics(self) -> Mapping[str, int]:
        """How the pool of this process stands; see :meth:`Pool.statistics`."""
        return self._pool.statistics()

    def close(self) -> None:
        self._pool.close()

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
