"""PostgreSQL reads against their floors, and against the naive ways.

*Floors*: the server's own execution time of the same statement (EXPLAIN ANALYZE with SERIALIZE where
there is one), and psycopg with a prepared statement and binary values on a kept connection, rows left
as they come. *Naive*: a table as ``CREATE TABLE`` makes it (the vectors in the TOAST table), the query
vector as text, an answer as text; once on a kept connection, once with a connection for each query.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from benchmarks.bench import Bench
from benchmarks.interleave import Side, Timings, interleave, ratio
from benchmarks.reads import EXACT_RECALL_MIN
from benchmarks.stores import filled_table
from vectorstore.postgres.wire import register_vectors

__all__ = ["wire"]

PART = "wire"
SELECT = "SELECT id, text, metadata, seq, embedding <=> {} AS distance FROM {} ORDER BY 5 LIMIT 10"


def wire(bench: Bench) -> None:
    """382 x 1,536, exact search."""
    data = bench.data(382, 1536)
    store = filled_table(bench.dsn, data)
    plain = sql.Identifier(f"{store.settings.table}_plain")
    kept = psycopg.connect(bench.dsn, autocommit=True)
    register_vectors(kept)
    kept.execute(
        sql.SQL(
            "CREATE TABLE {} (id text PRIMARY KEY, text text, metadata jsonb, seq bigint, "
            "embedding vector(1536))"
        ).format(plain)
    )
    kept.execute(
        sql.SQL("INSERT INTO {} SELECT id, text, metadata, seq, embedding FROM {}").format(
            plain, store.names.table
        )
    )
    kept.execute(sql.SQL("VACUUM ANALYZE {}").format(plain))
    vectors, count = data.queries, len(data.queries)
    inline = sql.SQL(SELECT).format(sql.SQL("%s"), store.names.table).as_string()
    toasted = sql.SQL(SELECT).format(sql.SQL("%s"), plain).as_string()
    as_text = sql.SQL(SELECT).format(sql.SQL("%s::vector"), plain).as_string()
    reader = kept.cursor(binary=True)
    naive = psycopg.connect(bench.dsn, autocommit=True)
    queries = [data.query(number) for number in range(count)]

    def text_query(connection: psycopg.Connection[Any], number: int) -> list[Any]:
        # The list becomes text for each query, as it does in an application.
        vector = str(vectors[number % count].tolist())
        return connection.execute(as_text, (vector,)).fetchall()

    def connect_and_query(number: int) -> list[Any]:
        with psycopg.connect(bench.dsn) as connection:
            return text_query(connection, number)

    def raw(text: str) -> Side:
        return Side(lambda n: reader.execute(text, (vectors[n % count],), prepare=True).fetchall())

    server = _ServerTime(kept, store.names.table, vectors)
    toasted_server = _ServerTime(kept, plain, vectors)
    sides = {
        "PostgresStore": Side(lambda n: store.search(queries[n % count])),
        "raw psycopg, prepared, binary": raw(inline),
        "server execution time": Side(server.run),
        "raw, default storage": raw(toasted),
        "server execution time, default storage": Side(toasted_server.run),
        "naive: text, kept connection": Side(lambda n: text_query(naive, n)),
        "naive: text, connection per query": Side(connect_and_query),
    }
    found = interleave(sides, rounds=bench.scale.rounds(15), calls=60)
    for name, timed in (
        ("server execution time", server),
        ("server execution time, default storage", toasted_server),
    ):
        found[name] = timed.timings(found[name])
    recalls = {"PostgresStore": (bench.recall(data, store.search), EXACT_RECALL_MIN)}
    bench.results.read(PART, data.name, found, recalls)
    ours = found["PostgresStore"]
    for other, most in (("server execution time", 1.35), ("raw psycopg, prepared, binary", 1.15)):
        bench.results.ratio(
            PART, f"PostgresStore / {other}, p50", ratio(ours, found[other]), at_most=most
        )
    _bounds(bench, found)
    for other, least in (
        ("raw, default storage", 4.0),
        ("naive: text, kept connection", 8.0),
        ("naive: text, connection per query", 35.0),
    ):
        bench.results.ratio(
            PART, f"{other} / PostgresStore, p50", ratio(found[other], ours), at_least=least
        )
    kept.close()
    naive.close()
    store.close()


def _bounds(bench: Bench, found: Mapping[str, Timings]) -> None:
    """How far a client could come that takes no time of its own, or no more than raw psycopg does."""
    raw = "raw psycopg, prepared, binary"
    for over, floor in (
        (raw, "server execution time"),
        ("server execution time, default storage", "server execution time"),
        ("naive: text, kept connection", raw),
        ("naive: text, connection per query", raw),
    ):
        bench.results.ratio(PART, f"{over} / {floor}, p50", ratio(found[over], found[floor]))


class _ServerTime:
    """Runs the store's statement under EXPLAIN ANALYZE and keeps what the server measured."""

    def __init__(
        self, connection: psycopg.Connection[Any], table: sql.Identifier, vectors: Any
    ) -> None:
        serialize = ", SERIALIZE BINARY" if connection.info.server_version >= 170_000 else ""
        options = f"EXPLAIN (ANALYZE, TIMING OFF{serialize}, FORMAT JSON) "
        self._text = options + sql.SQL(SELECT).format(sql.SQL("%s"), table).as_string()
        self._cursor = connection.cursor(binary=True)
        self._vectors = vectors
        self._seconds: list[float] = []

    def run(self, number: int) -> None:
        vector = self._vectors[number % len(self._vectors)]
        row = self._cursor.execute(self._text, (vector,), prepare=True).fetchone()
        assert row is not None
        self._seconds.append(row[0][0]["Execution Time"] / 1e3)

    def timings(self, measured: Timings) -> Timings:
        """The server's times in the blocks that the client's were taken in; the warm-up left out."""
        sizes = [len(block) for block in measured.blocks]
        seconds = np.array(self._seconds[len(self._seconds) - sum(sizes) :])
        blocks = np.split(seconds, np.cumsum(sizes)[:-1])
        return Timings(blocks, [float(block.mean()) for block in blocks])
