"""How cost grows with rows, dimensions, k and mirror rate: the exponent of a fitted power law.

``cost = a x^b`` is fitted by least squares on logarithms; ``b`` is the exponent (1: proportional, 0:
flat). Mirror rate is fitted on what it adds, since a rate of 0 still costs a query. The fit is over the
range that is measured and says nothing beyond it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from benchmarks.bench import Bench
from benchmarks.interleave import Side, interleave
from benchmarks.results import Figure
from benchmarks.stores import drain, faiss_store, filled_table, router, set_mirror_rate
from shadow.router import Router
from vectorstore.types import Query

__all__ = ["growing"]

PART = "growth"
ROWS = {
    "quick": (500, 1_000, 2_000),
    "core": (1_000, 4_000, 16_000, 64_000),
    "full": (1_000, 10_000, 100_000, 1_000_000),
}
DIMENSIONS = (96, 384, 1536)
KS = (1, 10, 100)
RATES = (0.0, 0.1, 0.3, 1.0)
PACE_PER_S = 400
POSTGRESQL_ROWS_MAX = {"quick": 20_000, "core": 20_000, "full": 100_000}
OVERHEAD_US_MAX = 6.0
OVERHEAD_SHARE_MAX = 0.05
OVERHEAD_S = 3.0
OVERHEAD_CALLS_MIN = 50


def growing(bench: Bench) -> None:
    """Rows, dimensions, k, mirror rate, and the router's overhead from small to large."""
    rows = ROWS[bench.scale.name]
    middle = rows[1]
    _grow(bench, "rows", rows, lambda n: (n, 384, 10))
    _grow(bench, "dimensions", DIMENSIONS, lambda d: (middle, d, 10))
    _grow(bench, "k", KS, lambda k: (middle, 384, k))
    _mirror_rate(bench)
    _overhead(bench, (382, *rows[1:]))


def _grow(
    bench: Bench,
    over: str,
    values: Sequence[int],
    size: Callable[[int], tuple[int, int, int]],
) -> None:
    costs: dict[str, list[float]] = {"FAISS, flat": [], "PostgreSQL, exact": []}
    for value in values:
        rows, width, k = size(value)
        data = bench.data(rows, width)
        queries = [data.query(number, k) for number in range(256)]
        sides = {"FAISS, flat": _searching(faiss_store(data), queries)}
        table = None
        if rows <= POSTGRESQL_ROWS_MAX[bench.scale.name]:
            table = filled_table(bench.dsn, data, exact_rows_max=rows)
            sides["PostgreSQL, exact"] = _searching(table, queries)
        found = interleave(sides, rounds=bench.scale.rounds(5), block_s=0.2)
        for side, timings in found.items():
            costs[side].append(timings.us())
        if table is not None:
            table.close()
    for side, us in costs.items():
        _keep(bench, over, side, list(values)[: len(us)], us)


def _mirror_rate(bench: Bench) -> None:
    """Processor time of the whole process per query, at a steady pace, by the mirror rate."""
    data = bench.data(382, 1536)
    queries = [data.query(number) for number in range(256)]
    found: dict[float, list[float]] = {rate: [] for rate in RATES}
    # No budget: the rate that is asked for is the rate that is mirrored.
    with router(
        bench.directory, data, bench.dsn, backfilled=True, mirror={"cpu_share_max": 1.0}
    ) as routed:
        for turn in range(bench.scale.rounds(5)):
            for rate in RATES if turn % 2 == 0 else reversed(RATES):
                set_mirror_rate(routed, rate)
                started = time.process_time()
                for query in queries:
                    routed.search(query)
                    time.sleep(1 / PACE_PER_S)
                drain(routed)
                found[rate].append((time.process_time() - started) / len(queries))
        set_mirror_rate(routed, 0.0)
    base = float(np.median(found[0.0]))
    added = [max(0.01, 1e6 * (float(np.median(found[rate])) - base)) for rate in RATES[1:]]
    _keep(bench, "mirror rate", "processor time added", list(RATES[1:]), added)


def _overhead(bench: Bench, sizes: Sequence[int]) -> None:
    """What the router adds to a FAISS query, by rows; nothing in it depends on them.

    It is what a call takes less what the store takes in that same call: between two calls a scan of many
    rows differs by more than the router takes. A large scan leaves the caches cold, which the router's
    code then pays for.
    """
    added = []
    for rows in sizes:
        data = bench.data(rows, 384)
        with router(bench.directory, data, bench.dsn, backfilled=False) as routed:
            more, whole = _added(routed, [data.query(number) for number in range(256)])
        low, middle, high = np.quantile(more * 1e6, [0.25, 0.5, 0.75])
        added.append(float(middle))
        most = max(OVERHEAD_US_MAX, OVERHEAD_SHARE_MAX * whole * 1e6)
        bench.results.figures.append(
            Figure(PART, f"router's own time at {rows:,} rows, p50", float(middle), "us",
                   float(low), float(high), len(more), f"<= {most:.0f} us", bool(middle <= most))
        )  # fmt: skip
    bench.results.growth.append(
        {"over": "rows", "side": "router's own time", "x": list(sizes), "us": added,
         "exponent": None}
    )  # fmt: skip


def _added(routed: Router, queries: Sequence[Query]) -> tuple[npt.NDArray[np.float64], float]:
    """Seconds that each call spends outside the store, and the median of a whole call."""
    store: Any = routed._faiss.store
    search = store.search
    inside = 0.0

    def timed(query: Query) -> Any:
        nonlocal inside
        began = time.perf_counter()
        answer = search(query)
        inside = time.perf_counter() - began
        return answer

    with mock.patch.object(store, "search", timed):
        outside, whole = [], []
        ending = time.perf_counter() + OVERHEAD_S
        while time.perf_counter() < ending or len(whole) < OVERHEAD_CALLS_MIN:
            began = time.perf_counter()
            routed.search(queries[len(whole) % len(queries)])
            whole.append(time.perf_counter() - began)
            outside.append(whole[-1] - inside)
    return np.array(outside), float(np.median(whole))


def _searching(store: Any, queries: Sequence[Query]) -> Side:
    count = len(queries)
    return Side(lambda n: store.search(queries[n % count]))


def _keep(bench: Bench, over: str, side: str, values: Sequence[float], us: Sequence[float]) -> None:
    exponent, _ = np.polyfit(np.log(values), np.log(us), 1)
    bench.results.growth.append(
        {"over": over, "side": side, "x": list(values), "us": list(us), "exponent": float(exponent)}
    )
