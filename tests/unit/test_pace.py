"""How a backfill slows down for those who read, by a clock that only the test moves."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from shadow.read_latency import ReadLatencies, RecentReads, asked_for, recent_reads
from shadow.writes.pace import SHARE_MIN, Pace


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Reads:
    """What the routers say, one reading after the other."""

    def __init__(self) -> None:
        self.latest: RecentReads | None = None

    def say(self, p99_ms: float) -> None:
        """A new reading."""
        at = 1.0 if self.latest is None else self.latest.at + 1.0
        self.latest = RecentReads(p99_ms, at)

    def __call__(self) -> RecentReads | None:
        return self.latest


def test_without_limits_nothing_is_waited_for() -> None:
    """As fast as it goes."""
    pace = Pace()
    assert not pace.limited
    assert pace.after(500, 0.1) == 0.0


def test_a_rate_holds_over_all_blocks_of_all_processes() -> None:
    """Time lost in waiting for the server counts as time, and a burst is paid for afterwards."""
    clock = Clock()
    pace = Pace(rows_per_s_max=1_000.0, clock=clock)
    clock.now += 0.1
    assert pace.after(500, 0.1) == pytest.approx(0.4)
    # Another process reports at the same moment: it waits for its own rows too.
    assert pace.after(500, 0.1) == pytest.approx(0.9)
    clock.now += 10.0
    assert pace.after(500, 2.0) == 0.0


def test_slow_reads_halve_the_share_and_fast_ones_bring_it_back() -> None:
    """Down to a trickle that never stops, and back up to all of the time."""
    reads = Reads()
    pace = Pace(p99_ms_max=5.0, reads=reads)
    assert pace.after(500, 0.1) == 0.0
    waits = []
    for _ in range(10):
        reads.say(20.0)
        waits.append(pace.after(500, 0.1))
    assert waits[:3] == pytest.approx([0.1, 0.3, 0.7])
    assert pace.share == SHARE_MIN
    assert waits[-1] == pytest.approx(0.1 * (1 / SHARE_MIN - 1))
    for _ in range(50):
        reads.say(4.0)
        pace.after(500, 0.1)
    assert pace.share == 1.0


def test_one_reading_counts_once() -> None:
    """Many small blocks between two readings do not halve the share many times."""
    reads = Reads()
    pace = Pace(p99_ms_max=5.0, reads=reads)
    reads.say(20.0)
    for _ in range(10):
        pace.after(10, 0.001)
    assert pace.share == 0.5


def test_nobody_reads_nobody_waits() -> None:
    """When the readers are gone there is nobody to be slowed down."""
    reads = Reads()
    pace = Pace(p99_ms_max=5.0, reads=reads)
    reads.say(20.0)
    pace.after(500, 0.1)
    reads.latest = None
    assert pace.after(500, 0.1) == 0.0


def test_the_slower_limit_holds() -> None:
    """A rate and a latency together."""
    clock, reads = Clock(), Reads()
    pace = Pace(rows_per_s_max=1_000.0, p99_ms_max=5.0, reads=reads, clock=clock)
    reads.say(20.0)
    assert pace.after(100, 0.5) == pytest.approx(0.5)
    assert pace.after(10_000, 0.1) > 9.0


def test_latencies_are_told_only_while_somebody_asks(tmp_path: Path) -> None:
    """Without a backfill that asks nothing is written; when it has ended nothing is left."""
    clock = Clock()
    latencies = ReadLatencies(tmp_path, clock=clock)
    latencies.add(0.007)
    latencies.publish()
    assert list(tmp_path.iterdir()) == []
    assert recent_reads(tmp_path, clock=clock) is None
    with asked_for(tmp_path):
        clock.now += 1.0
        for n in range(1, 201):
            latencies.add(n / 1e3)
        latencies.publish()
        found = recent_reads(tmp_path, clock=clock)
        assert found is not None
        assert 197.0 < found.p99_ms < 200.0
    assert list(tmp_path.iterdir()) == []
    clock.now += 1.0
    latencies.add(0.001)
    latencies.publish()
    assert recent_reads(tmp_path, clock=clock) is None


def test_few_reads_are_looked_at_over_a_longer_time(tmp_path: Path) -> None:
    """A percentile needs reads: with ten a second the last ten seconds count, and not more."""
    clock = Clock()
    latencies = ReadLatencies(tmp_path, clock=clock)

    def a_second(ms: float, reads: int = 10) -> float:
        clock.now += 1.0
        for _ in range(reads):
            latencies.add(ms / 1e3)
        latencies.publish()
        found = recent_reads(tmp_path, clock=clock)
        assert found is not None
        return found.p99_ms

    with asked_for(tmp_path):
        assert a_second(50.0) == 50.0
        assert a_second(1.0) > 25.0
        assert [a_second(1.0) for _ in range(12)][-1] == 1.0
        a_second(50.0)
        # With many reads only the newest count.
        assert a_second(2.0, reads=200) == 2.0


def test_the_slowest_process_counts_and_the_dead_do_not(tmp_path: Path) -> None:
    """What a process told before it died is out of date after a moment; half a file is no reading."""
    clock = Clock()
    latencies = ReadLatencies(tmp_path, clock=clock)
    with asked_for(tmp_path):
        latencies.add(0.003)
        latencies.publish()
        other = tmp_path / "reads" / str(os.getpid() + 1)
        other.write_text(json.dumps({"p99_ms": 9.0, "at": clock.now}))
        (tmp_path / "reads" / "1").write_text('{"p99_ms": 99.')
        assert recent_reads(tmp_path, clock=clock) == RecentReads(9.0, clock.now)
        other.write_text(json.dumps({"p99_ms": 9.0, "at": clock.now - 5.0}))
        assert recent_reads(tmp_path, clock=clock) == RecentReads(3.0, clock.now)


def test_readers_add_while_it_is_told(tmp_path: Path) -> None:
    """Threads that read never meet an error because of it, and what is kept is bounded."""
    clock = Clock()
    latencies = ReadLatencies(tmp_path, clock=clock)
    reading, done = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set():
                latencies.add(0.001)
                reading.set()
        except BaseException as error:
            failures.append(error)

    with asked_for(tmp_path):
        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(50):
            reading.clear()
            assert reading.wait(10.0)
            clock.now += 1.0
            latencies.publish()
        done.set()
        for thread in threads:
            thread.join()
        found = recent_reads(tmp_path, clock=clock)
    assert not failures
    assert found is not None
    assert found.p99_ms == 1.0
