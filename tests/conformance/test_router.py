"""The router keeps the stores' contract in every phase."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from shadow.router import Router
from tests.conformance.suite import DIMENSION, MakeStore, StoreConformance
from tests.frameworks.phases import emptied, router_in
from tests.plugins.postgresql import drop_tables
from vectorstore import Metric, StoreUnavailable


class Routers:
    """Routers that reached a phase, kept for the next test unless one was closed."""

    def __init__(self, phase: str, folder: Path, dsn: str) -> None:
        self.phase, self.folder, self.dsn = phase, folder, dsn
        self.kept: dict[tuple[int, Metric], Router] = {}
        self.closing = ExitStack()

    def get(self, dimension: int, metric: Metric) -> Router:
        found = self.kept.get((dimension, metric))
        if found is not None:
            try:
                emptied(found)
            except StoreUnavailable:
                found = None
        if found is None:
            name = f"t_{uuid.uuid4().hex[:12]}"
            self.closing.callback(drop_tables, self.dsn, name)
            found = self.closing.enter_context(
                router_in(
                    self.phase,
                    directory=self.folder / name,
                    dsn=self.dsn,
                    table=name,
                    dimension=dimension,
                    metric=metric,
                )
            )
            self.kept[dimension, metric] = found
        return found


@pytest.fixture(scope="module", params=["faiss", "shadow", "ramp", "postgresql"])
def routers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgresql_dsn: str
) -> Iterator[Routers]:
    found = Routers(request.param, tmp_path_factory.mktemp("router"), postgresql_dsn)
    with found.closing:
        yield found


class TestRouter(StoreConformance):
    @pytest.fixture
    def make_store(self, routers: Routers) -> MakeStore:
        def make(*, dimension: int = DIMENSION, metric: Metric = Metric.COSINE) -> Router:
            return routers.get(dimension, metric)

        return make
