"""Writes: the journal's acknowledgement, upserts through the router, updates of FAISS in place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import faiss
import numpy as np
import psycopg
from psycopg import sql

from benchmarks.bare_log import BareLog
from benchmarks.bench import Bench
from benchmarks.interleave import Side, Timings, interleave, ratio
from benchmarks.journal_ack import PROCESSOR_TIME_OF, measure
from benchmarks.results import Figure
from benchmarks.stores import faiss_store, open_table, router, wait_for
from shadow.core.phases import Phase
from shadow.router import Router
from vectorstore.canonical import canonical_json
from vectorstore.postgres.wire import register_vectors
from vectorstore.types import Change, Record

__all__ = ["writing"]

T = TypeVar("T")

PART = "writes"
WRITERS = 32
PROCESSOR_WRITES = 200
UPSERT = """
    INSERT INTO {} (id, seq, embedding, text, metadata) VALUES (%s, %s, %s, %s, %s::jsonb)
    ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, embedding = excluded.embedding,
        text = excluded.text, metadata = excluded.metadata
"""


def writing(bench: Bench) -> None:
    """The journal, the router, FAISS."""
    _journal(bench)
    _router(bench)
    _faiss(bench)


def _journal(bench: Bench) -> None:
    directory = bench.directory / "journal"
    directory.mkdir()
    found = {
        name: Timings([np.array(part) for part in np.array_split(seconds, 10)], [1.0] * 10)
        for name, seconds in measure(directory, rounds=bench.scale.rounds(60)).items()
    }
    for timings in found.values():
        timings.walls_s = [float(block.mean()) for block in timings.blocks]
    bench.results.read(PART, "journal, 1 record of 6 kB", found)
    floor = found["fdatasync, in place"]
    for name, most in (("journal, one", 2.0), ("journal, batch of 32", 0.2),
                       ("journal, 32 threads", 0.2)):  # fmt: skip
        bench.results.ratio(
            PART, f"{name} / bare fdatasync, per record", ratio(found[name], floor), at_most=most
        )
    name = "fdatasync, 32 threads"
    bench.results.ratio(PART, f"{name} / bare fdatasync, per record", ratio(found[name], floor))
    for name in ("one", "batch of 32"):
        bare = found[f"SQLite alone, {name}"]
        bench.results.ratio(
            PART, f"SQLite alone, {name} / bare fdatasync, per record", ratio(bare, floor)
        )
        bench.results.ratio(
            PART, f"journal, {name} / SQLite alone", ratio(found[f"journal, {name}"], bare)
        )
    for name in PROCESSOR_TIME_OF:
        name = f"processor time, {name}"
        bench.results.ratio(PART, f"{name} / bare fdatasync, per record", ratio(found[name], floor))


def _router(bench: Bench) -> None:
    data = bench.data(382, 1536)
    plain = open_table(bench.dsn, data.dimension)
    kept = _connection(bench.dsn)
    text = sql.SQL(UPSERT).format(plain.names.table)
    records = list(data.records())
    count = len(records)

    def plainly(connection: psycopg.Connection, number: int) -> None:
        one = records[number % count]
        connection.execute(
            text, (one.id, number, one.embedding, one.text, canonical_json(one.metadata)),
            prepare=True,
        )  # fmt: skip

    bare = BareLog(bench.directory / "bare.db")

    def both(number: int) -> None:
        bare.append([records[number % count]])
        plainly(kept, number)

    connections = [_connection(bench.dsn) for _ in range(WRITERS)]
    with router(bench.directory, data, bench.dsn, backfilled=True) as routed:
        for phase, single_most, many_most in (
            (Phase.SHADOW, 1.0, None),
            (Phase.POSTGRESQL, 2.3, 1.2),
        ):
            _enter(routed, phase)
            sides = {
                "plain PostgreSQL upsert": Side(lambda n: plainly(kept, n)),
                "bare SQLite, then PostgreSQL": Side(both, after=bare.empty),
                "router": Side(
                    lambda n: routed.upsert([records[n % count]]), after=lambda: _level(routed)
                ),
                f"plain PostgreSQL, {WRITERS} writers": Side(
                    lambda n: _together(lambda w: plainly(connections[w], n * WRITERS + w)),
                    per_call=WRITERS * 4,
                ),
                f"router, {WRITERS} writers": Side(
                    lambda n: _together(
                        lambda w: routed.upsert([records[(n * WRITERS + w) % count]])
                    ),
                    after=lambda: _level(routed),
                    per_call=WRITERS * 4,
                ),
            }
            answers = routed.route.primary
            # As a service writes: what the main thread writes, the router hands to another thread.
            found = _in_a_thread(
                lambda: interleave(sides, rounds=bench.scale.rounds(9), block_s=0.4)  # noqa: B023
            )
            bench.results.read(PART, f"{data.name}, {answers} answers", found)
            main = interleave(
                {name: sides[name] for name in ("plain PostgreSQL upsert", "router")},
                rounds=bench.scale.rounds(4),
                block_s=0.4,
            )
            bench.results.ratio(
                PART, f"router / plain PostgreSQL upsert, in the main thread, {answers} answers, p50",
                ratio(main["router"], main["plain PostgreSQL upsert"]),
            )  # fmt: skip
            plain_one = found["plain PostgreSQL upsert"]
            many = found[f"router, {WRITERS} writers"]
            bench.results.ratio(
                PART, f"router / plain PostgreSQL upsert, {answers} answers, p50",
                ratio(found["router"], plain_one), at_most=single_most,
            )  # fmt: skip
            ways: dict[str, Callable[[int], object]] = {
                f"router, {answers} answers": lambda n: routed.upsert([records[n % count]])
            }
            if answers == "postgresql":
                ways["bare SQLite, then PostgreSQL"] = both
            _in_a_thread(lambda: _processor_time(bench, ways))  # noqa: B023
            _level(routed)
            if answers == "postgresql":
                floor = found["bare SQLite, then PostgreSQL"]
                bench.results.ratio(
                    PART, "bare SQLite, then PostgreSQL / plain PostgreSQL upsert, p50",
                    ratio(floor, plain_one),
                )  # fmt: skip
                bench.results.ratio(
                    PART, "router / bare SQLite, then PostgreSQL, postgresql answers, p50",
                    ratio(found["router"], floor),
                )  # fmt: skip
            bench.results.ratio(
                PART, f"router, {WRITERS} writers / one plain upsert, per record, {answers} answers",
                ratio(many, plain_one), at_most=many_most,
            )  # fmt: skip
            bench.results.ratio(
                PART, f"router / plain PostgreSQL, {WRITERS} writers both, {answers} answers",
                ratio(many, found[f"plain PostgreSQL, {WRITERS} writers"]),
            )  # fmt: skip
    bare.close()
    for connection in (kept, *connections):
        connection.close()
    plain.close()


def _processor_time(bench: Bench, ways: Mapping[str, Callable[[int], object]]) -> None:
    """What the calling thread takes of the processor for one write, beside waiting for disk and server."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(bench.scale.rounds(9)):
        for name, way in ways.items():
            start = time.thread_time()
            for number in range(PROCESSOR_WRITES):
                way(number)
            found[name].append((time.thread_time() - start) / PROCESSOR_WRITES * 1e6)
    for name, us in found.items():
        low, middle, high = np.percentile(us, (25, 50, 75)).tolist()
        bench.results.figures.append(
            Figure(PART, f"processor time of the caller: {name}", middle, "us", low, high, len(us))
        )


def _enter(routed: Router, phase: Phase) -> None:
    route = routed.route
    routed.follow_route(replace(route, version=route.version + 1, phase=phase, mirror_rate=0.0))


def _level(routed: Router) -> None:
    """Wait until PostgreSQL has applied what was written."""
    link, lag = routed._reads._link, routed._lag
    wait_for(lambda: link.store().applied_seq() >= lag.head(), "PostgreSQL to be level")


def _connection(dsn: str) -> psycopg.Connection:
    connection = psycopg.connect(dsn, autocommit=True)
    register_vectors(connection)
    connection.execute("SET synchronous_commit = on")
    return connection


def _in_a_thread(work: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def _together(write: Callable[[int], object]) -> None:
    """Each of 32 threads writes four times, all at once."""

    def some(writer: int) -> None:
        for _ in range(4):
            write(writer)

    threads = [threading.Thread(target=some, args=(writer,)) for writer in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _faiss(bench: Bench) -> None:
    rows = 100_000 if bench.scale.name != "quick" else 20_000
    data = bench.data(rows, 1536 if bench.scale.wide else 384)
    naive = faiss.IndexIDMap2(faiss.IndexFlatIP(data.dimension))
    numbers = np.arange(data.rows, dtype=np.int64)
    naive.add_with_ids(data.vectors, numbers)
    store = faiss_store(data)
    random = np.random.default_rng(5)
    seq = store.applied_seq()

    def remove_and_add(_: int) -> None:
        at = int(random.integers(data.rows))
        naive.remove_ids(faiss.IDSelectorBatch(numbers[at : at + 1]))
        naive.add_with_ids(data.vectors[at : at + 1], numbers[at : at + 1])

    def overwrite(_: int) -> None:
        nonlocal seq
        seq += 1
        store.apply([Change(seq, changed.id, replace(changed, seq=seq))])

    changed: Record = data.record(int(random.integers(data.rows)))
    found: dict[str, Timings] = interleave(
        {"remove_ids + add": Side(remove_and_add)}, rounds=bench.scale.rounds(5), calls=6
    )
    found |= interleave({"FaissStore": Side(overwrite)}, rounds=bench.scale.rounds(5), calls=2_000)
    bench.results.read(PART, data.name, found)
    bench.results.ratio(
        PART, f"FAISS remove_ids + add / FaissStore update, {data.name}",
        ratio(found["remove_ids + add"], found["FaissStore"]), at_least=1_000.0,
    )  # fmt: skip
