"""A process that asks PostgreSQL for the mirror: ``python -m shadow.asking_worker``.

Started by :mod:`shadow.asking_process`. On standard input it is told the store's settings and for how long to
wait for queries (one line of JSON), then batch after batch (a line of JSON, followed by the vectors as
float32); on standard output it says that it is ready and answers each batch with a line. A batch ends
with its first failure. The process ends when its parent is gone, or when it has waited long enough.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from typing import Any, BinaryIO

import numpy as np

from vectorstore.errors import VectorStoreError
from vectorstore.filters import Filter
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Metric, Query

__all__ = ["TEXT_EXCERPT_MAX", "main"]

# As much of a text as the list of the worst queries shows.
TEXT_EXCERPT_MAX = 160


def main() -> int:
    """Answer batches until there is nobody to answer; return the exit code."""
    # Ctrl-C reaches the whole group of processes; whoever started this one decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Replies alone may reach the parent, whatever a library prints.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        told = json.loads(sys.stdin.buffer.readline() or b"null")
        if told is None:
            return 0
        settings = {**told["settings"], "metric": Metric(told["settings"]["metric"])}
        store = PostgresStore.open(
            PostgresSettings(**{**settings, "pool_size_min": 1, "pool_size_max": 1})
        )
    except VectorStoreError as error:
        _tell(replies, {"error": type(error).__name__, "why": str(error)})
        return 1
    try:
        _tell(replies, {"ready": True})
        # Nothing is asked while a batch is under way, so nothing waits in the buffer here.
        while select.select([sys.stdin], [], [], told["idle_s"])[0]:
            line = sys.stdin.buffer.readline()
            if not line:
                return 0
            batch = json.loads(line)
            _tell(replies, {"asked": _asked(store, batch), "cpu_s": time.process_time()})
    except BrokenPipeError:
        pass
    finally:
        store.close()
    return 0


def _asked(store: PostgresStore, batch: dict[str, Any]) -> list[dict[str, Any]]:
    queries, dimension = batch["queries"], batch["dimension"]
    data = sys.stdin.buffer.read(4 * dimension * len(queries))
    vectors = np.frombuffer(data, dtype=np.float32).reshape(len(queries), dimension)
    found: list[dict[str, Any]] = []
    for vector, told in zip(vectors, queries, strict=True):
        query = Query(
            vector, told["k"], Filter.of(told["filter"] or {}), timeout_ms=told["timeout_ms"]
        )
        started = time.perf_counter()
        try:
            answer = store.search(query)
        except VectorStoreError as error:
            ms = (time.perf_counter() - started) * 1e3
            found.append({"ms": ms, "error": type(error).__name__, "why": str(error)})
            break
        ms = (time.perf_counter() - started) * 1e3
        hits = [(hit.id, hit.score, hit.text[:TEXT_EXCERPT_MAX], hit.seq) for hit in answer.hits]
        found.append({"ms": ms, "seq": answer.applied_seq, "hits": hits})
    return found


def _tell(replies: BinaryIO, reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply).encode() + b"\n")
    replies.flush()


if __name__ == "__main__":
    sys.exit(main())
