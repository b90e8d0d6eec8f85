"""Traps 5 to 8 and 12: the index, its dimensions and build, dead rows, and settings that get lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from psycopg import sql

from shadow.doctor.finding import Finding, Severity
from shadow.doctor.subject import Subject
from vectorstore.postgres.connection import BoundedConnection
from vectorstore.postgres.queries import OPERATOR_CLASSES, Queries
from vectorstore.postgres.store import PostgresStore

__all__ = ["check_index"]

DEAD_SHARE_MAX = 0.2
# A small table may well be read whole for less than a walk through the graph costs.
PLANNER_ROWS_MIN = 10_000
# Every transaction that wrote since may have left a dead version of the cursor's row, which is read past.
SNAPSHOT_AGE_TRANSACTIONS_MAX = 10_000
INDEXABLE_MAX = 4_000
UNITS = {"kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}

_INDEXES = """
    SELECT c.relname, a.amname, o.opcname, i.indisvalid, pg_relation_size(c.oid), c.reloptions
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_am a ON a.oid = c.relam
    JOIN pg_opclass o ON o.oid = i.indclass[0]
    WHERE i.indrelid = to_regclass(quote_ident(%s)) AND a.amname IN ('hnsw', 'ivfflat')
    ORDER BY c.relname
"""

_DEAD = """
    SELECT coalesce(s.n_live_tup, 0), coalesce(s.n_dead_tup, 0),
           greatest(s.last_vacuum, s.last_autovacuum)::text, coalesce(c.reloptions, '{}')
    FROM pg_class c LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
    WHERE c.oid = to_regclass(quote_ident(%s))
"""

# Everybody may see a session's snapshot, but its state and start only of sessions of one's own account.
# A vacuum's own snapshot holds nothing back, nor does that of a session in another database.
_HOLDERS = """
    SELECT pid, age(backend_xmin), extract(epoch FROM clock_timestamp() - xact_start)::float8, state
    FROM pg_stat_activity
    WHERE age(backend_xmin) > %s
      AND (datid IS NULL OR datid = (SELECT oid FROM pg_database WHERE datname = current_database()))
      AND pid <> pg_backend_pid()
      AND pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)
    ORDER BY age(backend_xmin) DESC
    LIMIT 5
"""


def check_index(subject: Subject) -> Iterator[Finding]:
    """Findings about the PostgreSQL table and its index."""
    store = subject.postgresql
    if store is None:
        return
    indexes = _rows(store, _INDEXES, store.settings.table)
    rows = store.count()
    yield from _index(subject, store, indexes, rows)
    yield from _dimensions(store, rows)
    yield from _build(store, indexes)
    yield from _dead_rows(store)
    yield from _held_back(store)
    yield from _lost_settings(store)


def _index(
    subject: Subject, store: PostgresStore, indexes: list[tuple[Any, ...]], rows: int
) -> Iterator[Finding]:
    settings = store.settings
    wanted = settings.indexable and rows > settings.exact_rows_max
    expected = f"{'halfvec' if settings.halfvec else 'vector'}_{OPERATOR_CLASSES[store.metric]}"
    problems: list[str] = []
    if wanted and not indexes:
        problems.append(f"{rows:,} rows and no vector index: every query reads all of them")
    for name, kind, operator_class, valid, _, _ in indexes:
        if not valid:
            problems.append(f"{name} is invalid: its build was interrupted")
        if operator_class != expected:
            problems.append(f"{name} has {operator_class}; queries need {expected} to use it")
        if kind == "ivfflat":
            problems.append(
                f"{name} is ivfflat: its lists were drawn from the rows that were there when it was "
                "built, and one that was built on an empty table finds almost nothing"
            )
    forced = settings.halfvec or rows <= PLANNER_ROWS_MIN
    plan = _plan(store, subject, forced=forced) if wanted and indexes and subject.queries else ""
    if plan and not any(f"Index Scan using {name} " in plan for name, *_ in indexes):
        problems.append(f"EXPLAIN shows no index scan: {plan}")
    if problems:
        yield Finding(
            5,
            "the index is absent or unused",
            Severity.FAULT,
            "queries do not go through a sound index",
            tuple(problems),
            "drop what is foreign and build the index anew with `shadow index`",
        )


def _plan(store: PostgresStore, subject: Subject, *, forced: bool) -> str:
    """The plan of an ordinary query, on one line. ``forced``: whether an index could be used at all."""
    text = Queries(store.settings).search(10, 0, exact=False)
    vector = np.asarray(subject.queries[0].vector, dtype=np.float32)

    def explain(connection: BoundedConnection) -> str:
        if forced:
            connection.execute("SET enable_seqscan = 0")
        try:
            lines = connection.execute(
                f"EXPLAIN (COSTS OFF) {text}".encode(), {"vector": vector}
            ).fetchall()
        finally:
            if forced:
                connection.execute("SET enable_seqscan = 1")
        return "; ".join(str(line[0]).strip() for line in lines)

    return store.read(explain)


def _dimensions(store: PostgresStore, rows: int) -> Iterator[Finding]:
    settings = store.settings
    if not settings.indexable and rows > settings.exact_rows_max:
        yield Finding(
            6,
            "too many dimensions",
            Severity.FAULT,
            f"{settings.dimension:,} dimensions cannot be indexed; pgvector ends at {INDEXABLE_MAX:,}",
            (f"{rows:,} rows are read for every query",),
            "use a model with fewer dimensions, or ask it for shorter vectors, and re-embed",
        )
    elif settings.halfvec and settings.index_type == "auto":
        yield Finding(
            6,
            "too many dimensions",
            Severity.NOTE,
            f"{settings.dimension:,} dimensions are indexed as halfvec, and reranked by whole vectors",
            ("pgvector indexes vector up to 2,000 dimensions and halfvec up to 4,000",),
            "nothing to mend; watch recall and raise postgresql.rerank_factor if it is low",
        )


def _build(store: PostgresStore, indexes: list[tuple[Any, ...]]) -> Iterator[Finding]:
    memory = store.settings.maintenance_work_mem
    allowed = int(memory[:-2]) * UNITS[memory[-2:]]
    problems = [
        f"{name} is {size / 1e6:.1f} MB and maintenance_work_mem {memory}: its build spills to disk"
        for name, _, _, _, size, _ in indexes
        if size > allowed
    ]
    if indexes and store.cursor().state == "loading":
        problems.append("a load is open and the index is there already: each row pays for it")
    if problems:
        yield Finding(
            7,
            "building the index",
            Severity.WARNING,
            "the index takes much longer to build than it needs to",
            tuple(problems),
            "raise postgresql.maintenance_work_mem above the index's size, and build after loading, as "
            "`shadow backfill` does",
        )


def _dead_rows(store: PostgresStore) -> Iterator[Finding]:
    live, dead, vacuumed, options = _rows(store, _DEAD, store.settings.table)[0]
    problems = []
    if dead > DEAD_SHARE_MAX * max(1, live + dead):
        problems.append(
            f"{dead:,} dead beside {live:,} live rows; last vacuum: {vacuumed or 'never'}"
        )
    if "autovacuum_enabled=false" in options:
        problems.append("autovacuum is switched off for the table")
    if problems:
        yield Finding(
            8,
            "dead rows",
            Severity.WARNING,
            "what was updated or deleted still slows down scans and the index",
            tuple(problems),
            f"run VACUUM {sql.Identifier(store.settings.table).as_string(None)} and leave autovacuum on; "
            "after very many updates, `shadow index --rebuild`",
        )


def _held_back(store: PostgresStore) -> Iterator[Finding]:
    problems = []
    for pid, transactions, seconds, state in _rows(store, _HOLDERS, SNAPSHOT_AGE_TRANSACTIONS_MAX):
        began = "" if seconds is None else f"; {state}, its transaction began {seconds:,.0f} s ago"
        problems.append(f"process {pid} of the server: {transactions:,} transactions since{began}")
    if problems:
        yield Finding(
            8,
            "dead rows",
            Severity.WARNING,
            "an old transaction holds vacuum back: dead versions pile up, of the cursor's one row above "
            "all, and every search reads past them",
            tuple(problems),
            "let it end, or end it with SELECT pg_terminate_backend(..); dump and report from a replica, "
            "and set idle_in_transaction_session_timeout for what is left open by mistake",
        )


def _lost_settings(store: PostgresStore) -> Iterator[Finding]:
    def look(connection: BoundedConnection) -> tuple[int | None, str | None]:
        row = connection.execute("SELECT current_setting('hnsw.ef_search', true)").fetchone()
        return connection.session.get("hnsw.ef_search"), row[0] if row else None

    believed, found = store.read(look)
    if believed is not None and str(believed) != found:
        yield Finding(
            12,
            "settings lost in a pool",
            Severity.FAULT,
            "a setting that this session made is not there any more",
            (f"hnsw.ef_search was set to {believed}, and the server says {found}",),
            "connect past the pooler, or run it in session mode; or fix the setting to the role: "
            "ALTER ROLE .. SET hnsw.ef_search",
        )


def _rows(store: PostgresStore, text: str, *values: Any) -> list[tuple[Any, ...]]:
    return store.read(lambda connection: connection.execute(text.encode(), values).fetchall())
