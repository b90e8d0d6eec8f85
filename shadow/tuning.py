"""Tune: recall against latency for many ways to search, measured on a copy of the table.

The copy is made inside the database and dropped in the end, so that no index of the live table is
touched. Half of the queries choose, the other half, which the choice has not seen, confirms it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import psycopg
from psycopg import sql

from shadow.core.comparison import Scored, compare
from shadow.core.frontier import Candidate, Grid, Measured, affordable, frontier
from shadow.exact_scans import scored
from vectorstore.errors import ConfigurationError, InvalidInput, StoreUnavailable
from vectorstore.postgres.connection import BoundedConnection
from vectorstore.postgres.failures import translated
from vectorstore.postgres.index import ensure_index
from vectorstore.postgres.pool import connect
from vectorstore.postgres.schema import Names
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Metric, Query

__all__ = ["Tuned", "tune"]

QUERIES_MIN = 20
QUERIES_MAX = 400
STATEMENT_TIMEOUT_MS = 600_000
TOLERANCE = 1e-5
SUFFIX = "_tune"
# By this a table is known as a copy that may be dropped, whatever it is called.
COPY_MARK = "a copy made by shadow tune"

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Tuned:
    """``measured``: all candidates. ``frontier``: those worth having. ``confirmed``: these on queries
    that chose nothing. ``proposed``: the cheapest that met the thresholds on both halves, if any did.
    """

    measured: tuple[Measured, ...]
    frontier: tuple[Measured, ...]
    confirmed: tuple[Measured, ...]
    proposed: Measured | None
    rows: int


def tune(
    store: PostgresStore,
    queries: Sequence[Query],
    *,
    recall_min: float,
    latency_budget_ms: float,
    grid: Grid | None = None,
    on_step: Told | None = None,
) -> Tuned:
    """Measure the grid on ``queries`` and propose the cheapest setting that meets the thresholds.

    Needs room for a second copy of the table and its index. Raises InvalidInput for too few queries,
    StoreUnavailable unless the table holds a complete copy and the server takes another one, and
    ConfigurationError if the copy's name is taken.
    """
    if store.cursor().state not in ("following", "final") or store.count() == 0:
        raise StoreUnavailable(
            "PostgreSQL holds no complete copy to measure on: run `shadow backfill` first"
        )
    if len(queries) < QUERIES_MIN:
        raise InvalidInput(
            f"{len(queries)} queries are too few to choose and to confirm a setting by; give at least "
            f"{QUERIES_MIN}"
        )
    tell = on_step or (lambda _: None)
    queries = [replace(q, timeout_ms=STATEMENT_TIMEOUT_MS) for q in queries[:QUERIES_MAX]]
    filtered = any(query.filter is not None for query in queries)
    with _copy_of(store, tell) as settings:
        bench = _Bench(settings, queries, tell)
        found = list(bench.measure((grid or Grid()).candidates(filtered=filtered)))
    choosing = [pair[0] for pair in found]
    held_out = {pair[0].candidate: pair[1] for pair in found}
    best = frontier(choosing)
    # Only what is worth having is proposed, so that noise in one latency decides little.
    thresholds = {"recall_min": recall_min, "latency_budget_ms": latency_budget_ms}
    proposed = next(
        (
            one
            for one in affordable(best, **thresholds)
            if affordable([held_out[one.candidate]], **thresholds)
        ),
        None,
    )
    return Tuned(
        tuple(choosing),
        tuple(best),
        tuple(held_out[one.candidate] for one in best),
        proposed,
        bench.rows,
    )


class _Bench:
    """Runs candidates on the copy, one connection, one query after another."""

    def __init__(self, settings: PostgresSettings, queries: Sequence[Query], tell: Told) -> None:
        self._settings = settings
        self._queries = queries
        self._tell = tell
        self._truth: list[list[Scored]] = []
        self.rows = 0

    def measure(self, candidates: Iterator[Candidate]) -> Iterator[tuple[Measured, Measured]]:
        """Each candidate on the even queries and on the odd ones; exact search must come first."""
        for build, group in itertools.groupby(candidates, key=lambda one: (one.exact, one.build)):
            for number, candidate in enumerate(group):
                store = PostgresStore.open(_settings_of(self._settings, candidate))
                try:
                    if not candidate.exact and number == 0:
                        self._tell(f"building {build[1][0]} m {build[1][1]}/{build[1][2]}")
                        ensure_index(store, concurrently=False)
                    store.refresh_index()
                    yield self._run(store, candidate)
                finally:
                    store.close()

    def _run(self, store: PostgresStore, candidate: Candidate) -> tuple[Measured, Measured]:
        search = store.search_exact if candidate.exact else store.search
        if candidate.exact:
            self.rows = store.count()
        for query in self._queries[:5]:
            search(query)
        elapsed_ms: list[float] = []
        answers: list[list[Scored]] = []
        for query in self._queries:
            started = time.perf_counter()
            answer = search(query)
            elapsed_ms.append((time.perf_counter() - started) * 1e3)
            answers.append(scored(answer.hits))
        if candidate.exact:
            self._truth = answers
        recalls = [
            compare(truth, answer, k=query.k, tolerance=self._tolerance(query), live=_held).recall
            for query, truth, answer in zip(self._queries, self._truth, answers, strict=True)
        ]
        halves = [_summed(candidate, recalls[at::2], elapsed_ms[at::2]) for at in (0, 1)]
        self._tell(f"{candidate.name}: recall {halves[0].recall:.4f}, {halves[0].p50_ms:.2f} ms")
        return halves[0], halves[1]

    def _tolerance(self, query: Query) -> float:
        if self._settings.metric is Metric.COSINE:
            return TOLERANCE
        return TOLERANCE * max(1.0, float(np.linalg.norm(query.vector)) ** 2)


def _held(_: str) -> bool:
    return True


def _summed(
    candidate: Candidate, recalls: Sequence[float], elapsed_ms: Sequence[float]
) -> Measured:
    return Measured(
        candidate,
        sum(recalls) / len(recalls),
        float(np.quantile(elapsed_ms, 0.5)),
        float(np.quantile(elapsed_ms, 0.95)),
        len(recalls),
    )


def _settings_of(settings: PostgresSettings, candidate: Candidate) -> PostgresSettings:
    if candidate.exact:
        return settings
    return replace(
        settings,
        index_type=candidate.index_type,
        rerank_factor=candidate.rerank_factor,
        hnsw_m=candidate.hnsw_m,
        hnsw_ef_construction=candidate.hnsw_ef_construction,
        ef_search=candidate.ef_search,
        iterative_scan=candidate.iterative_scan,
    )


@contextmanager
def _copy_of(store: PostgresStore, tell: Told) -> Iterator[PostgresSettings]:
    """Settings of a table with the same rows; dropped in the end.

    Raises ConfigurationError if a table of its name is there that no tune made.
    """
    table = f"{store.settings.table[: 40 - len(SUFFIX)]}{SUFFIX}"
    settings = replace(
        store.settings,
        table=table,
        exact_rows_max=0,
        pool_size_min=0,
        pool_size_max=1,
        statement_timeout_ms=STATEMENT_TIMEOUT_MS,
    )
    names = Names.of(table)
    try:
        with connect(store.settings) as connection:
            _require_own(connection, table)
            # What a killed run left.
            _drop(connection, names)
            tell("copying the table")
            PostgresStore.open(settings).close()
            try:
                connection.execute(
                    sql.SQL("COMMENT ON TABLE {} IS {}").format(names.table, COPY_MARK)
                )
                columns = sql.SQL("id, seq, embedding, text, metadata")
                connection.execute(
                    sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(
                        names.table, columns, columns, store.names.table
                    )
                )
                connection.execute(sql.SQL("VACUUM ANALYZE {}").format(names.table))
                yield settings
            finally:
                _drop(connection, names)
    except psycopg.Error as error:
        raise translated(error, settings, writing=True) from error


def _require_own(connection: BoundedConnection, table: str) -> None:
    found = connection.execute(
        "SELECT obj_description(oid, 'pg_class') FROM pg_class "
        "WHERE oid = to_regclass(quote_ident(%s))",
        (table,),
    ).fetchone()
    if found is not None and found[0] != COPY_MARK:
        raise ConfigurationError(
            f"tune makes its copy under the name {table}, and the table of that name is none of tune's "
            f"copies: nothing was changed. If nobody needs it, drop the tables {table}, {table}_cursor, "
            f"{table}_load and {table}_schema; else move it"
        )


def _drop(connection: BoundedConnection, names: Names) -> None:
    for name in (names.table, names.cursor, names.load, names.schema_version):
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(name))
