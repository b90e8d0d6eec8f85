"""What an operator wants to know of the server: sizes, dead rows, cache, connections, our statements.

Read from the statistics views, which any account may read for its own tables. Every hint names the
figure that it rests on.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from vectorstore.postgres.building import BuildProgress, build_under_way
from vectorstore.postgres.connection import BoundedConnection
from vectorstore.postgres.store import PostgresStore

__all__ = ["Monitoring", "Statement", "hints", "monitor"]

TIMEOUT_MS = 1_000.0
STATEMENTS_SHOWN = 5
STATEMENT_CHARACTERS_MAX = 160
DEAD_SHARE_MAX = 0.2
CACHE_HIT_SHARE_MIN = 0.95
CONNECTIONS_SHARE_MAX = 0.8
# Reads below this are too few to say anything of the cache.
READS_MIN = 1_000

_SIZES = """
    SELECT pg_total_relation_size(c.oid) - pg_indexes_size(c.oid), pg_indexes_size(c.oid),
           coalesce(pg_relation_size(to_regclass(quote_ident(%(index)s))), 0),
           coalesce(s.n_live_tup, 0), coalesce(s.n_dead_tup, 0),
           coalesce(io.heap_blks_hit + io.idx_blks_hit + coalesce(io.toast_blks_hit, 0), 0),
           coalesce(io.heap_blks_read + io.idx_blks_read + coalesce(io.toast_blks_read, 0), 0),
           extract(epoch FROM now() - greatest(s.last_vacuum, s.last_autovacuum))::float8,
           coalesce(s.n_tup_ins, 0), coalesce(s.n_tup_upd, 0), coalesce(s.n_tup_del, 0)
    FROM pg_class c
    LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
    LEFT JOIN pg_statio_all_tables io ON io.relid = c.oid
    WHERE c.oid = to_regclass(quote_ident(%(table)s))
"""

# pg_stat_activity hides the kind of other accounts' sessions from a plain one, which would count its own
# alone; this number is everybody's to see.
_SERVER = """
    SELECT (SELECT sum(numbackends)::int FROM pg_stat_database),
           current_setting('max_connections')::int,
           pg_size_bytes(current_setting('shared_buffers')),
           pg_size_bytes(current_setting('work_mem')),
           pg_size_bytes(%s),
           pg_database_size(current_database())
"""

# Settings that only an administrator may see are absent from pg_settings for others.
_COUNTING = """
    SELECT (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
            WHERE e.extname = 'pg_stat_statements'),
           EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements'),
           (SELECT setting FROM pg_settings WHERE name = 'shared_preload_libraries')
"""

_STATEMENTS = """
    SELECT left(regexp_replace(query, '\\s+', ' ', 'g'), %s), calls, mean_exec_time, max_exec_time
    FROM {}.pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
    WHERE d.datname = current_database() AND query LIKE %s
      -- What made the table ran once and is over; it would crowd out what runs all day.
      AND query !~* '^\\s*(create|alter|drop|vacuum|analyze|reindex|grant)\\M'
    ORDER BY total_exec_time DESC LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class Statement:
    """One of our statements as pg_stat_statements counts it: no values, only its shape."""

    text: str
    calls: int
    mean_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Monitoring:
    """The server and our table at one moment.

    ``cache_hit_share`` is ``None`` while too little was read. ``vacuum_age_s``: since the last vacuum,
    ``None`` if there was none. ``rows_inserted``, ``rows_updated`` and ``rows_deleted``: since the
    server's statistics began. ``statements`` is ``None`` where pg_stat_statements does not count them,
    and ``statements_absent`` says why and how to get them. ``build_memory_bytes``: what an index build
    of ours is given.
    """

    table_bytes: int
    indexes_bytes: int
    vector_index_bytes: int
    database_bytes: int
    live_rows: int
    dead_rows: int
    cache_hit_share: float | None
    vacuum_age_s: float | None
    rows_inserted: int
    rows_updated: int
    rows_deleted: int
    connections: int
    connections_max: int
    shared_buffers_bytes: int
    work_mem_bytes: int
    build_memory_bytes: int
    build: BuildProgress | None
    statements: tuple[Statement, ...] | None
    statements_absent: str | None


def monitor(store: PostgresStore) -> Monitoring:
    """Look at the server, within a second. Raises StoreUnavailable."""

    def look(connection: BoundedConnection) -> Monitoring:
        table = store.settings.table
        sizes = connection.execute(
            _SIZES, {"table": table, "index": store.names.vector_index}
        ).fetchone()
        server = connection.execute(_SERVER, (store.settings.maintenance_work_mem,)).fetchone()
        assert sizes is not None
        assert server is not None
        hit, read = int(sizes[5]), int(sizes[6])
        statements = _statements(connection, table)
        return Monitoring(
            table_bytes=sizes[0],
            indexes_bytes=sizes[1],
            vector_index_bytes=sizes[2],
            database_bytes=server[5],
            live_rows=sizes[3],
            dead_rows=sizes[4],
            cache_hit_share=hit / (hit + read) if hit + read >= READS_MIN else None,
            vacuum_age_s=sizes[7],
            rows_inserted=sizes[8],
            rows_updated=sizes[9],
            rows_deleted=sizes[10],
            connections=server[0],
            connections_max=server[1],
            shared_buffers_bytes=server[2],
            work_mem_bytes=server[3],
            build_memory_bytes=server[4],
            build=build_under_way(connection, table),
            statements=None if isinstance(statements, str) else statements,
            statements_absent=statements if isinstance(statements, str) else None,
        )

    return store.read(look, timeout_ms=TIMEOUT_MS)


def _statements(connection: BoundedConnection, table: str) -> tuple[Statement, ...] | str:
    """Our statements; or, where they are not counted, why and what to do."""
    row = connection.execute(_COUNTING).fetchone()
    assert row is not None
    schema, available, libraries = row
    preload = (
        "add pg_stat_statements to shared_preload_libraries, restart the server, and run "
        "CREATE EXTENSION pg_stat_statements in this database"
    )
    if schema is None:
        if not available:
            return (
                "this server has no pg_stat_statements; it comes with PostgreSQL's contrib package"
            )
        if libraries is not None and "pg_stat_statements" in libraries:
            return "run CREATE EXTENSION pg_stat_statements in this database"
        return preload
    query = sql.SQL(_STATEMENTS).format(sql.Identifier(schema))
    try:
        rows = connection.execute(
            query, (STATEMENT_CHARACTERS_MAX, f"%{table}%", STATEMENTS_SHOWN)
        ).fetchall()
    except psycopg.errors.ObjectNotInPrerequisiteState:
        return f"pg_stat_statements is created but not loaded: {preload}"
    except psycopg.Error:
        return "this role may not read pg_stat_statements: GRANT pg_read_all_stats TO it"
    return tuple(Statement(*row) for row in rows)


def hints(seen: Monitoring) -> tuple[str, ...]:
    """What to change, each with its reason."""
    found: list[str] = []
    working = seen.vector_index_bytes or seen.table_bytes
    what = "vector index" if seen.vector_index_bytes else "table"
    if working > seen.shared_buffers_bytes:
        found.append(
            f"shared_buffers is {_size(seen.shared_buffers_bytes)} and the {what} is "
            f"{_size(working)}: searches walk all of it, so let it fit (a quarter of the machine's "
            "memory is usual; needs a restart)"
        )
    if seen.cache_hit_share is not None and seen.cache_hit_share < CACHE_HIT_SHARE_MIN:
        found.append(
            f"{1 - seen.cache_hit_share:.1%} of the pages came from outside shared_buffers: raise it, "
            "or warm the table with pg_prewarm after a restart"
        )
    if seen.vector_index_bytes > seen.build_memory_bytes:
        found.append(
            f"postgresql.maintenance_work_mem is {_size(seen.build_memory_bytes)} and the vector index "
            f"is {_size(seen.vector_index_bytes)}: a graph that does not fit is built several times "
            "slower"
        )
    total = seen.live_rows + seen.dead_rows
    if seen.dead_rows > 1_000 and seen.dead_rows > DEAD_SHARE_MAX * total:
        found.append(
            f"{seen.dead_rows:,} of {total:,} rows are dead: vacuum the table, and lower its "
            "autovacuum_vacuum_scale_factor; every search steps over them"
        )
    if seen.connections > CONNECTIONS_SHARE_MAX * seen.connections_max:
        found.append(
            f"{seen.connections} of {seen.connections_max} connections are taken: lower "
            "postgresql.pool_size_max, or put a pooler in front"
        )
    if seen.work_mem_bytes < 4 << 20:
        found.append(
            f"work_mem is {_size(seen.work_mem_bytes)}: an iterative scan keeps its candidates in it, "
            "and filtered searches fall short; 4 MB is the server's own default"
        )
    return tuple(found)


def _size(value: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} TB"
