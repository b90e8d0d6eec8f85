"""What mirroring costs the primary, which must not notice it.

*Closed loop*: one thread asks as fast as it can, every query is offered, the budget decides how many
are compared. Blocks of the mirror on and off alternate, uncounted until the budget has settled. As half
the time is off, the budget is half of the default: while it is on, the mirror takes what that allows.
*Open loop*: an asyncio application asks at fixed times, 200 a second, each query in a worker thread
as async applications call blocking code; latency counts from the time at which the query was due, so
that a query that waits for another one's delay is not left out. Beside it the time of the call alone,
once for the mirror as it is and once for a mirror that asks from its thread (``mirror.own_process``
off).
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
from benchmarks.interleave import Seconds, Side, Timings, interleave, ratio, unrest
from benchmarks.proxy import faulty_network
from benchmarks.reads import bare_search
from benchmarks.results import Figure
from benchmarks.stores import bare_index, drain, faiss_store, router, set_mirror_rate, wait_for
from shadow.config import MirrorSettings
from shadow.core.phases import POSTGRESQL
from shadow.evidence_view import Tally
from shadow.router import Router
from vectorstore.errors import StoreUnavailable
from vectorstore.types import Query

__all__ = ["mirroring"]

PART = "mirror"
DEFAULTS = MirrorSettings.model_validate({})
OPEN_LOOP_PER_S = 200
SETTLE_ROUNDS = 8
WAYS = ("off", "all mirrored", "all mirrored, from a thread", "shadow hangs", "shadow refuses")


def mirroring(bench: Bench) -> None:
    """All rows of the issue's table that are about the router and the mirror."""
    data = bench.data(382, 1536)
    halved = {"cpu_share_max": DEFAULTS.cpu_share_max / 2}
    with router(bench.directory, data, bench.dsn, backfilled=True, mirror=halved) as routed:
        _overhead(bench, data, routed)
        _closed_loop(bench, data, routed, (1.08, 3.0), 0.97)
    _open_loops(bench, data)
    larger = bench.data(bench.scale.sizes[1][0], 1536)
    with router(bench.directory, larger, bench.dsn, backfilled=True, mirror=halved) as routed:
        _closed_loop(bench, larger, routed, (1.03, 0.0), None)


def _overhead(bench: Bench, data: Dataset, routed: Router) -> None:
    set_mirror_rate(routed, 0.0)
    queries = [Query(vector) for vector in data.queries]
    store, count = faiss_store(data), len(queries)
    sides = {
        "FAISS as the bot calls it": Side(bare_search(data, bare_index(data))),
        "FaissStore": Side(lambda n: store.search(queries[n % count])),
        "Router, mirror off": Side(lambda n: routed.search(queries[n % count])),
    }
    found = interleave(sides, rounds=bench.scale.rounds(31), calls=500)
    bench.results.read(PART, data.name, found)
    bare, ours = found["FAISS as the bot calls it"], found["Router, mirror off"]
    bench.results.ratio(
        PART,
        f"router, mirror off / bare FAISS, {data.name}, p50",
        ratio(ours, bare),
        at_most=1.05,
        or_met=_more_us(ours, bare) <= 2.0,
        or_words=" or +2 us",
    )
    bench.results.figures.append(
        Figure(PART, f"router, mirror off, over FaissStore, {data.name}, p50",
               _more_us(ours, found["FaissStore"]), "us")
    )  # fmt: skip


def _closed_loop(
    bench: Bench,
    data: Dataset,
    routed: Router,
    p50_at_most: tuple[float, float],
    throughput_at_least: float | None,
) -> None:
    queries = [Query(vector) for vector in data.queries]
    count = len(queries)

    def off() -> None:
        set_mirror_rate(routed, 0.0)
        drain(routed)

    def search(number: int) -> object:
        return routed.search(queries[number % count])

    sides = {
        "closed loop, off": Side(search, before=off),
        "closed loop, 100 % offered": Side(search, before=lambda: set_mirror_rate(routed, 1.0)),
    }
    interleave(sides, rounds=SETTLE_ROUNDS, block_s=0.4)
    before = _tally(routed)
    found = interleave(sides, rounds=bench.scale.rounds(40), block_s=0.4)
    off()
    compared = _sum(Tally(), _tally(routed), before)
    without, on = found.values()
    bench.results.read(PART, data.name, found)
    name = f"closed loop, 100 % offered / off, {data.name}"
    most, plus_us = p50_at_most
    bench.results.ratio(
        PART, f"{name}, p50", ratio(on, without), at_most=most,
        or_met=_more_us(on, without) <= plus_us, or_words=f" or +{plus_us:g} us" if plus_us else "",
    )  # fmt: skip
    bench.results.ratio(PART, f"{name}, p99", ratio(on, without, share=0.99), at_most=1.15)
    bench.results.ratio(
        PART, f"{name}, throughput", ratio(without, on, share=None), at_least=throughput_at_least
    )
    for words, share in (("p99", 0.99), ("throughput", None)):
        bench.results.ratio(
            PART, f"closed loop, off / off a round before, {data.name}, {words}",
            unrest(without, share=share),
        )  # fmt: skip
    offered = max(1, compared.offered)
    for words, value in (
        ("share compared", compared.resolved / offered),
        ("share not sampled (budget)", 1 - compared.sampled / offered),
        ("share dropped of sampled", compared.dropped / max(1, compared.sampled)),
    ):
        target = "0 dropped" if words.startswith("share dropped") else None
        bench.results.figures.append(
            Figure(PART, f"{name}: {words}", 100 * value, "%", target=target,
                   met=None if target is None else compared.dropped == 0)
        )  # fmt: skip


def _open_loops(bench: Bench, data: Dataset) -> None:
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
            Figure(PART, "the mirror's own process, memory", _memory_mb(near), "MB")
        )
        for turn in range(bench.scale.rounds(10)):
            for way in WAYS if turn % 2 == 0 else reversed(WAYS):
                routed = routers[way]
                network.order(orders.get(way, "serve"))
                set_mirror_rate(routed, 0.0 if way == "off" else 1.0)
                before = _tally(routed)
                with ThreadPoolExecutor(8) as pool:
                    asyncio.run(_asked(routed, queries, 0.3, pool))
                    call, waited = asyncio.run(_asked(routed, queries, 2.0, pool))
                set_mirror_rate(routed, 0.0)
                network.order("serve")
                drain(routed)
                if way == "all mirrored":
                    tally = _sum(tally, _tally(routed), before)
                for into, seconds in ((calls[way], call), (waits[way], waited)):
                    into.blocks.append(seconds)
                    into.walls_s.append(1 / OPEN_LOOP_PER_S)
                wait_for(partial(_answers, routed), "PostgreSQL to be back")
    name = f"open loop, {OPEN_LOOP_PER_S}/s"
    bench.results.read(PART, f"{data.name}, {OPEN_LOOP_PER_S}/s", waits)
    for way in WAYS[1:]:
        promised = way != "all mirrored, from a thread"
        for share, label in ((0.5, "p50"), (0.99, "p99")):
            bench.results.ratio(
                PART, f"{name}, {way} / off, {label}",
                ratio(waits[way], waits["off"], share=share),
                at_most=1.15 if promised and label == "p99" else None,
            )  # fmt: skip
        bench.results.ratio(
            PART, f"{name}, {way} / off, the call alone, p99",
            ratio(calls[way], calls["off"], share=0.99),
        )  # fmt: skip
    bench.results.figures.append(
        Figure(PART, "open loop, all mirrored: share compared",
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


def _tally(routed: Router) -> Tally:
    evidence = routed._mirror._evidence
    era = evidence.era()
    return evidence.total(era.number, POSTGRESQL) if era else Tally()


def _sum(total: Tally, now: Tally, before: Tally) -> Tally:
    return Tally(
        *(
            getattr(total, name) + getattr(now, name) - getattr(before, name)
            for name in ("offered", "sampled", "dropped", "resolved", "lost")
        )
    )


def _more_us(one: Timings, other: Timings) -> float:
    """How many microseconds more, by the medians of the rounds' differences."""
    return float(np.median(one.quantiles(0.5) - other.quantiles(0.5))) * 1e6
