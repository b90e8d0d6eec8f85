"""Eras open by themselves when the live settings of a store change, and only then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from psycopg import sql

from shadow.config import GateSettings
from shadow.eras import open_era, settings_of_answers
from shadow.evidence import EvidenceBook
from shadow.evidence_view import Era
from vectorstore import Metric
from vectorstore.faiss.store import FaissStore
from vectorstore.postgres.index import drop_index, ensure_index
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Query, Record

DIMENSION = 8

Look = Callable[..., Era]


@pytest.fixture
def book(tmp_path: Path) -> Iterator[EvidenceBook]:
    opened = EvidenceBook(tmp_path)
    yield opened
    opened.close()


def _records(rows: int) -> list[Record]:
    draw = np.random.default_rng(1)
    return [
        Record(f"r{row}", draw.normal(size=DIMENSION).astype(np.float32), "", {})
        for row in range(rows)
    ]


def _look(book: EvidenceBook, store: PostgresStore, faiss: FaissStore, **more: Any) -> Era:
    model = more.pop("embedding_model", None)
    gate = GateSettings.model_validate(more)
    settings = settings_of_answers(faiss.describe(), store.describe(), gate, embedding_model=model)
    return open_era(book, settings)


def test_each_change_of_what_answers_opens_an_era_that_names_it(
    book: EvidenceBook, postgres_store: Callable[..., PostgresStore]
) -> None:
    """Index, ef_search, iterative scan, table, thresholds, strata, model, and FAISS's breadth."""
    faiss = FaissStore.empty(dimension=DIMENSION, metric=Metric.COSINE, kind="hnsw")
    store = postgres_store(exact_rows_max=0)
    store.upsert(_records(50))
    settings = store.settings

    def look(**more: Any) -> Era:
        return _look(book, store, faiss, **more)

    assert look().why == "the first"
    ensure_index(store, concurrently=False)
    assert "postgresql.index_kind: none -> hnsw" in look().why
    store = postgres_store(**_options(replace(settings, ef_search=40)))
    assert look().why == "postgresql.ef_search: 100 -> 40"
    store = postgres_store(**_options(replace(settings, ef_search=40, iterative_scan="off")))
    assert look().why == "postgresql.iterative_scan: strict_order -> off"
    assert look(recall_min=0.9).why == "gate.recall_min: 0.95 -> 0.9"
    assert "gate.strata:  -> filtered" in look(recall_min=0.9, strata=["filtered"]).why
    assert "embedding_model: None -> large" in look(embedding_model="large").why
    faiss.set_breadth(128)
    assert "faiss.ef_search: 64 -> 128" in look().why
    drop_index(store, concurrently=False)
    assert "postgresql.index_kind: hnsw -> none" in look().why
    store = postgres_store(exact_rows_max=0)
    assert "postgresql.table" in look().why
    assert look().number == look().number == book.eras_count()


def test_traffic_and_writes_open_no_era(
    book: EvidenceBook, postgres_store: Callable[..., PostgresStore]
) -> None:
    """A query with a k above ef_search raises it for itself: the setting is the one between queries."""
    faiss = FaissStore.empty(dimension=DIMENSION, metric=Metric.COSINE, kind="hnsw")
    store = postgres_store(exact_rows_max=0, pool_size_max=1, ef_search=20)
    store.upsert(_records(60))
    ensure_index(store, concurrently=False)
    first = _look(book, store, faiss)
    store.search(Query(np.ones(DIMENSION), k=50))
    assert _look(book, store, faiss).number == first.number
    store.upsert(_records(5))
    faiss.upsert(_records(5))
    faiss.delete(["r1"])
    assert _look(book, store, faiss).number == first.number


def test_a_setting_lost_on_the_server_opens_an_era(
    book: EvidenceBook, postgres_store: Callable[..., PostgresStore]
) -> None:
    """A pooler that resets sessions takes ef_search away: seen, because the server is asked."""
    faiss = FaissStore.empty(dimension=DIMENSION, metric=Metric.COSINE)
    store = postgres_store(pool_size_max=1)
    _look(book, store, faiss)
    store.read(lambda connection: connection.execute(sql.SQL("RESET ALL")))
    assert "postgresql.ef_search: 100 -> " in _look(book, store, faiss).why


def _options(settings: Any) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}
