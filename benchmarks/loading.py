"""Backfill against the server's own COPY of a file that lies ready, and what the primary feels of it.

Every side fills an empty table of the product's schema (primary key, GIN and hash index, generated
column). *Server COPY* is ``COPY .. FROM file (FORMAT BINARY)`` in one backend: nothing can be faster.
*Product* takes records out of a FAISS store and sends binary blocks from a process of its own, one or
two of them. *Naive* is INSERT of 100 rows at a time with every value as text.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from benchmarks.bench import Bench
from benchmarks.datasets import Dataset
from benchmarks.interleave import Ratio, Side, Timings, interleave, ratio
from benchmarks.stores import LOAD_ROWS, faiss_store, open_table
from vectorstore.postgres.copying import COPY_COLUMNS, copy_stream
from vectorstore.postgres.loading import begin_load, load_block
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Query, Record

__all__ = ["loading"]

PART = "backfill"
ROWS = {"quick": 4_000, "core": 16_000, "full": 50_000}
NAIVE_SHARE = 10
NAIVE_ROWS = 100


def loading(bench: Bench) -> None:
    """Load rates, then the primary during a load."""
    data = bench.data(ROWS[bench.scale.name], 1536)
    file = _prebuilt(bench.directory, data)
    vectors = bench.directory / "vectors.npy"
    np.save(vectors, data.vectors)
    ways: dict[str, Callable[[], float]] = {
        "server COPY of a file": lambda: _server_copy(bench.dsn, data, file),
        "product, one worker": lambda: _product(bench.dsn, data, vectors, 1),
        "product, two workers": lambda: _product(bench.dsn, data, vectors, 2),
        "naive: text INSERT": lambda: _naive(bench.dsn, data),
    }
    found = {way: Timings() for way in ways}
    for turn in range(bench.scale.rounds(5)):
        for way in ways if turn % 2 == 0 else reversed(ways):
            seconds = ways[way]()
            found[way].blocks.append(np.array([seconds]))
            found[way].walls_s.append(seconds)
    bench.results.read(PART, data.name, found)
    server, one = found["server COPY of a file"], found["product, one worker"]
    for name, value, least in (
        ("one worker / server COPY, rows/s", ratio(server, one), 0.85),
        ("two workers / server COPY, rows/s", ratio(server, found["product, two workers"]), 1.2),
        ("one worker / text INSERT, rows/s", ratio(found["naive: text INSERT"], one), 50.0),
    ):
        bench.results.ratio(PART, name, value, at_least=least)
    _primary(bench, vectors)


def _prebuilt(directory: Path, data: Dataset) -> Path:
    # The server's account reads it.
    directory.chmod(0o755)
    path = directory / "rows.bin"
    with path.open("wb") as file:
        for chunk in copy_stream(list(data.records()), data.dimension):
            file.write(chunk)
    path.chmod(0o644)
    return path


def _server_copy(dsn: str, data: Dataset, file: Path) -> float:
    """Seconds per row."""
    store = open_table(dsn, data.dimension)
    with psycopg.connect(dsn, autocommit=True) as connection:
        started = time.perf_counter()
        connection.execute(
            sql.SQL("COPY {} ({}) FROM {} (FORMAT BINARY)").format(
                store.names.table, sql.SQL(COPY_COLUMNS), str(file)
            )
        )
        seconds = time.perf_counter() - started
    _drop(store)
    return seconds / data.rows


def _product(dsn: str, data: Dataset, vectors: Path, workers: int) -> float:
    """Seconds per row, from the start of copying to the last commit; processes start before."""
    store = open_table(dsn, data.dimension)
    begin_load(store, incarnation="benchmark", snapshot_id="benchmark", seq=0, parts=workers)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(workers + 1)
    each = data.rows // workers
    processes = [
        context.Process(
            target=_worker,
            args=(dsn, store.settings.table, vectors, data.texts, part, part * each,
                  data.rows if part == workers - 1 else (part + 1) * each, barrier),
        )
        for part in range(workers)
    ]  # fmt: skip
    for process in processes:
        process.start()
    barrier.wait(120.0)
    started = time.perf_counter()
    barrier.wait(600.0)
    seconds = time.perf_counter() - started
    for process in processes:
        process.join()
    assert store.count() == data.rows
    _drop(store)
    return seconds / data.rows


def _worker(
    dsn: str,
    table: str,
    vectors: Path,
    texts: tuple[str, ...],
    part: int,
    start: int,
    stop: int,
    barrier: Any,
) -> None:
    rows = np.load(vectors, mmap_mode="r")
    data = Dataset(np.array(rows[start:stop]), rows[:1], texts, "")
    source = faiss_store(data)
    store = open_table(dsn, data.dimension, table=table)
    store.count()
    barrier.wait(120.0)
    for at in range(0, stop - start, LOAD_ROWS):
        block = source.records(at, min(at + LOAD_ROWS, stop - start))
        named = [_numbered(record, start) for record in block] if start else block
        load_block(store, named, position_start=at, position_end=at + len(block), part=part)
    barrier.wait(600.0)
    store.close()


def _numbered(record: Record, start: int) -> Record:
    """The record under the id that it has in the whole: a part numbers its rows from 0."""
    name = f"guide-{int(record.id.rsplit('-', 1)[1]) + start:08d}"
    return Record(name, record.embedding, record.text, record.metadata)


def _naive(dsn: str, data: Dataset) -> float:
    """Seconds per row of a tenth of the rows."""
    store = open_table(dsn, data.dimension)
    rows = data.rows // NAIVE_SHARE
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ").format(
        store.names.table, sql.SQL(COPY_COLUMNS)
    )
    with psycopg.connect(dsn, cursor_factory=psycopg.ClientCursor) as connection:
        started = time.perf_counter()
        for start in range(0, rows, NAIVE_ROWS):
            values: list[Any] = []
            for record in data.records(start, min(start + NAIVE_ROWS, rows)):
                vector = str(record.embedding.tolist())
                values += [record.id, 0, vector, record.text, json.dumps(dict(record.metadata))]
            one = sql.SQL("(%s, %s, %s, %s, %s)")
            many = sql.SQL(", ").join([one] * (len(values) // 5))
            connection.execute(statement + many, values)
            connection.commit()
        seconds = time.perf_counter() - started
    _drop(store)
    return seconds / rows


def _primary(bench: Bench, vectors: Path) -> None:
    """A closed loop of reads at 382 rows, with and without a load in another process."""
    data = bench.data(382, 1536)
    store = faiss_store(data)
    queries = [Query(vector) for vector in data.queries]
    context = multiprocessing.get_context("spawn")
    running, ready = context.Event(), context.Event()
    stopping = context.Event()
    loader = context.Process(
        target=_loader, args=(bench.dsn, vectors, data.texts, running, ready, stopping)
    )
    loader.start()
    ready.wait(120.0)
    sides = {
        "primary alone": Side(lambda n: store.search(queries[n % len(queries)])),
        "primary during backfill": Side(
            lambda n: store.search(queries[n % len(queries)]),
            before=running.set,
            after=running.clear,
        ),
    }
    found = interleave(sides, rounds=bench.scale.rounds(9), block_s=1.0)
    stopping.set()
    running.set()
    loader.join()
    bench.results.read(PART, data.name, found)
    alone, during = found["primary alone"], found["primary during backfill"]
    bench.results.ratio(
        PART, "primary during backfill / alone, p99", ratio(during, alone, share=0.99), at_most=1.1
    )
    inverse: Ratio = ratio(alone, during, share=None)
    bench.results.ratio(PART, "primary during backfill / alone, throughput", inverse, at_least=0.97)


def _loader(
    dsn: str, vectors: Path, texts: tuple[str, ...], running: Any, ready: Any, stopping: Any
) -> None:
    """Load the same rows over and over while ``running``."""
    # As the product's own process does: what answers goes first.
    os.nice(10)
    rows = np.load(vectors, mmap_mode="r")[:LOAD_ROWS]
    data = Dataset(np.array(rows), rows[:1], texts, "")
    source = faiss_store(data)
    store = open_table(dsn, data.dimension)
    ready.set()
    while not stopping.is_set():
        begin_load(store, incarnation="benchmark", snapshot_id="benchmark", seq=0)
        for at in range(0, data.rows, 200):
            running.wait()
            block = source.records(at, at + 200)
            load_block(store, block, position_start=at, position_end=at + len(block))
    _drop(store)


def _drop(store: PostgresStore) -> None:
    store.close()
    names = store.names
    with psycopg.connect(store.settings.dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("DROP TABLE {}, {}, {}, {}").format(
                names.table, names.cursor, names.load, names.schema_version
            )
        )
