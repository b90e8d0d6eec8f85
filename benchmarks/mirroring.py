"""What mirroring costs the primary, which must not notice it.

*Closed loop*: one thread asks as fast as it can, every query is offered, the budget decides how many
are compared. Seconds after a switch of the mirror are left out until the budget has had time to settle.
*Open loop*: an asyncio application asks at fixed times, 200 a second, each query in a worker thread
as async applications call blocking code; latency counts from the time at which the query was due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.bench import Bench
from benchmarks.datasets import Dataset
from benchmarks.interleave import Side, Timings, interleave, ratio
from benchmarks.proxy import faulty_network
from benchmarks.reads import bare_search
from benchmarks.results import Figure
from benchmarks.stores import bare_index, drain, faiss_store, router, set_mirror_rate, wait_for
from shadow.core.phases import POSTGRESQL
from shadow.evidence_view import Tally
from shadow.router import Router
from vectorstore.errors import StoreUnavailable
from vectorstore.types import Query

__all__ = ["mirroring"]

PART = "mirror"
OPEN_LOOP_PER_S = 200
SETTLE_S = 2.5


def mirroring(bench: Bench) -> None:
    """All rows of the issue's table that are about the router and the mirror."""
    data = bench.data(382, 1536)
    with faulty_network(bench.dsn) as network:
        sections = {"postgresql": {"dsn": network.dsn}}
        with router(bench.directory, data, network.dsn, backfilled=True, **sections) as routed:
            _overhead(bench, data, routed)
            _closed_loop(bench, data, routed, (1.08, 3.0), 0.97)
        # No budget: here every query is to be mirrored.
        sections |= {"mirror": {"cpu_share_max": 1.0}}
        with router(bench.directory, data, network.dsn, backfilled=True, **sections) as routed:
            _open_loop(bench, data, routed, network.order)
    larger = bench.data(bench.scale.sizes[1][0], 1536)
    with router(bench.directory, larger, bench.dsn, backfilled=True) as routed:
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
    off, on = Timings(), Timings()
    before = None
    compared = Tally()
    for turn in range(bench.scale.rounds(6)):
        for mirrored in (False, True) if turn % 2 == 0 else (True, False):
            set_mirror_rate(routed, 1.0 if mirrored else 0.0)
            side = Side(lambda n: routed.search(queries[n % count]))
            if mirrored:
                interleave({"settle": side}, rounds=1, block_s=SETTLE_S)
                set_mirror_rate(routed, 0.0)
                drain(routed)
                before = _tally(routed)
                set_mirror_rate(routed, 1.0)
            found = interleave({"side": side}, rounds=1, block_s=1.5)["side"]
            if mirrored and before is not None:
                set_mirror_rate(routed, 0.0)
                drain(routed)
                compared = _sum(compared, _tally(routed), before)
            into = on if mirrored else off
            into.blocks += found.blocks
            into.walls_s += found.walls_s
    set_mirror_rate(routed, 0.0)
    bench.results.read(PART, data.name, {"closed loop, off": off, "closed loop, 100 % offered": on})
    name = f"closed loop, 100 % offered / off, {data.name}"
    most, plus_us = p50_at_most
    bench.results.ratio(
        PART, f"{name}, p50", ratio(on, off), at_most=most,
        or_met=_more_us(on, off) <= plus_us, or_words=f" or +{plus_us:g} us" if plus_us else "",
    )  # fmt: skip
    bench.results.ratio(PART, f"{name}, p99", ratio(on, off, share=0.99), at_most=1.15)
    bench.results.ratio(
        PART, f"{name}, throughput", ratio(off, on, share=None), at_least=throughput_at_least
    )
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


def _open_loop(bench: Bench, data: Dataset, routed: Router, order: Callable[[str], None]) -> None:
    queries = [Query(vector) for vector in data.queries]
    ways = ("off", "all mirrored", "shadow hangs", "shadow refuses")
    found = {way: Timings() for way in ways}
    tallies = {way: Tally() for way in ways}
    for turn in range(bench.scale.rounds(6)):
        for way in ways if turn % 2 == 0 else reversed(ways):
            order({"shadow hangs": "hang", "shadow refuses": "refuse"}.get(way, "serve"))
            set_mirror_rate(routed, 0.0 if way == "off" else 1.0)
            before = _tally(routed)
            with ThreadPoolExecutor(8) as pool:
                asyncio.run(_asked(routed, queries, 0.3, pool))
                seconds = asyncio.run(_asked(routed, queries, 2.0, pool))
            set_mirror_rate(routed, 0.0)
            order("serve")
            drain(routed)
            tallies[way] = _sum(tallies[way], _tally(routed), before)
            found[way].blocks.append(seconds)
            found[way].walls_s.append(float(seconds.mean()))
            wait_for(lambda: _answers(routed), "PostgreSQL to be back")
    bench.results.read(PART, f"{data.name}, {OPEN_LOOP_PER_S}/s", found)
    for way in ways[1:]:
        for share, label, most in ((0.5, "p50", None), (0.99, "p99", 1.15)):
            bench.results.ratio(
                PART, f"open loop, {OPEN_LOOP_PER_S}/s, {way} / off, {label}",
                ratio(found[way], found["off"], share=share), at_most=most,
            )  # fmt: skip
    tally = tallies["all mirrored"]
    bench.results.figures.append(
        Figure(PART, "open loop, all mirrored: share compared",
               100 * tally.resolved / max(1, tally.offered), "%", target="100 %",
               met=tally.resolved == tally.offered)
    )  # fmt: skip


async def _asked(
    routed: Router, queries: list[Query], seconds: float, pool: ThreadPoolExecutor
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Latencies of queries asked at fixed times, counted from when they were due."""
    loop = asyncio.get_running_loop()
    count = int(seconds * OPEN_LOOP_PER_S)
    # Exponential gaps: an application's callers do not wait for each other.
    gaps = np.random.default_rng(3).exponential(1 / OPEN_LOOP_PER_S, count)
    due = time.perf_counter() + 0.05 + np.cumsum(gaps)
    found = np.zeros(count)

    async def ask(number: int) -> None:
        await asyncio.sleep(max(0.0, due[number] - time.perf_counter()))
        started = time.perf_counter()
        await loop.run_in_executor(pool, routed.search, queries[number % len(queries)])
        found[number] = time.perf_counter() - started

    await asyncio.gather(*(ask(number) for number in range(count)))
    return found


def _answers(routed: Router) -> bool:
    try:
        routed._link.store().count()
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
