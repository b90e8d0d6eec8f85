"""Where an index begins to pay: exact search in PostgreSQL against HNSW, by rows.

The default of ``exact_rows_max`` is chosen from this table: below it an exact search costs little more
than the index would, and answers perfectly.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.bench import Bench
from benchmarks.interleave import Side, interleave, ratio
from benchmarks.stores import filled_table
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Query

__all__ = ["crossing"]

PART = "crossing"
ROWS = {
    "quick": (382, 1_000),
    "core": (382, 1_000, 2_000, 4_000),
    "full": (382, 1_000, 2_000, 4_000, 8_000),
}
HNSW_RECALL_MIN = 0.95


def crossing(bench: Bench) -> None:
    """1,536 dimensions, k = 10, the product's default settings but for the row count."""
    for rows in ROWS[bench.scale.name]:
        data = bench.data(rows, 1536)
        queries = [data.query(number) for number in range(len(data.queries))]
        exact = filled_table(bench.dsn, data, exact_rows_max=rows)
        indexed = filled_table(bench.dsn, data, exact_rows_max=0)
        stores = {"PostgreSQL, exact": exact, "PostgreSQL, HNSW": indexed}
        sides = {name: _searching(store, queries) for name, store in stores.items()}
        found = interleave(sides, rounds=bench.scale.rounds(9), calls=40)
        recalls = {
            name: (
                bench.recall(data, store.search),
                HNSW_RECALL_MIN if store is indexed else 0.9999,
            )
            for name, store in stores.items()
        }
        bench.results.read(PART, data.name, found, recalls)
        bench.results.ratio(
            PART,
            f"exact / HNSW, {data.name}, p50",
            ratio(found["PostgreSQL, exact"], found["PostgreSQL, HNSW"]),
        )
        exact.close()
        indexed.close()


def _searching(store: PostgresStore, queries: Sequence[Query]) -> Side:
    count = len(queries)
    return Side(lambda n: store.search(queries[n % count]))
