"""The HTTP proxy under load, and what it costs over the call in the process.

Run ``python -m benchmarks.serving``; docs/serve.md quotes what it prints. `shadow serve` runs as a process
of its own over FAISS alone, and this one is its clients.

Overhead: the same question to the router in this process and through the proxy, in turn, one client.
Saturation: more clients than the proxy works for at a time, none of which ever pauses; one call in
twenty is a write. Every answer must be 200, or 429 or 503 with Retry-After. Memory is the proxy's
resident set, one reading a second.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import structlog

from benchmarks.interleave import Ratio, Side, Timings, interleave, ratio
from shadow.config import Settings
from shadow.service import open_router
from vectorstore.remote import RemoteStore
from vectorstore.types import Query, Record

__all__ = ["Load", "Overhead", "main", "overhead", "saturate", "served"]

ROWS, DIMENSION, K = 382, 1_536, 10
# Nothing listens there: this measures the proxy, not PostgreSQL.
NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"
PROCESSES = 2
WRITES_EVERY = 20
REFUSALS = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Served:
    """A proxy: its address, its process's id, and the settings that a router beside it needs."""

    url: str
    pid: int
    settings: Settings


@dataclass(frozen=True, slots=True)
class Overhead:
    """The median of both ways, and their ratio."""

    in_process: Timings
    proxy: Timings
    ratio: Ratio


@dataclass(slots=True)
class Load:
    """What the clients met. ``broken``: calls without any answer. ``bare``: refusals that did not say
    when to come back. ``seconds``: of each answered search."""

    statuses: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    bare: int = 0
    seconds: list[float] = field(default_factory=list)
    resident_mb: list[float] = field(default_factory=list)
    wall_s: float = 0.0

    @property
    def errors(self) -> int:
        """All that was neither answered nor refused as it should be."""
        strange = sum(n for status, n in self.statuses.items() if status not in {200, *REFUSALS})
        return strange + self.broken + self.bare

    @property
    def growth_mb_per_min(self) -> float:
        """Slope of the resident set over the second half, when caches are warm."""
        kept = self.resident_mb[len(self.resident_mb) // 2 :]
        return float(np.polyfit(range(len(kept)), kept, 1)[0]) * 60 if len(kept) > 1 else 0.0


@contextmanager
def served(directory: Path, *, rows: int = ROWS, dimension: int = DIMENSION) -> Iterator[Served]:
    """`shadow serve` over an index of random vectors, until the end of the block."""
    settings = Settings.model_validate(
        {
            "state_directory": directory / "state",
            "faiss": {"dimension": dimension, "metric": "cosine"},
            "postgresql": {"dsn": NOWHERE},
            "log_level": "error",
        }
    )
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SHADOW_")},
        "SHADOW_STATE_DIRECTORY": str(settings.state_directory),
        "SHADOW_FAISS__DIMENSION": str(dimension),
        "SHADOW_LOG_LEVEL": "error",
        "DATABASE_URL": NOWHERE,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "shadow", "serve", "--port", "0"],
        cwd=directory,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if line.startswith("serving at "))
        threading.Thread(target=process.stderr.read, daemon=True).start()
        url = line.removeprefix("serving at ").strip()
        store = RemoteStore(url)
        vectors = np.random.default_rng(0).standard_normal((rows, dimension))
        store.upsert([Record(f"r{n}", vector, "text", {}) for n, vector in enumerate(vectors)])
        store.close()
        yield Served(url, process.pid, settings)
    finally:
        process.terminate()
        process.wait(30)


def overhead(proxy: Served, *, rounds: int = 20, block_s: float = 0.2) -> Overhead:
    """The same search in this process and through the proxy, by turns."""
    dimension = proxy.settings.faiss.dimension
    assert dimension is not None
    vectors = np.random.default_rng(1).standard_normal((256, dimension)).astype("<f4")
    bodies = [_question(vector) for vector in vectors]
    connection = _connect(proxy.url)
    router = open_router(proxy.settings)
    try:
        sides = {
            "in_process": Side(lambda n: router.search(Query(vectors[n % 256], K))),
            "proxy": Side(lambda n: _post(connection, "/v1/search", bodies[n % 256])),
        }
        found = interleave(sides, rounds=rounds, block_s=block_s)
    finally:
        router.close()
        connection.close()
    return Overhead(found["in_process"], found["proxy"], ratio(found["proxy"], found["in_process"]))


def saturate(proxy: Served, *, seconds: float, clients: int = 64) -> Load:
    """Load without a pause from ``clients`` connections in processes of their own."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    arguments = (proxy.url, proxy.settings.faiss.dimension, seconds, clients // PROCESSES, results)
    workers = [context.Process(target=_work, args=(seed, *arguments)) for seed in range(PROCESSES)]
    load = Load()
    for worker in workers:
        worker.start()
    started = time.monotonic()
    parts: list[Load] = []
    while len(parts) < len(workers):
        load.resident_mb.append(_resident_mb(proxy.pid))
        time.sleep(1.0)
        while not results.empty():
            parts.append(results.get())
        assert time.monotonic() - started < seconds + 120, "a client does not end"
    for worker in workers:
        worker.join()
    for part in parts:
        load.statuses += part.statuses
        load.broken += part.broken
        load.bare += part.bare
        load.seconds += part.seconds
        load.wall_s = max(load.wall_s, part.wall_s)
    return load


def _work(
    seed: int,
    url: str,
    dimension: int,
    seconds: float,
    threads: int,
    results: multiprocessing.Queue,
) -> None:
    """One process of clients."""
    load = Load()
    lock = threading.Lock()
    until = time.monotonic() + seconds

    def client(number: int) -> None:
        random = np.random.default_rng((seed, number))
        mine = Load()
        connection = _connect(url)
        calls = 0
        while time.monotonic() < until:
            calls += 1
            vector = random.standard_normal(dimension).astype("<f4")
            writes = calls % WRITES_EVERY == 0
            path, body = (
                ("/v1/records", _write(f"r{random.integers(100)}", vector))
                if writes
                else ("/v1/search", _question(vector))
            )
            begun = time.perf_counter()
            try:
                status, told = _post(connection, path, body)
            except (OSError, http.client.HTTPException):
                mine.broken += 1
                connection.close()
                continue
            mine.statuses[status] += 1
            mine.bare += status in REFUSALS and not told
            if status == 200 and not writes:
                mine.seconds.append(time.perf_counter() - begun)
        connection.close()
        with lock:
            load.statuses += mine.statuses
            load.broken += mine.broken
            load.bare += mine.bare
            load.seconds += mine.seconds

    running = [threading.Thread(target=client, args=(number,)) for number in range(threads)]
    started = time.monotonic()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    load.wall_s = time.monotonic() - started
    results.put(load)


def _connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)


def _post(connection: http.client.HTTPConnection, path: str, body: bytes) -> tuple[int, bool]:
    """Status, and whether the answer said when to come back."""
    connection.request("POST", path, body, {"content-type": "application/json"})
    response = connection.getresponse()
    response.read()
    return response.status, response.getheader("retry-after") is not None


def _question(vector: np.ndarray) -> bytes:
    return json.dumps({"vector_base64": _letters(vector), "k": K}).encode()


def _write(name: str, vector: np.ndarray) -> bytes:
    return json.dumps({"records": [{"id": name, "vector_base64": _letters(vector)}]}).encode()


def _letters(vector: np.ndarray) -> str:
    return base64.b64encode(vector.tobytes()).decode()


def _resident_mb(pid: int) -> float:
    """Of a process, from Linux; 0 elsewhere."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0.0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _say(cost: Overhead, load: Load, clients: int, limit: int) -> None:
    print(f"{ROWS} rows, {DIMENSION:,} dimensions, k = {K}, {os.cpu_count()} cores\n")
    print(
        f"one client: {cost.in_process.us() / 1e3:.3f} ms in the process, "
        f"{cost.proxy.us() / 1e3:.3f} ms through the proxy: "
        f"{cost.ratio.value:.0f} times ({cost.ratio.low:.0f} to {cost.ratio.high:.0f})"
    )
    taken = load.statuses[200]
    p50, p99 = np.quantile(load.seconds, [0.5, 0.99]) * 1e3
    print(
        f"{clients} clients without a pause for {load.wall_s:.0f} s, {limit} worked for at a time: "
        f"{taken / load.wall_s:,.0f} answers a second, p50 {p50:.0f} ms, p99 {p99:.0f} ms"
    )
    refused = sum(load.statuses[status] for status in REFUSALS)
    print(
        f"{taken:,} answered, {refused:,} refused with Retry-After, {load.errors} errors "
        f"({dict(sorted(load.statuses.items()))})"
    )
    print(
        f"memory: {load.resident_mb[0]:.0f} MB at first, {max(load.resident_mb):.0f} MB at most, "
        f"{load.growth_mb_per_min:+.1f} MB a minute over the second half"
    )


def main(arguments: list[str] | None = None) -> int:
    """Print both; exit code 1 if anything was answered as it should not be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the saturation")
    parser.add_argument("--clients", type=int, default=64)
    options = parser.parse_args(arguments)
    # That PostgreSQL is away is on purpose.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="serving-") as directory, served(Path(directory)) as it:
        cost = overhead(it)
        load = saturate(it, seconds=options.seconds, clients=options.clients)
        _say(cost, load, options.clients, it.settings.serve.concurrency_max)
    return 1 if load.errors else 0


if __name__ == "__main__":
    sys.exit(main())
