"""What every part of a run is given: the scale, the data, a server, a directory, and the results."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.datasets import Dataset, dataset, seeds
from benchmarks.environment import environment
from benchmarks.results import Results
from vectorstore.postgres.embedded import EmbeddedServer
from vectorstore.types import Answer, Query

__all__ = ["SCALES", "Bench", "Scale", "opened_bench"]

# What a server that is meant to hold vectors would be given; fsync stays on.
SERVER_SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "4GB", "checkpoint_timeout": "15min"}
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured. ``effort`` multiplies rounds; sizes are (rows, dimension)."""

    name: str
    command: str
    effort: float
    sizes: tuple[tuple[int, int], ...]
    wide: bool = False

    def rounds(self, core: int) -> int:
        """``core`` times the scale's effort, at least three."""
        return max(3, round(core * self.effort))


SCALES = {
    "quick": Scale("quick", "python -m benchmarks.run --quick", 0.3, ((382, 1536), (2_000, 1536))),
    "core": Scale("core", "make bench", 0.7, ((382, 1536), (10_000, 1536), (100_000, 384))),
    "full": Scale(
        "full",
        "make bench-full",
        2.0,
        ((382, 1536), (10_000, 1536), (100_000, 1536), (1_000_000, 384)),
        wide=True,
    ),
}


class Bench:
    """One run."""

    def __init__(self, scale: Scale, directory: Path, dsn: str, console: Console) -> None:
        self.scale = scale
        self.directory = directory
        self.dsn = dsn
        self.console = console
        self.data = lru_cache(maxsize=2)(dataset)

    @cached_property
    def results(self) -> Results:
        """What was found so far."""
        return Results(environment(self.dsn, seeds().origin, self.scale.command))

    def say(self, text: str) -> None:
        """Tell the person who waits what is going on."""
        self.console.print(f"[dim]{text}[/dim]")

    def recall(
        self, data: Dataset, search: Callable[[Query], Answer], *, k: int = 10, queries: int = 128
    ) -> float:
        """Mean recall@k against the exact answer; a row that is as near as the k-th best counts.

        Nearness is worked out here from the data, not taken from the store's word for it.
        """
        exact = self._exact(data, k)
        total = 0.0
        for number in range(queries):
            query = data.query(number, k)
            rows = [int(hit.id.rsplit("-", 1)[1]) for hit in search(query).hits]
            scores = data.vectors[rows].astype(np.float64) @ query.vector.astype(np.float64)
            total += float((scores >= exact[number] - TOLERANCE).sum()) / k
        return total / queries

    @lru_cache(maxsize=8)  # noqa: B019 - a run has one bench, and ends with it
    def _exact(self, data: Dataset, k: int) -> list[float]:
        """The k-th best score of each query."""
        floors = []
        for number, ids in enumerate(data.nearest(k)):
            row = int(ids[-1].rsplit("-", 1)[1])
            vector = data.vectors[row].astype(np.float64)
            floors.append(float(vector @ data.queries[number].astype(np.float64)))
        return floors


@contextlib.contextmanager
def opened_bench(scale: Scale, console: Console, dsn: str | None = None) -> Iterator[Bench]:
    """A run with a server of its own (unless ``dsn`` names one) and a directory that goes away."""
    # Not below a private folder: the server may run under another account.
    directory = Path(tempfile.mkdtemp(prefix="shadow-bench-"))
    server = EmbeddedServer(directory / "server", settings=SERVER_SETTINGS)
    try:
        yield Bench(scale, directory, dsn or server.start(), console)
    finally:
        if dsn is None:
            server.destroy()
        shutil.rmtree(directory, ignore_errors=True)
