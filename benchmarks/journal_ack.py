"""How long a journal acknowledgement takes, beside a bare fdatasync of the same bytes.

Run: ``python -m benchmarks.journal_ack [--directory DIR] [--rounds N]``. Every figure of one round is
taken in turn, so that a machine that slows down slows all of them; the table gives medians and the
ratios of medians. The bytes are one record of 1,536 dimensions with 300 characters of text.

- ``fdatasync, in place``: pwrite into a file that already has its size, then fdatasync: the floor.
- ``fdatasync, append``: the same at the end of a growing file.
- ``SQLite alone, one`` and ``.., batch of 32``: a transaction of the same record(s) through the driver,
  which is what bounds a journal that is an SQLite file.
- ``fdatasync, 32 in place``: the floor of a batch, per record.
- ``journal, one``: ``Journal.append`` of one record, once the log has started over.
- ``journal, batch of 32``: one append of 32 records, per record.
- ``journal, 32 threads``: 32 threads that append one record each at the same time, per record.
- ``fdatasync, 32 threads``: the same threads and groups, with a bare write and fdatasync for a commit: the
  floor of a group that is made of threads, each of which has to be woken.
- ``processor time, ..``: of the calling thread, beside the wall time of the same calls: what it does
  itself, between one wait for the disk and the next.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.bare_log import BareLog
from shadow.writes.group_commit import GroupCommit
from shadow.writes.journal import Journal
from vectorstore.types import Metric, Record

__all__ = ["PROCESSOR_TIME_OF", "measure"]

DIMENSION = 1536
GROUP = 32
FILE_BYTES = 16 << 20
THREAD_APPENDS = 8
WARM_UP_APPENDS = 1000
PROCESSOR_TIME_OF = ("SQLite alone, one", "journal, one")


def measure(directory: Path, *, rounds: int) -> dict[str, list[float]]:
    """Seconds per record for each way of making a record durable, one figure per round."""
    vector = np.random.default_rng(7).random(DIMENSION, dtype=np.float32)
    vector /= np.linalg.norm(vector)
    record = Record("farming-guide-0001", vector, "maize " * 50, {"page": 3, "source": "guide.pdf"})
    payload = vector.tobytes() + record.text.encode() + json.dumps(dict(record.metadata)).encode()
    journal = Journal.open(directory / "state")
    journal.bind(DIMENSION, Metric.COSINE)
    placed = os.open(directory / "placed", os.O_RDWR | os.O_CREAT, 0o600)
    grown = os.open(directory / "grown", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(placed, b"\1" * FILE_BYTES)
    os.fsync(placed)
    slots = FILE_BYTES // len(payload)
    bare = BareLog(directory / "bare.db")
    pool = ThreadPoolExecutor(GROUP)

    def in_place(number: int) -> None:
        os.pwrite(placed, payload, number % slots * len(payload))
        os.fdatasync(placed)

    def together(number: int) -> None:
        os.pwrite(placed, payload * GROUP, number % (slots // GROUP) * GROUP * len(payload))
        os.fdatasync(placed)

    def append(_: int) -> None:
        os.write(grown, payload)
        os.fdatasync(grown)

    def threads(_: int) -> None:
        def some(_: int) -> None:
            for _ in range(THREAD_APPENDS):
                journal.append([(record.id, record)])

        list(pool.map(some, range(GROUP)))

    def write_group(group: Sequence[int]) -> Sequence[int]:
        os.pwrite(placed, payload * len(group), group[0] % (slots // GROUP) * GROUP * len(payload))
        os.fdatasync(placed)
        return group

    grouped: GroupCommit[int, int] = GroupCommit(write_group, lambda *_: None)

    def bare_threads(_: int) -> None:
        def some(_: int) -> None:
            for number in range(THREAD_APPENDS):
                grouped.submit(number)

        list(pool.map(some, range(GROUP)))

    ways: dict[str, tuple[int, Callable[[int], object]]] = {
        "fdatasync, in place": (1, in_place),
        "fdatasync, append": (1, append),
        "SQLite alone, one": (1, lambda _: bare.append([record])),
        "journal, one": (1, lambda _: journal.append([(record.id, record)])),
        "fdatasync, 32 in place": (GROUP, together),
        "SQLite alone, batch of 32": (GROUP, lambda _: bare.append([record] * GROUP)),
        "journal, batch of 32": (GROUP, lambda _: journal.append([(record.id, record)] * GROUP)),
        "journal, 32 threads": (GROUP * THREAD_APPENDS, threads),
        "fdatasync, 32 threads": (GROUP * THREAD_APPENDS, bare_threads),
    }
    # The log grows until the first checkpoints; what follows is the steady state.
    for _ in range(WARM_UP_APPENDS):
        journal.append([(record.id, record)])
        bare.append([record])
    found: dict[str, list[float]] = {name: [] for name in ways}
    found |= {f"processor time, {name}": [] for name in PROCESSOR_TIME_OF}
    singles = [name for name, (records, _) in ways.items() if records == 1]
    groups = [name for name, (records, _) in ways.items() if records > 1]
    # Groups are taken beside the floor too, but apart from the single writes: the checkpoints that
    # many records bring about would fall on those.
    for names, repeats in ((singles, 10 * rounds), ([singles[0], *groups], rounds)):
        for number in range(repeats):
            for name in names:
                records, way = ways[name]
                start, used = time.perf_counter(), time.thread_time()
                way(number)
                found[name].append((time.perf_counter() - start) / records)
                if name in PROCESSOR_TIME_OF:
                    found[f"processor time, {name}"].append(time.thread_time() - used)
            if number % 300 == 299:
                journal.truncate(journal.head())
                bare.empty()
    pool.shutdown()
    journal.close()
    bare.close()
    os.close(placed)
    os.close(grown)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--directory", type=Path, help="on the disk to measure; default: temporary")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        found = measure(Path(directory), rounds=options.rounds)
    floor = statistics.median(found["fdatasync, in place"])
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, {options.rounds} rounds; us per record")
    print(f"{'':36}{'p50':>8}{'p99':>9}{'/ in place':>12}{'/ append':>10}")
    grown = statistics.median(found["fdatasync, append"])
    table = {}
    for name, seconds in found.items():
        p50, p99 = statistics.median(seconds), float(np.percentile(seconds, 99))
        table[name] = {"p50_us": p50 * 1e6, "p99_us": p99 * 1e6, "ratio": p50 / floor}
        print(f"{name:36}{p50 * 1e6:8.1f}{p99 * 1e6:9.1f}{p50 / floor:11.2f}x{p50 / grown:9.2f}x")
    print("bounds: one <= 2x in place; per record in groups of 32 <= 0.2x")
    if options.json:
        options.json.write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
