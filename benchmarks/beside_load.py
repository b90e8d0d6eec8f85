"""What the primary feels of a load: its reads in a closed loop with and without one beside it.

The primary is a router that answers from FAISS; beside it, the product's own processes copy under
``--p99-ms-max``, over and over, in a process group that is stopped while the primary is measured alone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.datasets import Dataset
from benchmarks.interleave import Ratio, Side, interleave, ratio, unrest
from benchmarks.results import Figure
from benchmarks.stores import open_table, router
from shadow.read_latency import asked_for, recent_reads
from shadow.writes.load_workers import carry_in_processes
from shadow.writes.pace import Pace
from shadow.writes.parts import parts_of
from vectorstore.postgres.loading import begin_load
from vectorstore.types import Query

__all__ = ["beside_a_load"]

# The primary's p99 may be this much above what it is alone before the loader backs off.
P99_OVER_ALONE = 1.05
ALONE_S = 2.0


def beside_a_load(
    bench: Bench, part: str, data: Dataset, snapshot: Path, full_per_s: float
) -> None:
    """A closed loop of reads at 382 rows; ``data``, the rows of ``snapshot``, is loaded beside it.

    ``full_per_s``: how many rows a second the loader copies when it has nobody to give way to.
    """
    small = bench.data(382, 1536)
    queries = [Query(vector) for vector in small.queries]
    state = bench.directory / "primary"
    with router(
        bench.directory, small, bench.dsn, backfilled=False, state_directory=state
    ) as primary:

        def search(n: int) -> object:
            return primary.search(queries[n % len(queries)])

        alone = interleave({"alone": Side(search)}, rounds=1, block_s=ALONE_S)["alone"]
        with asked_for(state):
            p99_ms_max = P99_OVER_ALONE * alone.us(0.99) / 1e3
            loader = _Loader(bench.dsn, data, snapshot, state, p99_ms_max)
            sides = {
                "primary alone": Side(search),
                "primary during backfill": Side(search, before=loader.go_on, after=loader.pause),
            }
            found = interleave(sides, rounds=bench.scale.rounds(15), block_s=1.0)
            copied_per_s = loader.end()
    bench.results.read(part, small.name, found)
    alone, during = found["primary alone"], found["primary during backfill"]
    bench.results.ratio(
        part, "primary during backfill / alone, p99", ratio(during, alone, share=0.99), at_most=1.1
    )
    inverse: Ratio = ratio(alone, during, share=None)
    bench.results.ratio(part, "primary during backfill / alone, throughput", inverse, at_least=0.97)
    for words, share in (("p99", 0.99), ("throughput", None)):
        bench.results.ratio(
            part, f"primary alone / alone a round before, {words}", unrest(alone, share=share)
        )
    bench.results.figures.append(
        Figure(part, "rows/s copied meanwhile / with nobody to give way to",
               copied_per_s / full_per_s)
    )  # fmt: skip


class _Loader:
    """The product's processes, copying the same rows over and over, stopped until they may go on."""

    def __init__(
        self, dsn: str, data: Dataset, snapshot: Path, state: Path, p99_ms_max: float
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._ready = context.Event()
        self._rows = context.Value("q", 0)
        self._running_s = 0.0
        self._went_on_at = 0.0
        self._process: BaseProcess = context.Process(
            target=_copy_again_and_again,
            args=(dsn, data.dimension, data.rows, snapshot, state, p99_ms_max,
                  self._ready, self._rows),
        )  # fmt: skip
        self._process.start()
        if not self._ready.wait(120.0):
            raise TimeoutError("the loader did not begin to copy")
        self.pause()
        self._rows.value = 0

    def go_on(self) -> None:
        """Let all of its processes run."""
        self._went_on_at = time.perf_counter()
        self._signal(signal.SIGCONT)

    def pause(self) -> None:
        """Stop all of its processes where they are."""
        self._signal(signal.SIGSTOP)
        if self._went_on_at:
            self._running_s += time.perf_counter() - self._went_on_at

    def end(self) -> float:
        """Kill them; rows a second of the time that they were let run."""
        rows = self._rows.value
        self._signal(signal.SIGKILL)
        self._process.join()
        return float(rows) / self._running_s

    def _signal(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        os.killpg(self._process.pid, number)


def _copy_again_and_again(
    dsn: str,
    dimension: int,
    rows: int,
    snapshot: Path,
    state: Path,
    p99_ms_max: float,
    ready: Any,
    copied: Any,
) -> None:
    # A group of its own, which its workers belong to.
    os.setpgrp()
    store = open_table(dsn, dimension)
    pace = Pace(p99_ms_max=p99_ms_max, reads=lambda: recent_reads(state))

    def on_rows(more: int) -> None:
        copied.value += more
        if more:
            ready.set()

    with Path(os.devnull).open() as lock:
        while True:
            load = begin_load(store, incarnation="benchmark", snapshot_id="benchmark", seq=0)
            carry_in_processes(
                parts_of(rows, load.positions),
                snapshot=snapshot,
                settings=store.settings,
                workers=1,
                pace=pace,
                on_rows=on_rows,
                lock=lock.fileno(),
            )
