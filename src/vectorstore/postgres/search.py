"""Nearest-neighbour queries: exact, or through the index with an exact answer where it falls short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from psycopg.rows import TupleRow

from vectorstore.errors import StoreUnavailable
from vectorstore.postgres.connection import BoundedConnection
from vectorstore.postgres.cursor import lost_row
from vectorstore.postgres.pool import Deadline, Pool
from vectorstore.postgres.queries import SCORES, Queries, clause_values, filter_parameters
from vectorstore.postgres.schema import Names, ServerFacts
from vectorstore.postgres.session import pending_settings, send_settings
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.postgres.wire import vector_bytes
from vectorstore.types import Answer, Hit, Query
from vectorstore.validation import query_vector

__all__ = ["VectorSearch"]


class VectorSearch:
    """Answers queries over a pool. ``indexed``: whether there is a valid vector index."""

    def __init__(
        self, settings: PostgresSettings, facts: ServerFacts, queries: Queries, pool: Pool
    ) -> None:
        self.indexed = False
        self._settings = settings
        self._facts = facts
        self._queries = queries
        self._pool = pool

    def answer(self, query: Query, *, exact: bool, deadline: Deadline) -> Answer:
        """One answer; the shortest way for a query without a filter, which is what most are."""
        if query.filter is not None:
            return self.answers([query], exact=exact, deadline=deadline)[0]
        settings = self._settings
        vector = query_vector(query, dimension=settings.dimension, metric=settings.metric)
        indexed = self.indexed and not exact
        text = self._queries.numbered(query.k, exact=not indexed)
        session = self._session((query,), indexed=indexed)

        def fetch(connection: BoundedConnection) -> list[TupleRow] | None:
            if pending_settings(connection, session):
                return None
            return connection.fetch(text, (connection.vector_oid,), (vector_bytes(vector),))

        rows = self._pool.run(fetch, deadline)
        if rows is None:
            # Settings and statement go in one round trip.
            return self.answers([query], exact=exact, deadline=deadline)[0]
        answer = self._answer(rows)
        if indexed and len(answer.hits) < query.k:
            # The index gave up early (its scan is bounded), or there are no more rows.
            return self.answer(query, exact=True, deadline=deadline)
        return answer

    def answers(self, queries: Sequence[Query], *, exact: bool, deadline: Deadline) -> list[Answer]:
        """Answers in order, in one round trip where the index gives enough rows."""
        vectors = [
            query_vector(query, dimension=self._settings.dimension, metric=self._settings.metric)
            for query in queries
        ]
        indexed = self.indexed and not exact
        # Before pgvector 0.8 an index scan stops early when the filter refuses most rows.
        exactly = [
            not indexed or (query.filter is not None and not self._facts.iterates)
            for query in queries
        ]

        def fetch(connection: BoundedConnection) -> list[list[TupleRow]]:
            changes = pending_settings(connection, self._session(queries, indexed=indexed))
            statements = []
            for query, vector, scan in zip(queries, vectors, exactly, strict=True):
                clauses = filter_parameters(query.filter)
                text = self._queries.search(query.k, len(clauses), exact=scan)
                statements.append((text, {"vector": vector, **clause_values(clauses)}))
            return _fetch_all(connection, statements, changes)

        results = self._pool.run(fetch, deadline)
        answers = []
        for query, rows, was_exact in zip(queries, results, exactly, strict=True):
            answer = self._answer(rows)
            if len(answer.hits) < query.k and not was_exact:
                answer = self.answer(query, exact=True, deadline=deadline)
            answers.append(answer)
        return answers

    def _session(self, queries: Sequence[Query], *, indexed: bool) -> dict[str, int]:
        """The session settings that these queries need."""
        wanted: dict[str, int] = {}
        if indexed:
            halfvec, width = self._settings.halfvec, self._queries.rerank_width
            widths = [width(query.k) if halfvec else query.k for query in queries]
            wanted["hnsw.ef_search"] = max(self._settings.ef_search, *widths)
        if self._settings.halfvec:
            # Such vectors lie in the TOAST table, which the planner does not count: it takes a scan
            # of all of them for cheap.
            wanted["enable_seqscan"] = 0 if indexed else 1
        return wanted

    def _answer(self, rows: list[TupleRow]) -> Answer:
        if not rows:
            raise lost_row(Names.of(self._settings.table))
        applied_seq, state = rows[0][:2]
        if state == "loading":
            raise StoreUnavailable(f"table {self._settings.table} is being loaded")
        # A table without matching rows comes back as one row of NULLs beside the cursor.
        found = rows if rows[0][2] is not None else []
        convert = SCORES[self._settings.metric]
        hits = [Hit(row[2], convert(row[3]), row[4], row[5], row[6]) for row in found]
        # The join promises no order; equal scores go to the lower id, as in every store.
        hits.sort(key=attrgetter("id"))
        hits.sort(key=attrgetter("score"), reverse=True)
        return Answer(hits, "postgresql", applied_seq)


def _fetch_all(
    connection: BoundedConnection,
    statements: Sequence[tuple[str, Mapping[str, Any]]],
    changes: Mapping[str, int],
) -> list[list[TupleRow]]:
    """Run reading statements in one round trip, after the session settings that they need.

    A filter's selectivity differs by its values, so a statement that has one is planned each time.
    """
    if len(statements) == 1 and not changes:
        text, values = statements[0]
        return [connection.reader.execute(text, values, prepare=len(values) == 1).fetchall()]
    with connection.pipeline():
        send_settings(connection, changes)
        cursors = [
            connection.cursor(binary=True).execute(text, values, prepare=len(values) == 1)
            for text, values in statements
        ]
        results = [cursor.fetchall() for cursor in cursors]
    connection.session.update(changes)
    return results
