"""What mirroring costs the primary, which must not notice it.

*Closed loop*: one thread asks as fast as it can, every query is offered, the budget decides how many
are compared. Blocks of the mirror on and off alternate, uncounted until the budget has settled. As half
the time is off, the budget is half of the default: while it is on, the mirror takes what that allows.
"""

from __future__ import annotations

import numpy as np

from benchmarks.bench import Bench
from benchmarks.datasets import Dataset
from benchmarks.interleave import Side, Timings, interleave, ratio, unrest
from benchmarks.open_loop import open_loops, sum_of, tally_of
from benchmarks.reads import bare_search
from benchmarks.results import Figure
from benchmarks.stores import drain, router, set_mirror_rate
from shadow.config import MirrorSettings
from shadow.evidence_view import Tally
from shadow.router import Router
from vectorstore.types import Query

__all__ = ["mirroring"]

PART = "mirror"
DEFAULTS = MirrorSettings.model_validate({})
SETTLE_ROUNDS = 8


def mirroring(bench: Bench) -> None:
    """All figures of the router and the mirror."""
    data = bench.data(382, 1536)
    halved = {"cpu_share_max": DEFAULTS.cpu_share_max / 2}
    with router(bench.directory, data, bench.dsn, backfilled=True, mirror=halved) as routed:
        _overhead(bench, data, routed)
        _closed_loop(bench, data, routed, (1.08, 3.0), 0.97)
    tiny = bench.data(100, 64)
    with router(bench.directory, tiny, bench.dsn, backfilled=True) as routed:
        _own_time(bench, tiny, routed)
    open_loops(bench, PART, data)
    larger = bench.data(bench.scale.sizes[1][0], 1536)
    with router(bench.directory, larger, bench.dsn, backfilled=True, mirror=halved) as routed:
        _closed_loop(bench, larger, routed, (1.03, 0.0), None)


def _overhead(bench: Bench, data: Dataset, routed: Router) -> None:
    set_mirror_rate(routed, 0.0)
    queries = [Query(vector) for vector in data.queries]
    # The very index that the router answers from, without anything around it: a copy of it lies on other
    # pages of memory, which alone makes some per cent, one way or the other, in each run.
    store, count = routed._reads._faiss.store, len(queries)
    index = store._collection.index.faiss_index
    sides = {
        "FAISS as the bot calls it": Side(bare_search(data, index)),
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


def _own_time(bench: Bench, data: Dataset, routed: Router) -> None:
    """What the router's code takes while the search beside it leaves it in the processor's caches."""
    set_mirror_rate(routed, 0.0)
    queries = [Query(vector) for vector in data.queries]
    store, count = routed._reads._faiss.store, len(queries)
    found = interleave(
        {
            "FaissStore": Side(lambda n: store.search(queries[n % count])),
            "Router, mirror off": Side(lambda n: routed.search(queries[n % count])),
        },
        rounds=bench.scale.rounds(31),
        calls=500,
    )
    bench.results.read(PART, data.name, found)
    bench.results.figures.append(
        Figure(PART, f"router, mirror off, over FaissStore, {data.name}, p50",
               _more_us(found["Router, mirror off"], found["FaissStore"]), "us")
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
    before = tally_of(routed)
    found = interleave(sides, rounds=bench.scale.rounds(40), block_s=0.4)
    off()
    compared = sum_of(Tally(), tally_of(routed), before)
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


def _more_us(one: Timings, other: Timings) -> float:
    """How many microseconds more, by the medians of the rounds' differences."""
    return float(np.median(one.quantiles(0.5) - other.quantiles(0.5))) * 1e6
