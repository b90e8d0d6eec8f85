"""What is seen of the migration at one moment: looked at once for every page, scrape and client."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shadow.core.phases import FAISS, POSTGRESQL
from shadow.events import EventLog
from shadow.load_clock import LoadClock, LoadStanding
from shadow.opening import Migration
from shadow.progress import GrowthClock, PaceClock
from shadow.report.collect import collect
from shadow.report.model import ParityReport
from shadow.status import status
from vectorstore.errors import VectorStoreError

if TYPE_CHECKING:
    from vectorstore.postgres.monitoring import Monitoring

__all__ = ["LatencyPoint", "Look", "Watch"]

SERVER_AGE_S_MAX = 5.0
SAMPLE_S = 15.0
SAMPLES_MAX = 2_880
QUANTILE = 0.95

log = EventLog("shadow.serve")

Buckets = Sequence[tuple[float, int]]


@dataclass(frozen=True, slots=True)
class LatencyPoint:
    """A store's p95 over the mirrored queries of one sampling interval, ms; seconds since the epoch."""

    at: float
    store: str
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Look:
    """One moment. ``latencies``: store to (ms, n). ``growth_bytes_per_h``, and ``build_left_s`` of an
    index build under way: ``None`` until known."""

    at: float
    status: Mapping[str, Any]
    report: ParityReport
    latencies: Mapping[str, Buckets]
    latency_points: tuple[LatencyPoint, ...]
    pool: Mapping[str, int]
    server: Monitoring | None
    growth_bytes_per_h: float | None
    load: LoadStanding | None
    build_left_s: float | None


class Watch:
    """Looks at the migration when asked, no more often than ``age_ms_max``; samples latencies besides."""

    def __init__(self, migration: Migration, *, subject: str, age_ms_max: float) -> None:
        self._migration = migration
        self._subject = subject
        self._age_s_max = age_ms_max / 1e3
        self._lock = threading.Lock()
        self._look: Look | None = None
        self._looked_at = 0.0
        self._server: Monitoring | None = None
        self._server_at = -SERVER_AGE_S_MAX
        self._load_clock, self._growth_clock = LoadClock(), GrowthClock()
        self._build_pace = PaceClock()
        self._build_left_s: float | None = None
        self._points: deque[LatencyPoint] = deque(maxlen=SAMPLES_MAX)
        self._counted: dict[str, dict[float, int]] = {}
        self._sampled_at = 0.0
        self._era = -1
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._forever, name="shadow-watch", daemon=True)

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sampling."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    def look(self, *, fresh: bool = False) -> Look:
        """The latest look; a new one if that is too old or ``fresh`` is asked for."""
        with self._lock:
            if self._look is None or fresh or time.monotonic() - self._looked_at >= self._age_s_max:
                self._look = self._anew()
                self._looked_at = time.monotonic()
            return self._look

    def _forever(self) -> None:
        while not self._stopping.wait(min(SAMPLE_S, 5.0)):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - the thread must outlive any one failure
                log.warning("watch_failed", error=type(error).__name__)

    def _anew(self) -> Look:
        migration = self._migration
        now = time.time()
        era = migration.evidence.era()
        number = 0 if era is None else era.number
        latencies = {
            store: migration.evidence.latencies(number, store) for store in (FAISS, POSTGRESQL)
        }
        self._sample(now, number, latencies)
        found = status(migration, look=False)
        state = found["stores"]["postgresql"]["state"]
        server = self._look_at_server(state)
        return Look(
            at=now,
            status=found,
            report=collect(migration, subject=self._subject),
            latencies=latencies,
            latency_points=tuple(self._points),
            pool=self._pool(),
            server=server,
            growth_bytes_per_h=None
            if server is None
            else self._growth_clock.look(server.table_bytes + server.indexes_bytes),
            load=self._load_clock.look(migration) if state == "loading" else None,
            build_left_s=self._build_left_s,
        )

    def _pool(self) -> Mapping[str, int]:
        try:
            return self._migration.link.store().pool_statistics()
        except VectorStoreError:
            return {}

    def _look_at_server(self, state: str) -> Monitoring | None:
        """The server's statistics, asked for now and then; None while it does not answer."""
        from vectorstore.postgres.monitoring import monitor

        if state == "unavailable":
            self._server, self._server_at = None, -SERVER_AGE_S_MAX
            return None
        if time.monotonic() - self._server_at >= SERVER_AGE_S_MAX:
            self._server_at = time.monotonic()
            try:
                self._server = monitor(self._migration.link.store())
                build = self._server.build
                self._build_left_s = (
                    None
                    if build is None
                    else self._build_pace.left_s(build.phase, build.done, build.total)
                )
            except VectorStoreError as error:
                log.debug("server_not_monitored", why=type(error).__name__)
                self._server = None
        return self._server

    def _sample(self, now: float, era: int, latencies: Mapping[str, Buckets]) -> None:
        """Every now and then, what came since the last time gives a point of the latencies' course."""
        if era != self._era:
            self._era, self._counted = era, {}
        if now - self._sampled_at < SAMPLE_S and self._counted:
            return
        for store, buckets in latencies.items():
            before = self._counted.get(store)
            if before is not None:
                fresh = [(ms, n - before.get(ms, 0)) for ms, n in buckets]
                p95_ms = _quantile(fresh)
                if p95_ms is not None:
                    self._points.append(LatencyPoint(now, store, p95_ms))
            self._counted[store] = dict(buckets)
        self._sampled_at = now


def _quantile(buckets: Buckets) -> float | None:
    total = sum(n for _, n in buckets)
    seen = 0
    for ms, n in buckets:
        seen += n
        if total and n and seen >= QUANTILE * total:
            return None if ms == float("inf") else ms
    return None
