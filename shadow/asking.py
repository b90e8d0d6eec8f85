"""Asks the store that did not answer a query what it would have answered.

PostgreSQL is asked through the mirror's own process while there is one; whatever that leaves, and FAISS,
is asked from the thread that calls. A failure counts the same, whoever asked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from shadow.asking_process import Asked, AskingProcess
from shadow.breaker import Breaker
from shadow.core.phases import FAISS, POSTGRESQL
from shadow.exact_scans import Stores
from vectorstore.errors import StoreUnavailable
from vectorstore.types import Answer, Query

__all__ = ["Asker"]

# A store that is away costs a connection attempt or a whole timeout for each query, which the readers
# beside it would feel. Left alone, it misses each query all the same.
FAILURES_MAX = 5
PAUSE_MS = 1_000.0


class Asker:
    """Asks within ``timeout_ms`` a query. For one thread at a time, or without a ``process``."""

    def __init__(
        self, stores: Stores, *, timeout_ms: float, process: AskingProcess | None = None
    ) -> None:
        self._stores = stores
        self._timeout_ms = timeout_ms
        self._process = process
        self._breakers = {
            name: Breaker(failures_max=FAILURES_MAX, pause_ms=PAUSE_MS)
            for name in (FAISS, POSTGRESQL)
        }
        self._last_failure: dict[str, type[StoreUnavailable]] = {}

    def ask(self, name: str, query: Query) -> Asked:
        """Ask one store from this thread; what fails is in what is returned."""
        if not self._breakers[name].allows():
            # Counted as what it would have met: an error, or no answer in time.
            left_alone = self._last_failure[name](f"{name} failed repeatedly and is left alone")
            return Asked(left_alone, math.inf, left_alone=True)
        started = time.perf_counter()
        outcome: Answer | Exception
        try:
            outcome = self._stores.by_name(name).search(self._with_deadline(query))
        except Exception as error:  # noqa: BLE001 - whatever fails the shadow is a miss, and evidence
            outcome = error
        latency_ms = (time.perf_counter() - started) * 1e3
        self._note(name, outcome)
        return Asked(outcome, latency_ms)

    def ask_ahead(self, queries: Sequence[Query]) -> Iterator[Asked]:
        """What the process answers of queries to PostgreSQL: the first ones, in order, maybe none."""
        if self._process is None or not queries or self._breakers[POSTGRESQL].is_open:
            return
        for asked in self._process.ask([self._with_deadline(query) for query in queries]):
            self._note(POSTGRESQL, asked.outcome)
            yield asked

    def _with_deadline(self, query: Query) -> Query:
        return replace(query, timeout_ms=self._timeout_ms)

    def _note(self, name: str, outcome: Answer | Exception) -> None:
        if isinstance(outcome, Answer):
            self._breakers[name].succeeded()
        elif isinstance(outcome, StoreUnavailable):
            self._last_failure[name] = type(outcome)
            self._breakers[name].failed()
