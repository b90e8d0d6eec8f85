"""PostgreSQL keeps the contract, searched exactly and through an HNSW index."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conformance.suite import DIMENSION, MakeStore, ReplicaConformance
from vectorstore.postgres.index import ensure_index
from vectorstore.postgres.loading import begin_load, finish_load
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Metric


class TestPostgresql(ReplicaConformance):
    @pytest.fixture
    def make_store(self, postgres_store: Callable[..., PostgresStore]) -> MakeStore:
        def make(*, dimension: int = DIMENSION, metric: Metric = Metric.COSINE) -> PostgresStore:
            return postgres_store(dimension=dimension, metric=metric)

        return make

    @pytest.fixture
    def make_replica(self, make_store: MakeStore) -> MakeStore:
        def make(*, dimension: int = DIMENSION, metric: Metric = Metric.COSINE) -> PostgresStore:
            store: PostgresStore = make_store(dimension=dimension, metric=metric)
            begin_load(store, incarnation="j1", snapshot_id="empty", seq=0)
            finish_load(store)
            return store

        return make


class TestPostgresqlIndexed(TestPostgresql):
    """The same with an HNSW index that the planner is made to use."""

    @pytest.fixture
    def make_store(
        self, postgres_store: Callable[..., PostgresStore], postgresql_dsn: str
    ) -> MakeStore:
        def make(*, dimension: int = DIMENSION, metric: Metric = Metric.COSINE) -> PostgresStore:
            store = postgres_store(
                dsn=f"{postgresql_dsn}?options=-c%20enable_seqscan%3Doff%20-c%20enable_sort%3Doff",
                dimension=dimension,
                metric=metric,
                exact_rows_max=0,
            )
            _index_while_empty(store)
            return store

        return make


def _index_while_empty(store: PostgresStore) -> None:
    """A row makes the table worth an index; it is gone again before the test begins."""
    store.transact(
        lambda connection: connection.execute(
            f"INSERT INTO {store.settings.table} (id, seq, embedding, text, metadata) "
            f"SELECT 'x', 0, array_fill(1, ARRAY[{store.dimension}])::vector, '', '{{}}'"
        )
    )
    assert ensure_index(store)
    store.transact(lambda connection: connection.execute(f"DELETE FROM {store.settings.table}"))
