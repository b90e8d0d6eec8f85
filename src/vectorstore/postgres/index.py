"""The HNSW index: when it is built, and on what expression."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from psycopg import errors, sql

from vectorstore.errors import StoreUnavailable
from vectorstore.postgres.building import BuildProgress, build_watched
from vectorstore.postgres.connection import BoundedConnection
from vectorstore.postgres.failures import translated
from vectorstore.postgres.pool import connect
from vectorstore.postgres.queries import OPERATOR_CLASSES
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.postgres.store import PostgresStore

__all__ = [
    "GraphMemory",
    "drop_index",
    "ensure_index",
    "graph_memory",
]

_UNITS = {"kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
# PostgreSQL starts a worker for each 32 MB, two by its default settings.
_PARALLEL_BYTES = 128 << 20
_SPARE = 1.25

_DEFINITION = """
    SELECT i.indisvalid, o.opcname, coalesce(c.reloptions, '{}')
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_opclass o ON o.oid = i.indclass[0]
    WHERE i.indexrelid = to_regclass(quote_ident(%s))
"""


@dataclass(frozen=True, slots=True)
class GraphMemory:
    """What the graph takes while it is built, about, and what ``maintenance_work_mem`` allows; bytes."""

    needed: int
    allowed: int

    @property
    def fits(self) -> bool:
        """Whether the graph is built in memory; beyond that every row is inserted on its own."""
        return self.needed <= self.allowed


def graph_memory(settings: PostgresSettings, rows: int) -> GraphMemory:
    """The memory to build the index of so many rows.

    pgvector (hnswutils.c) holds each row's vector, an element of about 150 bytes, and 16 bytes for each
    of its 2 m links on the lowest level and m more on one level in m.
    """
    vector = (2 if settings.halfvec else 4) * settings.dimension + 8
    links = 16 * (2 * settings.hnsw_m + 1)
    number, unit = re.fullmatch(r"(\d+)(kB|MB|GB)", settings.maintenance_work_mem).groups()  # type: ignore[union-attr]
    return GraphMemory(rows * (vector + links + 150), int(number) * _UNITS[unit])


def ensure_index(
    store: PostgresStore,
    *,
    concurrently: bool = True,
    on_progress: Callable[[BuildProgress], None] | None = None,
) -> bool:
    """Build the index that the settings ask for, if there are more rows than ``exact_rows_max``.

    Returns whether there is a valid index now. One that is invalid (its build was killed) or was built
    with other parameters is replaced. ``concurrently`` lets reads and writes go on meanwhile.
    ``on_progress`` is called about four times a second, in the calling thread. Raises
    StoreUnavailable if another process is building, and what the driver's errors translate to.
    """
    settings = store.settings
    rows = store.count()
    if not settings.indexable or rows <= settings.exact_rows_max:
        return store.refresh_index()
    with connect(settings) as connection:
        try:
            _claim(connection, store)
            if not _fits(connection, store):
                _drop(connection, store, concurrently=concurrently)
                _give_memory(connection, graph_memory(settings, rows))
                build_watched(
                    connection,
                    store,
                    lambda: _build(connection, store, concurrently=concurrently),
                    on_progress,
                )
        except psycopg.Error as error:
            raise translated(error, settings) from error
    return store.refresh_index()


def drop_index(store: PostgresStore, *, concurrently: bool = True) -> None:
    """Remove the index; searches become exact scans."""
    with connect(store.settings) as connection:
        try:
            _claim(connection, store)
            _drop(connection, store, concurrently=concurrently)
        except psycopg.Error as error:
            raise translated(error, store.settings) from error
    store.refresh_index()


def _claim(connection: BoundedConnection, store: PostgresStore) -> None:
    """Keep other builders out until this connection closes."""
    row = connection.execute(
        "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))",
        (f"shadow-cutover index {store.settings.table}",),
    ).fetchone()
    if not row or not row[0]:
        raise StoreUnavailable(
            f"another process is building or dropping the index of {store.settings.table}: "
            "wait for it, then try again"
        )


def _fits(connection: BoundedConnection, store: PostgresStore) -> bool:
    row = connection.execute(_DEFINITION, (store.names.vector_index,)).fetchone()
    if row is None:
        return False
    valid, operator_class, options = row
    wanted = {
        f"m={store.settings.hnsw_m}",
        f"ef_construction={store.settings.hnsw_ef_construction}",
    }
    return bool(valid) and operator_class == _operator_class(store) and set(options) == wanted


def _operator_class(store: PostgresStore) -> str:
    kind = "halfvec" if store.settings.halfvec else "vector"
    return f"{kind}_{OPERATOR_CLASSES[store.metric]}"


def _drop(connection: BoundedConnection, store: PostgresStore, *, concurrently: bool) -> None:
    connection.execute(
        sql.SQL("DROP INDEX {} IF EXISTS {}").format(
            sql.SQL("CONCURRENTLY" if concurrently else ""),
            sql.Identifier(store.names.vector_index),
        )
    )


def _give_memory(connection: BoundedConnection, memory: GraphMemory) -> None:
    """Allow what the graph needs and not more: parallel workers take all that is allowed at once, out
    of /dev/shm, and get none at all when there is little for each."""
    wanted = min(memory.allowed, max(_PARALLEL_BYTES, int(_SPARE * memory.needed)))
    connection.execute(f"SET maintenance_work_mem = '{wanted >> 10}kB'".encode())


def _build(connection: BoundedConnection, store: PostgresStore, *, concurrently: bool) -> None:
    settings = store.settings
    column = f"(embedding::halfvec({settings.dimension}))" if settings.halfvec else "embedding"
    statement = sql.SQL(
        "CREATE INDEX {concurrently} {index} ON {table} USING hnsw ({column} {operator_class}) "
        "WITH (m = {m}, ef_construction = {ef_construction})"
    ).format(
        concurrently=sql.SQL("CONCURRENTLY" if concurrently else ""),
        index=sql.Identifier(store.names.vector_index),
        table=store.names.table,
        column=sql.SQL(column),
        operator_class=sql.SQL(_operator_class(store)),
        m=sql.Literal(settings.hnsw_m),
        ef_construction=sql.Literal(settings.hnsw_ef_construction),
    )
    try:
        connection.execute(statement)
    except (errors.DiskFull, errors.OutOfMemory):
        # Parallel workers share the graph through /dev/shm, which containers keep small.
        _drop(connection, store, concurrently=concurrently)
        connection.execute("SET max_parallel_maintenance_workers = 0")
        connection.execute(statement)
