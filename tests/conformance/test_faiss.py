"""The FAISS store keeps the contract, with each kind of index."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.suite import DIMENSION, MakeStore, ReplicaConformance
from vectorstore.faiss.index import KINDS
from vectorstore.faiss.store import FaissStore
from vectorstore.types import Metric


class TestFaiss(ReplicaConformance):
    @pytest.fixture(params=KINDS)
    def make_store(self, request: pytest.FixtureRequest) -> MakeStore:
        kind: Any = request.param

        def make(*, dimension: int = DIMENSION, metric: Metric = Metric.COSINE) -> FaissStore:
            return FaissStore.empty(dimension=dimension, metric=metric, kind=kind)

        return make

    @pytest.fixture
    def make_replica(self, make_store: MakeStore) -> MakeStore:
        return make_store
