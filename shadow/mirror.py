"""Queries mirrored to the store that does not answer, off the reader's path.

The reader pays for a draw, a copy of the vector and an append to a queue that never blocks. One thread
takes observations in order, in small batches; what it takes is written down before it is worked on, so
that what fails, or dies with its process, is counted as missed. A full queue drops, and counts what it
drops; so does a thread that cannot write down what it took.
"""

from __future__ import annotations

import math
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from shadow.asking_process import AskingProcess
from shadow.config import MirrorSettings
from shadow.core.phases import FAISS, POSTGRESQL, Route
from shadow.events import EventLog
from shadow.evidence import EvidenceBook, Observed
from shadow.mirror_budget import Budget
from shadow.observation import Observation, copied
from vectorstore.types import Answer, Query

__all__ = ["Mirror"]

# Small, so that little can be lost with a process, and the gate is not held back by what is under way.
BATCH_MAX = 16
# One wake-up and one transaction for the queries of a moment: each wake-up contends with the readers.
GATHER_S = 0.25
# After each comparison, for readers who wait for their turn: Python runs one thread at a time, and a batch
# judged at a stretch keeps them waiting for all of it.
BREATH_S = 0.0001
# What could not be told is told with the next batch, or after this time if none comes.
TELL_AGAIN_S = 1.0

log = EventLog()


JudgeBatch = Callable[[Sequence[Observation]], Iterable[Observed]]


class Mirror:
    """A bounded queue, a thread, and a budget.

    ``judge`` asks the other store and compares, one after the other as they are taken from it; ``era`` gives the era in force;
    ``watch_means`` the means below which the change detectors look; ``keep`` may capture queries;
    ``asking`` is started when the mirror has been busy for a while, and is part of its budget.
    """

    def __init__(
        self,
        *,
        evidence: EvidenceBook,
        judge: JudgeBatch,
        era: Callable[[], int],
        watch_means: dict[str, float],
        settings: MirrorSettings,
        keep: Callable[[Sequence[Query]], None] | None = None,
        asking: AskingProcess | None = None,
    ) -> None:
        self._evidence = evidence
        self._keep = keep
        self._asking = asking
        self._judge = judge
        self._era = era
        self._watch_means = watch_means
        self._settings = settings
        self._queue: queue.SimpleQueue[Observation | None] = queue.SimpleQueue()
        self._share = 1.0
        self._offered = 0
        self._offered_told = 0
        # Not told yet, by the store that they were to judge.
        self._dropped = Counter({FAISS: 0, POSTGRESQL: 0})
        self._counting = threading.Lock()
        self._begun = False
        self._stopping = False
        self._abandoned = False
        self._shadow_answers = True
        # Set when there is no more to wait for before a batch is taken.
        self._gathered = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._run, name="shadow-mirror", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def begin(self) -> None:
        """Sample from now on: the first attempt to reach PostgreSQL has ended, well or badly.

        What is asked before that, while a process starts, says nothing of a store.
        """
        self._begun = True

    def samples(self, route: Route) -> bool:
        """Whether to mirror the query that is about to run under this route.

        Decided before it runs and for each occurrence by itself, so that neither the answer, nor its
        latency, nor how often a query was seen before can bend the sample.
        """
        if not (self._begun and route.mirrors):
            return False
        self._offered += 1
        # Drawn first: of a busy process most queries end here, and this is on the path of all of them.
        if random.random() >= route.mirror_rate * self._share:  # noqa: S311 - a sample, not a secret
            return False
        # A shadow that answers and is merely asked too much is asked less, whatever the query. One that
        # does not answer goes on to fill the queue: what is dropped counts against it.
        crowded = 2 * self._queue.qsize() >= self._settings.queue_size_max
        return not (crowded and self._shadow_answers)

    def offer(self, route: Route, query: Query, answer: Answer, latency_ms: float) -> None:
        """Leave an answered query for the mirror. Never blocks, never raises."""
        self._put(
            Observation(
                route,
                copied(query),
                answer.store,
                tuple(answer.hits),
                latency_ms,
                answer.applied_seq,
                time.time(),
            )
        )

    def offer_failure(self, route: Route, query: Query, failed: str) -> None:
        """Leave word that the store that should have answered did not."""
        self._put(Observation(route, copied(query), failed, None, math.inf, 0, time.time()))

    def _put(self, observation: Observation) -> None:
        if self._queue.qsize() >= self._settings.queue_size_max:
            self._drop([observation.judged])
            return
        self._idle.clear()
        self._queue.put(observation)
        if self._queue.qsize() >= BATCH_MAX and not self._gathered.is_set():
            self._gathered.set()

    def _drop(self, judged: Iterable[str]) -> None:
        # Held for an addition: a count that two readers make at once must not lose one of them.
        with self._counting:
            self._dropped.update(judged)

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything offered has been recorded; false if that took too long."""
        self._gathered.set()
        return self._idle.wait(timeout_s)

    def close(self) -> None:
        """Record what is queued, for a moment, and stop the thread."""
        self._stopping = True
        self.drain(self._settings.timeout_ms / 1e3)
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(self._settings.timeout_ms / 1e3 + 1.0)
        # What is still queued after that has no place to be recorded any more: it was dropped.
        self._abandoned = True
        with suppress(queue.Empty):
            while True:
                if (left := self._queue.get_nowait()) is not None:
                    self._drop([left.judged])
        if any(self._dropped.values()):
            try:
                self._issue([])
            except Exception as error:  # noqa: BLE001 - evidence may be lost, closing goes on
                log.error("mirror_failed", error=f"{type(error).__name__}: {error}")

    def _run(self) -> None:
        budget = Budget(self._settings.cpu_share_max, self._asking)
        while True:
            batch, stop = self._take()
            if self._abandoned:
                return
            if batch or any(self._dropped.values()):
                try:
                    self._work(batch)
                except Exception as error:  # noqa: BLE001 - evidence may be lost, the thread may not
                    if self._abandoned:
                        return
                    log.error("mirror_failed", error=f"{type(error).__name__}: {error}")
            if self._queue.empty():
                self._idle.set()
            if stop:
                return
            self._share = budget.rate()
            if self._asking and budget.is_busy and batch and batch[-1].judged == POSTGRESQL:
                self._asking.start()

    def _take(self) -> tuple[list[Observation], bool]:
        try:
            first = self._queue.get(timeout=TELL_AGAIN_S if any(self._dropped.values()) else None)
        except queue.Empty:
            return [], False
        if first is None:
            return [], True
        if self._queue.qsize() < BATCH_MAX - 1 and not self._stopping:
            self._gathered.wait(GATHER_S)
        self._gathered.clear()
        batch = [first]
        while len(batch) < BATCH_MAX:
            try:
                more = self._queue.get_nowait()
            except queue.Empty:
                break
            if more is None:
                return batch, True
            batch.append(more)
        return batch, False

    def _work(self, batch: list[Observation]) -> None:
        era = self._issue(batch)
        if not batch:
            return
        results = []
        for one in self._judge(batch):
            results.append(one)
            if not self._stopping:
                time.sleep(BREATH_S)
        self._shadow_answers = all(one.figures.get("success", 1.0) > 0.0 for one in results)
        for figure in self._evidence.record(era, results, watch_means=self._watch_means):
            log.warning("change_alarm", store=POSTGRESQL, figure=figure)
        self._tell(era, results)
        if self._keep is not None:
            self._keep([observation.query for observation in batch])

    def _issue(self, batch: Sequence[Observation]) -> int:
        """Write down what is about to be worked on and what was dropped; return the era of both.

        What cannot be written down is not worked on: it is dropped, and told when that is possible.
        """
        # A batch may straddle a flip: each observation is issued to the store that it judges.
        untold = Counter(observation.judged for observation in batch)
        try:
            era = self._era()
            for judged in dict.fromkeys((*untold, POSTGRESQL, FAISS)):
                issued, dropped = untold[judged], self._dropped[judged]
                if not issued and not dropped:
                    continue
                offered = self._offered - self._offered_told
                self._evidence.tally(
                    era,
                    judged,
                    offered=offered,
                    sampled=issued + dropped,
                    dropped=dropped,
                    issued=issued,
                )
                # Only now: what could not be written down is told with the next batch.
                self._offered_told += offered
                with self._counting:
                    self._dropped[judged] -= dropped
                del untold[judged]
        except BaseException:
            self._drop(untold.elements())
            raise
        return era

    def _tell(self, era: int, results: Sequence[Observed]) -> None:
        if self._settings.events == "each":
            for one in results:
                log.info(
                    "comparison",
                    era=era,
                    judged=one.judged,
                    **{name: round(value, 4) for name, value in one.figures.items()},
                    **{f"{name}_ms": round(ms, 3) for name, ms in one.latencies_ms.items()},
                    strata=one.strata,
                    causes=dict(one.causes),
                )
        elif self._settings.events == "aggregated":
            recalls = [one.figures["recall"] for one in results if "recall" in one.figures]
            log.info(
                "comparisons",
                era=era,
                n=len(results),
                recall=round(sum(recalls) / len(recalls), 4) if recalls else None,
            )
