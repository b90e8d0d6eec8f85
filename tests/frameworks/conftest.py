"""Every store of ours, opened for the frameworks' own conformance suites.

A store or a phase of the router is one line in ``OPENERS``.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator

import pytest

from vectorstore import Metric, VectorStore
from vectorstore.faiss.store import FaissStore
from vectorstore.memory import MemoryStore

# Neither framework may call home from a test; both read this when they are imported.
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
os.environ["LANGSMITH_TRACING"] = "false"

Request = pytest.FixtureRequest

OPENERS: dict[str, Callable[..., VectorStore]] = {
    "memory": lambda request, **options: MemoryStore(**options),
    "faiss": lambda request, **options: FaissStore.empty(**options),
    "postgresql": lambda request, **options: request.getfixturevalue("postgres_store")(**options),
}


@pytest.fixture(params=OPENERS)
def open_store(request: Request) -> Iterator[Callable[..., VectorStore]]:
    """Opens empty stores of the kind under test: ``open_store(dimension=6)``, cosine unless said."""
    opened: list[VectorStore] = []

    def opener(*, dimension: int, metric: Metric = Metric.COSINE) -> VectorStore:
        opened.append(OPENERS[request.param](request, dimension=dimension, metric=metric))
        return opened[-1]

    yield opener
    for store in opened:
        store.close()


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(name: str, obj: object) -> None:
    """Let the suites' coroutines run: they carry no marker, because they expect the auto mode."""
    if name.startswith("test_") and inspect.iscoroutinefunction(obj):
        pytest.mark.asyncio(obj)
