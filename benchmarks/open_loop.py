"""An asyncio application that asks at fixed times, 200 a second, while its queries are mirrored.

Each query runs in a worker thread, as async applications call blocking code; latency counts from the time
at which the query was due, so that a query that waits for another one's delay is not left out. Beside it
the time of the call alone, once for the mirror as it is and once for a mirror that asks from its thread
(``mirror.own_process`` off); and the same with the shadow hanging, and refusing.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.bench import Bench
from benchmarks.datasets import Dataset
from benchmarks.interleave import Seconds, Timings, ratio, unrest
from benchmarks.proxy import faulty_network
from benchmarks.results import Figure
from benchmarks.stores import drain, router, set_mirror_rate, wait_for
from shadow.core.phases import POSTGRESQL
from shadow.evidence_view import Tally
from shadow.router import Router
from vectorstore.errors import StoreUnavailable
from vectorstore.types import Query

__all__ = ["open_loops", "sum_of", "tally_of"]

OPEN_LOOP_PER_S = 200
WAYS = ("off", "all mirrored", "all mirrored, from a thread", "shadow hangs", "shadow refuses")


def open_loops(bench: Bench, part: str, data: Dataset) -> None:
    """All mirrored, with the shadow hanging and refusing, against the mirror switched off."""
    queries = [Query(vector) for vector in data.queries]
    # No budget: here every query is to be mirrored.
    whole = {"cpu_share_max": 1.0}
    with (
        faulty_network(bench.dsn) as network,
        router(bench.directory, data, bench.dsn, backfilled=True, mirror=whole) as near,
        router(
            bench.directory, data, bench.dsn, backfilled=True,
            mirror={**whole, "own_process": False},
        ) as threaded,
        router(
            bench.directory, data, network.dsn, backfilled=True, mirror=whole,
            postgresql={"dsn": network.dsn},
        ) as far,
    ):  # fmt: skip
        routers = dict(zip(WAYS, (near, near, threaded, far, far), strict=True))
        for routed in routers.values():
            set_mirror_rate(routed, 0.0)
        orders = {"shadow hangs": "hang", "shadow refuses": "refuse"}
        calls = {way: Timings() for way in WAYS}
        waits = {way: Timings() for way in WAYS}
        tally = Tally()
        _settle(near, queries)
        bench.results.figures.append(
            Figure(part, "the mirror's own process, memory", _memory_mb(near), "MB")
        )
        for turn in range(bench.scale.rounds(10)):
            for way in WAYS if turn % 2 == 0 else reversed(WAYS):
                routed = routers[way]
                network.order(orders.get(way, "serve"))
                set_mirror_rate(routed, 0.0 if way == "off" else 1.0)
                before = tally_of(routed)
                with ThreadPoolExecutor(8) as pool:
                    asyncio.run(_asked(routed, queries, 0.3, pool))
                    call, waited = asyncio.run(_asked(routed, queries, 2.0, pool))
                set_mirror_rate(routed, 0.0)
                network.order("serve")
                drain(routed)
                if way == "all mirrored":
                    tally = sum_of(tally, tally_of(routed), before)
                for into, seconds in ((calls[way], call), (waits[way], waited)):
                    into.blocks.append(seconds)
                    into.walls_s.append(1 / OPEN_LOOP_PER_S)
                wait_for(partial(_answers, routed), "PostgreSQL to be back")
    name = f"open loop, {OPEN_LOOP_PER_S}/s"
    bench.results.read(part, f"{data.name}, {OPEN_LOOP_PER_S}/s", waits)
    bench.results.ratio(
        part, f"{name}, off / off a round before, p99", unrest(waits["off"], share=0.99)
    )
    for way in WAYS[1:]:
        promised = way != "all mirrored, from a thread"
        for share, label in ((0.5, "p50"), (0.99, "p99")):
            bench.results.ratio(
                part, f"{name}, {way} / off, {label}",
                ratio(waits[way], waits["off"], share=share),
                at_most=1.15 if promised and label == "p99" else None,
            )  # fmt: skip
        bench.results.ratio(
            part, f"{name}, {way} / off, the call alone, p99",
            ratio(calls[way], calls["off"], share=0.99),
        )  # fmt: skip
    bench.results.figures.append(
        Figure(part, "open loop, all mirrored: share compared",
               100 * tally.resolved / max(1, tally.offered), "%", target="100 %",
               met=tally.resolved == tally.offered)
    )  # fmt: skip


def _settle(routed: Router, queries: list[Query]) -> None:
    """Ask until the busy mirror has a process of its own, and that has answered."""
    set_mirror_rate(routed, 1.0)
    with ThreadPoolExecutor(8) as pool:

        def settled() -> bool:
            asyncio.run(_asked(routed, queries, 1.0, pool))
            asking = routed._mirror._asking
            return asking is not None and asking.cpu_s > 0.0

        wait_for(settled, "the mirror's process")
    set_mirror_rate(routed, 0.0)
    drain(routed)


def _memory_mb(routed: Router) -> float:
    """What the mirror's process has in memory, libraries that others use too included."""
    asking = routed._mirror._asking
    assert asking is not None
    assert asking._running is not None
    status = Path(f"/proc/{asking._running._process.pid}/status")
    if not status.exists():
        return float("nan")
    return int(status.read_text().split("VmRSS:")[1].split()[0]) / 1024


async def _asked(
    routed: Router, queries: list[Query], seconds: float, pool: ThreadPoolExecutor
) -> tuple[Seconds, Seconds]:
    """Seconds of queries asked at fixed times: of the call, and from when each was due."""
    loop = asyncio.get_running_loop()
    count = int(seconds * OPEN_LOOP_PER_S)
    # Exponential gaps: an application's callers do not wait for each other.
    gaps = np.random.default_rng(3).exponential(1 / OPEN_LOOP_PER_S, count)
    due = time.perf_counter() + 0.05 + np.cumsum(gaps)
    called, waited = np.zeros(count), np.zeros(count)

    async def ask(number: int) -> None:
        await asyncio.sleep(max(0.0, due[number] - time.perf_counter()))
        started = time.perf_counter()
        await loop.run_in_executor(pool, routed.search, queries[number % len(queries)])
        ended = time.perf_counter()
        called[number], waited[number] = ended - started, ended - due[number]

    await asyncio.gather(*(ask(number) for number in range(count)))
    return called, waited


def _answers(routed: Router) -> bool:
    try:
        routed._reads._link.store().count()
    except StoreUnavailable:
        return False
    return True


def tally_of(routed: Router) -> Tally:
    """What was counted of this router's mirrored queries in the era in force."""
    evidence = routed._mirror._evidence
    era = evidence.era()
    return evidence.total(era.number, POSTGRESQL) if era else Tally()


def sum_of(total: Tally, now: Tally, before: Tally) -> Tally:
    """``total`` and what came between ``before`` and ``now``."""
    return Tally(
        *(
            getattr(total, name) + getattr(now, name) - getattr(before, name)
            for name in ("offered", "sampled", "dropped", "resolved", "lost")
        )
    )
