"""Asks PostgreSQL the mirrored queries from a process of its own.

Python runs one thread at a time. A mirror that asks PostgreSQL hundreds of times a second from a thread
stands in the readers' way each time it encodes a query and reads an answer; a process of its own does
not, and the latencies that it measures are PostgreSQL's alone. It costs some 50 MB, so it is started
only for a mirror that is busy, and it ends by itself when nothing is asked for a while. Whatever it
does not answer, the mirror asks from its thread.
"""

from __future__ import annotations

import json
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from shadow.core.phases import POSTGRESQL
from shadow.events import EventLog
from vectorstore import errors
from vectorstore.errors import StoreUnavailable
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.remote.wire import filter_to_wire
from vectorstore.types import Answer, Hit, Query

__all__ = ["Asked", "AskingProcess"]

# What a batch may take beyond the deadlines of its queries before the process counts as stuck.
GRACE_S = 5.0
# After so long without a query the process ends.
IDLE_S = 60.0
# After a process that ended without having answered, and how often in a row it is tried.
PAUSE_S = 30.0
STARTS_MAX = 3

log = EventLog()


class Asked(NamedTuple):
    """What came of one query: an answer or an error, and the milliseconds it took."""

    outcome: Answer | Exception
    latency_ms: float
    # The store failed repeatedly and was not asked: it counts as having failed again.
    left_alone: bool = False


class AskingProcess:
    """The process, when there is one. ``start`` and ``ask`` belong to one thread.

    ``settings``: of the store to ask; may raise StoreUnavailable while there is none. ``idle_s``:
    after so long without a query it ends. ``grace_s``: how long a batch may take beyond the deadlines
    of its queries before the process counts as stuck.
    """

    def __init__(
        self,
        settings: Callable[[], PostgresSettings],
        *,
        idle_s: float = IDLE_S,
        grace_s: float = GRACE_S,
    ) -> None:
        self._settings = settings
        self._idle_s = idle_s
        self._grace_s = grace_s
        self._lock = threading.Lock()
        self._closed = False
        self._running: _Running | None = None
        self._starts = 0
        self._not_before = 0.0
        self._cpu_s = 0.0

    @property
    def cpu_s(self) -> float:
        """Processor seconds used so far by this process and those before it."""
        running = self._running
        return self._cpu_s + (running.cpu_s if running else 0.0)

    def start(self) -> None:
        """Start the process unless it runs, was tried too often, or PostgreSQL is away. Waits for nothing."""
        if self._running is not None or self._starts >= STARTS_MAX:
            return
        if time.monotonic() < self._not_before:
            return
        try:
            settings = self._settings()
        except StoreUnavailable:
            return
        self._starts += 1
        with self._lock:
            if self._closed:
                return
            try:
                self._running = _Running(settings, self._idle_s, self._grace_s)
            except OSError as error:
                self._not_before = time.monotonic() + PAUSE_S
                log.warning("mirror_process_failed", error=f"{type(error).__name__}: {error}")

    def ask(self, queries: Sequence[Query]) -> list[Asked]:
        """What came of the first queries, in order, up to and with the first that failed.

        Of the hits only the beginning of the text is sent back, and no metadata. Empty while there is
        no process that is ready. Each query must have a deadline.
        """
        running = self._running
        if running is None:
            return []
        try:
            if running.settings != self._settings():
                self._end("the store's settings changed", expected=True)
                return []
            if not running.is_ready():
                return []
            asked = running.ask(queries)
        except StoreUnavailable:
            return []
        except _Ended as ended:
            self._end(str(ended), expected=ended.expected)
            return []
        except Exception as error:  # noqa: BLE001 - what fails here is no failure of a query
            self._end(f"{type(error).__name__}: {error}", expected=False)
            return []
        self._starts = 0
        return asked

    def close(self) -> None:
        """End the process, for good."""
        with self._lock:
            self._closed = True
        self._end("the router was closed", expected=True)

    def _end(self, why: str, *, expected: bool) -> None:
        with self._lock:
            running, self._running = self._running, None
        if running is None:
            return
        self._cpu_s += running.cpu_s
        running.end()
        if not expected:
            self._not_before = time.monotonic() + PAUSE_S
            log.warning("mirror_process_ended", error=why)


class _Ended(Exception):
    """The process is gone or is of no use any more; ``expected`` if it had nothing to do."""

    def __init__(self, why: str, *, expected: bool = False) -> None:
        super().__init__(why)
        self.expected = expected


class _Running:
    """One process and the socket to it."""

    def __init__(self, settings: PostgresSettings, idle_s: float, grace_s: float) -> None:
        self.settings = settings
        self.cpu_s = 0.0
        self._grace_s = grace_s
        self._ready = False
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "shadow.asking_worker"],
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    # What it has to say it says on the socket.
                    stderr=subprocess.DEVNULL,
                )
            except OSError:
                ours.close()
                raise
        self._socket = ours
        self._replies = ours.makefile("rb")
        ours.settimeout(grace_s)
        # A process that has died already is met when it does not answer.
        with suppress(OSError):
            told = {"settings": asdict(settings), "idle_s": idle_s}
            ours.sendall(json.dumps(told).encode() + b"\n")

    def is_ready(self) -> bool:
        """Whether it has connected; never waits. Raises _Ended if it is gone."""
        if not self._ready and self._has_said_something():
            self._reply()
            self._ready = True
            log.info("mirror_process_started", pid=self._process.pid)
        return self._ready

    def _has_said_something(self) -> bool:
        # Not select(): that takes no file above the 1,024th, which a server with many clients has open.
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            return bool(selector.select(0))

    def ask(self, queries: Sequence[Query]) -> list[Asked]:
        """One batch; raises _Ended if the process does not answer."""
        vectors = np.stack([query.vector for query in queries]).astype(np.float32, copy=False)
        batch = {
            "dimension": vectors.shape[1],
            "queries": [
                {
                    "k": query.k,
                    "filter": filter_to_wire(query.filter),
                    "timeout_ms": query.timeout_ms,
                }
                for query in queries
            ],
        }
        longest_s = sum(query.timeout_ms or 0.0 for query in queries) / 1e3 + self._grace_s
        try:
            self._socket.settimeout(longest_s)
            self._socket.sendall(json.dumps(batch).encode() + b"\n" + vectors.tobytes())
        except OSError as error:
            raise _Ended(f"it took no query: {error}", expected=self._left_alone()) from error
        reply = self._reply()
        self.cpu_s = reply["cpu_s"]
        return [_asked(one) for one in reply["asked"]]

    def end(self) -> None:
        """Stop the process; one that is at work is not waited for."""
        self._process.kill()
        self._process.wait()
        # The thread that asks may still be reading: shutting down wakes it, closing would not.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _reply(self) -> dict[str, Any]:
        try:
            line = self._replies.readline()
        except (OSError, ValueError) as error:
            raise _Ended(f"it did not answer: {error}") from error
        if not line.endswith(b"\n"):
            raise _Ended("it ended without an answer", expected=self._left_alone())
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise _Ended(f"{reply['error']}: {reply['why']}")
        return reply

    def _left_alone(self) -> bool:
        """Whether it has ended by itself because nothing was asked."""
        try:
            return self._process.wait(self._grace_s) == 0
        except subprocess.TimeoutExpired:
            return False


def _asked(told: dict[str, Any]) -> Asked:
    if "error" in told:
        kind = getattr(errors, told["error"], StoreUnavailable)
        return Asked(kind(told["why"]), told["ms"])
    hits = [Hit(name, score, text, {}, seq) for name, score, text, seq in told["hits"]]
    return Asked(Answer(hits, POSTGRESQL, told["seq"]), told["ms"])
