"""Reads: FAISS, PostgreSQL and the router side by side, with the recall of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.bench import Bench
from benchmarks.datasets import QUERIES, Dataset
from benchmarks.interleave import Side, interleave, ratio
from benchmarks.stores import bare_index, drain, faiss_store, open_table, router, set_mirror_rate
from vectorstore.types import Answer, Query

__all__ = ["bare_search", "reads"]

PART = "reads"
EXACT_RECALL_MIN = 0.9999
INDEX_RECALL_MIN = 0.95
HNSW_ROWS_MAX = 200_000
EXACT_ROWS_MAX = 1_000
EXACT_QUERIES = 128


def bare_search(data: Dataset, index: Any) -> Callable[[int], object]:
    """A search as the bot did it: normalise, ask FAISS, put the chunks beside the scores."""
    chunks = [
        {"id": record.id, "text": record.text, "metadata": record.metadata}
        for record in data.records()
    ]
    queries = data.queries

    def search(number: int) -> list[dict[str, Any]]:
        vector = queries[number % len(queries)].reshape(1, -1)
        scores, positions = index.search(vector / np.linalg.norm(vector), 10)
        return [
            {"score": float(score), **chunks[at]}
            for score, at in zip(scores[0], positions[0], strict=True)
        ]

    return search


def reads(bench: Bench) -> None:
    """Every size of the scale."""
    for rows, dimension in bench.scale.sizes:
        _size(bench, bench.data(rows, dimension))


def _size(bench: Bench, data: Dataset) -> None:
    bench.say(f"reads: {data.name}: filling FAISS, PostgreSQL and the router")
    table = f"reads_{data.rows}_{data.dimension}"
    indexed = data.rows > EXACT_ROWS_MAX
    with router(
        bench.directory,
        data,
        bench.dsn,
        backfilled=True,
        postgresql={
            "table": table,
            # A graph that does not fit takes several times as long to build.
            "maintenance_work_mem": "3GB" if data.rows > HNSW_ROWS_MAX else "1GB",
            "exact_rows_max": EXACT_ROWS_MAX,
        },
    ) as routed:
        # The table that the router filled, read by a store of its own.
        postgresql = open_table(bench.dsn, data.dimension, table=table)
        stores: dict[str, Any] = {
            "FaissStore": faiss_store(data),
            "PostgresStore": postgresql,
            "Router, mirror off": routed,
            "Router, mirror 100 %": routed,
        }
        if indexed and data.rows <= HNSW_ROWS_MAX:
            stores["FaissStore, HNSW"] = faiss_store(data, kind="hnsw")
        bare = bare_search(data, bare_index(data))
        set_mirror_rate(routed, 0.0)
        recalls = {}
        for name, store in stores.items():
            inexact = "HNSW" in name or (name == "PostgresStore" and indexed)
            least = INDEX_RECALL_MIN if inexact else EXACT_RECALL_MIN
            # An exact answer is right or wrong, which few queries show. Where a graph loses its way it
            # loses a whole query, one in hundreds.
            queries = QUERIES if inexact else EXACT_QUERIES
            recalls[name] = (bench.recall(data, _searching(store), queries=queries), least)
        sides = {"FAISS as the bot calls it": Side(bare)}
        for name, store in stores.items():
            sides[name] = _side(store, data, mirrored=name.endswith("100 %"))
        found = interleave(sides, rounds=bench.scale.rounds(15), block_s=0.15)
        bench.results.read(PART, data.name, found, recalls)
        for name, over in (
            ("PostgresStore", "FaissStore"),
            ("Router, mirror off", "FaissStore"),
            ("Router, mirror 100 %", "Router, mirror off"),
        ):
            bench.results.ratio(
                PART, f"{name} / {over}, {data.name}, p50", ratio(found[name], found[over])
            )
        postgresql.close()


def _side(store: Any, data: Dataset, *, mirrored: bool) -> Side:
    queries = [Query(vector) for vector in data.queries]
    count, search = len(queries), store.search

    def call(number: int) -> Answer:
        answer: Answer = search(queries[number % count])
        return answer

    if not mirrored:
        return Side(call)

    def rest() -> None:
        set_mirror_rate(store, 0.0)
        drain(store)

    return Side(call, before=lambda: set_mirror_rate(store, 1.0), after=rest)


def _searching(store: Any) -> Callable[[Query], Answer]:
    search: Callable[[Query], Answer] = store.search
    return search
