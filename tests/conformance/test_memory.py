"""The reference store keeps the contract."""

from __future__ import annotations

import pytest

from tests.conformance.suite import DIMENSION, MakeStore, ReplicaConformance
from vectorstore.memory import MemoryStore
from vectorstore.types import Metric


class TestMemory(ReplicaConformance):
    @pytest.fixture
    def make_store(self) -> MakeStore:
        def make(*, dimension: int = DIMENSION, metric: Metric = Metric.COSINE) -> MemoryStore:
            return MemoryStore(dimension=dimension, metric=metric)

        return make

    @pytest.fixture
    def make_replica(self, make_store: MakeStore) -> MakeStore:
        return make_store
