"""The read paths under pytest-benchmark: ``pytest benchmarks --benchmark-only``.

For a quick look at one path and its statistics. Ratios are not taken here: those come from
``python -m benchmarks.run``, which alternates the sides.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench import SCALES, Bench, opened_bench
from benchmarks.logs import log_to
from benchmarks.reads import EXACT_RECALL_MIN, bare_search
from benchmarks.stores import bare_index, faiss_store, filled_table, router, set_mirror_rate

pytest.importorskip("pytest_benchmark")

ROWS, DIMENSION = 382, 1536


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A server and a directory for this module."""
    from rich.console import Console

    log_to(Path(tmp_path_factory.mktemp("events")) / "events.jsonl")
    with opened_bench(SCALES["quick"], Console(quiet=True)) as opened:
        yield opened


@pytest.fixture(scope="module")
def stores(bench: Bench) -> Iterator[dict[str, Any]]:
    """Both stores and the router over the same rows."""
    data = bench.data(ROWS, DIMENSION)
    postgresql = filled_table(bench.dsn, data)
    with router(bench.directory, data, bench.dsn, backfilled=True) as routed:
        set_mirror_rate(routed, 0.0)
        yield {"faiss": faiss_store(data), "postgresql": postgresql, "router": routed}
    postgresql.close()


def test_bare_faiss(bench: Bench, benchmark: Any) -> None:
    """FAISS as the bot calls it: normalise, search, look the chunks up."""
    data = bench.data(ROWS, DIMENSION)
    search = bare_search(data, bare_index(data))
    benchmark(search, 1)


@pytest.mark.parametrize("name", ["faiss", "postgresql", "router"])
def test_search(bench: Bench, stores: dict[str, Any], name: str, benchmark: Any) -> None:
    """One query through a store, which must also answer right."""
    data = bench.data(ROWS, DIMENSION)
    benchmark(stores[name].search, data.query(1))
    assert bench.recall(data, stores[name].search, queries=32) >= EXACT_RECALL_MIN


@pytest.mark.parametrize("name", ["faiss", "postgresql"])
def test_search_many(bench: Bench, stores: dict[str, Any], name: str, benchmark: Any) -> None:
    """Sixteen queries in one call."""
    data = bench.data(ROWS, DIMENSION)
    queries = [data.query(number) for number in range(16)]
    assert len(benchmark(stores[name].search_many, queries)) == 16
