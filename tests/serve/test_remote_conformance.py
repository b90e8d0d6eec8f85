"""The client of the proxy keeps the stores' contract, through the proxy and a real router."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.conformance.suite import DIMENSION, MakeStore, StoreConformance
from tests.serve.running import Running, running, settings_for
from vectorstore.remote import RemoteStore
from vectorstore.types import Metric


@pytest.fixture(scope="module")
def proxies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Metric, Running]]:
    """A proxy for each metric, started once."""
    with ExitStack() as opened:
        yield {
            metric: opened.enter_context(
                running(
                    settings_for(
                        tmp_path_factory.mktemp(metric),
                        faiss={"dimension": DIMENSION, "metric": metric},
                    )
                )
            )
            for metric in Metric
        }


class TestRemote(StoreConformance):
    @pytest.fixture
    def make_store(self, proxies: dict[Metric, Running]) -> Iterator[MakeStore]:
        with ExitStack() as opened:

            def make(*, dimension: int = DIMENSION, metric: Metric = Metric.COSINE) -> RemoteStore:
                assert dimension == DIMENSION
                store = RemoteStore(proxies[metric].url, retry_ms=200)
                opened.callback(store.close)
                while records := store.scan():
                    store.delete([record.id for record in records])
                return store

            yield make
