"""Every store of ours, and the router in every phase, for the frameworks' own conformance suites.

A store or a phase is one line in ``OPENERS``.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from shadow.router import Router
from tests.frameworks.phases import emptied, router_in
from vectorstore import Metric, VectorStore
from vectorstore.faiss.store import FaissStore
from vectorstore.memory import MemoryStore

# Neither framework may call home from a test; both read this when they are imported.
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
os.environ["LANGSMITH_TRACING"] = "false"

Request = pytest.FixtureRequest
Opener = Callable[..., VectorStore]


def router(phase: str) -> Opener:
    """Opens the module's router in this phase, emptied."""
    return lambda request, **options: request.getfixturevalue("routers")(phase, **options)


OPENERS: dict[str, Opener] = {
    "memory": lambda request, **options: MemoryStore(**options),
    "faiss": lambda request, **options: FaissStore.empty(**options),
    "postgresql": lambda request, **options: request.getfixturevalue("postgres_store")(**options),
    "router in faiss": router("faiss"),
    "router in shadow": router("shadow"),
    "router in ramp": router("ramp"),
    "router in postgresql": router("postgresql"),
}


@pytest.fixture(params=OPENERS)
def open_store(request: Request) -> Opener:
    """Opens an empty store of the kind under test: ``open_store(dimension=6)``."""

    def opener(*, dimension: int, metric: Metric = Metric.COSINE) -> VectorStore:
        return OPENERS[request.param](request, dimension=dimension, metric=metric)

    return opener


@pytest.fixture(scope="module")
def routers(
    postgresql_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., VectorStore]]:
    """One router a phase and dimension: it takes a second to reach its phase, and is emptied between.

    They end with the module: their threads would be struck by what later tests do to this process, such
    as the state machine's crashes.
    """
    opened: dict[tuple[str, int], Router] = {}
    with ExitStack() as stack:

        def open_router_in(phase: str, *, dimension: int, metric: Metric) -> VectorStore:
            key = (phase, dimension)
            if key not in opened:
                directory = tmp_path_factory.mktemp("router")
                opened[key] = stack.enter_context(
                    router_in(
                        phase,
                        directory=directory,
                        dsn=postgresql_dsn,
                        table=f"frameworks_{directory.name}",
                        dimension=dimension,
                        metric=metric,
                    )
                )
            assert opened[key].route.phase == phase, "an earlier test moved the router"
            return emptied(opened[key])

        yield open_router_in


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(name: str, obj: object) -> None:
    """Let the suites' coroutines run: they carry no marker, because they expect the auto mode."""
    if name.startswith("test_") and inspect.iscoroutinefunction(obj):
        pytest.mark.asyncio(obj)
