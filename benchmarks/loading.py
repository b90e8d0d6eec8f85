"""Backfill against the server's own COPY of a file that lies ready.

Every side fills an empty table of the product's schema (primary key, GIN index of the metadata,
generated column), and ends when its rows are on the disk. *Server COPY* is ``COPY .. FROM file (FORMAT
BINARY)`` in one backend. *Product* copies a snapshot by the product's own worker processes, timed from
the moment when all of them are ready (they start in a few tenths of a second, once a backfill). *Naive* is
INSERT of 100 rows at a time with every value as text.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from benchmarks.bench import Bench
from benchmarks.beside_load import beside_a_load
from benchmarks.busy import BusyCores
from benchmarks.datasets import Dataset
from benchmarks.interleave import Timings, ratio
from benchmarks.results import Figure
from benchmarks.stores import open_table, taken_in
from shadow.writes.load_workers import carry_in_processes
from shadow.writes.pace import Pace
from shadow.writes.parts import BLOCK_ROWS, parts_of
from vectorstore.faiss.snapshot import write_snapshot
from vectorstore.postgres.copying import COPY_COLUMNS, copy_stream
from vectorstore.postgres.loading import begin_load
from vectorstore.postgres.store import PostgresStore

__all__ = ["loading"]

PART = "backfill"
ROWS = {"quick": 4_000, "core": 16_000, "full": 50_000}
NAIVE_SHARE = 20
NAIVE_ROWS = 100


def loading(bench: Bench) -> None:
    """Load rates, then what the primary feels of a load."""
    data = bench.data(ROWS[bench.scale.name], 1536)
    file = _prebuilt(bench.directory, data)
    snapshot = write_snapshot(
        taken_in(bench.directory, data), bench.directory / "snapshots", incarnation="benchmark"
    )
    ways: dict[str, Callable[[], float]] = {
        "server COPY of a file": lambda: _server_copy(bench.dsn, data, file),
        "product, one worker": lambda: _product(bench, data, snapshot, 1),
        "product, two workers": lambda: _product(bench, data, snapshot, 2),
        "naive: text INSERT": lambda: _naive(bench.dsn, data),
    }
    found = {way: Timings() for way in ways}
    busy: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(bench.scale.rounds(7)):
        for way in ways if turn % 2 == 0 else reversed(ways):
            clock = BusyCores()
            seconds = ways[way]()
            busy[way].append(clock.mean())
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
    bench.results.ratio(
        PART, "server COPY / text INSERT, rows/s", ratio(found["naive: text INSERT"], server)
    )
    for way in list(ways)[:3]:
        bench.results.figures.append(
            Figure(PART, f"{way}: cores busy, of {os.cpu_count()}", float(np.median(busy[way])), "")
        )
    beside_a_load(bench, PART, data, snapshot, one.per_s)


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


def _product(bench: Bench, data: Dataset, snapshot: Path, workers: int) -> float:
    """Seconds per row, from the moment that all processes are ready until the rows are on the disk."""
    store = open_table(bench.dsn, data.dimension)
    load = begin_load(store, incarnation="benchmark", snapshot_id="benchmark", seq=0, parts=workers)
    ready, started, rows = 0, 0.0, 0

    def on_rows(more: int) -> None:
        nonlocal ready, started, rows
        ready += not more
        if ready < workers:
            return
        if not more:
            started = time.perf_counter()
        rows += more

    with Path(os.devnull).open() as lock:
        carry_in_processes(
            parts_of(data.rows, load.positions),
            snapshot=snapshot,
            settings=store.settings,
            workers=workers,
            pace=Pace(),
            on_rows=on_rows,
            lock=lock.fileno(),
        )
    # As the end of a load does: what was committed without waiting for the disk is there after this.
    store.remember_mark(0, 1)
    seconds = time.perf_counter() - started
    assert store.count() == data.rows
    _drop(store)
    # The blocks that the earlier ones were at when the last one was ready were begun before.
    return seconds / (rows - (workers - 1) * BLOCK_ROWS)


def _naive(dsn: str, data: Dataset) -> float:
    """Seconds per row of some of the rows."""
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


def _drop(store: PostgresStore) -> None:
    store.close()
    names = store.names
    with psycopg.connect(store.settings.dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("DROP TABLE {}, {}, {}, {}").format(
                names.table, names.cursor, names.load, names.schema_version
            )
        )
