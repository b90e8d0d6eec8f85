"""The stores and routers that are measured, opened on a dataset through the product's own ways in."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss

from benchmarks.datasets import Dataset
from shadow.config import Settings
from shadow.core.phases import Phase
from shadow.opening import open_migration
from shadow.router import Router
from shadow.service import open_router
from shadow.writes.backfill import backfill
from vectorstore.faiss.intake import take_in
from vectorstore.faiss.store import FaissStore
from vectorstore.postgres.loading import begin_load, finish_load, load_block
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Metric

__all__ = [
    "bare_index",
    "drain",
    "faiss_store",
    "filled_table",
    "open_table",
    "router",
    "set_mirror_rate",
    "taken_in",
    "wait_for",
    "write_index_files",
]

LOAD_ROWS = 2_000
HNSW_BREADTH = 200
PHASE_WAIT_S = 30.0


def bare_index(data: Dataset) -> Any:
    """FAISS alone, as the bot builds it."""
    index = faiss.IndexFlatIP(data.dimension)
    index.add(data.vectors)
    return index


def faiss_store(data: Dataset, *, kind: str = "flat") -> FaissStore:
    """The FAISS store over this data."""
    store = FaissStore.empty(dimension=data.dimension, metric=Metric.COSINE, kind=kind)
    for start in range(0, data.rows, LOAD_ROWS):
        store.upsert(list(data.records(start, min(start + LOAD_ROWS, data.rows))))
    if kind == "hnsw":
        store.set_breadth(HNSW_BREADTH)
    return store


def taken_in(directory: Path, data: Dataset) -> FaissStore:
    """The FAISS store over this data as the intake makes it: every record at seq 0."""
    source = write_index_files(data, directory / f"index-{uuid.uuid4().hex[:8]}")
    copied = directory / f"origin-{uuid.uuid4().hex[:8]}"
    return take_in(source, copy_to=copied, metric=Metric.COSINE).store


def open_table(dsn: str, dimension: int, **settings: Any) -> PostgresStore:
    """An empty table of its own."""
    return PostgresStore.open(
        PostgresSettings(
            **{
                "dsn": dsn,
                "dimension": dimension,
                "table": f"b_{uuid.uuid4().hex[:10]}",
                **settings,
            }
        )
    )


def filled_table(dsn: str, data: Dataset, **settings: Any) -> PostgresStore:
    """A table that holds the data and follows a journal, as after a backfill."""
    store = open_table(dsn, data.dimension, **settings)
    begin_load(store, incarnation="benchmark", snapshot_id="benchmark", seq=0)
    for start in range(0, data.rows, LOAD_ROWS):
        stop = min(start + LOAD_ROWS, data.rows)
        block = list(data.records(start, stop))
        load_block(store, block, position_start=start, position_end=stop)
    finish_load(store)
    return store


def write_index_files(data: Dataset, directory: Path) -> Path:
    """The data as a bare index with records.jsonl beside it: what the router takes in."""
    directory.mkdir(parents=True)
    faiss.write_index(bare_index(data), str(directory / "index.faiss"))
    with (directory / "records.jsonl").open("w", encoding="utf-8") as lines:
        for record in data.records():
            value = {"id": record.id, "text": record.text, "metadata": dict(record.metadata)}
            lines.write(json.dumps(value) + "\n")
    return directory


@contextlib.contextmanager
def router(
    directory: Path, data: Dataset, dsn: str, *, backfilled: bool, **sections: Any
) -> Iterator[Router]:
    """The router over this data: in the phase ``shadow`` if ``backfilled``, else FAISS alone."""
    source = write_index_files(data, directory / f"index-{uuid.uuid4().hex[:8]}")
    postgresql = {"dsn": dsn, "table": f"b_{uuid.uuid4().hex[:10]}"}
    postgresql.update(sections.pop("postgresql", {}))
    settings = Settings.model_validate(
        {
            "state_directory": directory / f"state-{uuid.uuid4().hex[:8]}",
            "faiss": {"path": source, "metric": "cosine"},
            "postgresql": postgresql,
            **sections,
        }
    )
    if backfilled:
        migration = open_migration(settings)
        backfill(
            directory=settings.state_directory.absolute(),
            journal=migration.journal,
            snapshots=migration.snapshots,
            store=migration.link.open(),
            current=lambda: migration.load_faiss().store,
        )
        migration.close()
    opened = open_router(settings)
    try:
        if backfilled:
            wait_for(lambda: opened.route.phase is Phase.SHADOW, "the phase shadow")
        yield opened
    finally:
        opened.close()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds, or raise TimeoutError."""
    deadline = time.monotonic() + PHASE_WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PHASE_WAIT_S:.0f} s for {what}")
        time.sleep(0.01)


def set_mirror_rate(opened: Router, rate: float) -> None:
    """Give this process's router another mirror rate, at once, without the route book."""
    route = opened.route
    opened.follow_route(replace(route, version=route.version + 1, mirror_rate=rate))


def drain(opened: Router) -> None:
    """Wait until the mirror has recorded everything that it was offered."""
    opened._mirror.drain(PHASE_WAIT_S)
