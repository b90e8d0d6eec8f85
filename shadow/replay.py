"""Queries run against both stores at once, for a report in minutes where traffic is thin.

They come from a file or from what was captured. Their evidence is kept apart from the live one: it shows
what a verdict would be, and flips nothing. A run replaces what the run before it left.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from shadow.core.phases import FAISS
from shadow.evidence import Observed
from shadow.evidence_view import REPLAY
from shadow.exact_scans import Stores
from shadow.judging import QueryJudge
from shadow.observation import Observation
from shadow.opening import Migration
from shadow.verification import nothing_to_compare
from vectorstore.errors import InvalidInput, StoreUnavailable
from vectorstore.filters import Filter
from vectorstore.port import Replica
from vectorstore.types import Query
from vectorstore.validation import query_vector

__all__ = ["Embed", "Replayed", "queries_of_file", "questions_of_file", "replay"]

BATCH = 64
WARM_UP_MAX = 32
# Python's whole numbers have no end, and those of a vector do.
WHOLE_NUMBER_END = 1 << 127
QUERIES_MAX = 1_000_000

Embed = Callable[[Sequence[str]], Any]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a run did: queries compared, in which era, in what time."""

    queries: int
    era: int
    seconds: float


def queries_of_file(path: Path, *, k: int, embed: Embed | None = None) -> list[Query]:
    """The queries of a ``.npy`` (n, d) or of a ``.jsonl`` with a query on each line.

    A line is an object with ``vector``, or ``text`` to be embedded by ``embed``, and optionally ``k``,
    ``filter`` and ``label``. Raises InvalidInput naming the line. A pickle inside a .npy is refused.
    """
    try:
        if path.suffix == ".npy":
            found = list(_of_array(path, k))
        elif path.suffix == ".jsonl":
            found = _of_lines(path, k, embed)
        else:
            raise InvalidInput(f"{path}: a file of queries ends in .npy or .jsonl")
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    if not found:
        raise InvalidInput(f"{path} holds no query")
    return found


def questions_of_file(path: Path) -> list[str]:
    """The questions in words of a ``.jsonl``, an object with ``text`` on each line; else InvalidInput."""
    try:
        lines = _lines(path)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    questions = [line["text"] for line in lines if "text" in line]
    if not questions or len(questions) < len(lines):
        raise InvalidInput(
            f"{path}: each line must have a `text`: vectors belong to one model only"
        )
    return questions


def replay(
    migration: Migration,
    queries: Sequence[Query],
    *,
    concurrency: int = 1,
    on_done: Callable[[int], None] | None = None,
) -> Replayed:
    """Run ``queries`` against FAISS and PostgreSQL, ``concurrency`` at a time, and keep the evidence.

    Every divergence is adjudicated. Raises InvalidInput for a query that no store takes, StoreUnavailable
    while PostgreSQL holds no copy (what it lacks then is no divergence) and once the migration is final,
    and what the stores raise when they cannot be reached at all.
    """
    if concurrency > migration.settings.postgresql.pool_size_max:
        raise InvalidInput(
            f"concurrency is {concurrency}, and a process may hold "
            f"{migration.settings.postgresql.pool_size_max} connections: raise "
            "postgresql.pool_size_max or lower it"
        )
    for query in queries:
        query_vector(query, dimension=migration.dimension, metric=migration.metric)
    if (refused := nothing_to_compare(migration)) is not None:
        raise StoreUnavailable(f"nothing was replayed: {refused.why}")
    store = migration.link.open()
    faiss = migration.load_faiss()
    era = migration.look_at_era(faiss.store).number
    judge = QueryJudge(
        stores=Stores(faiss=lambda: faiss.store, postgresql=lambda: store),
        journal=migration.journal,
        metric=migration.metric,
        mirror=migration.settings.mirror,
        gate=migration.settings.gate,
        adjudications_per_s_max=math.inf,
    )
    route = migration.routes.current()

    def one(query: Query) -> Observed:
        started = time.perf_counter()
        answer = faiss.store.search(query)
        latency_ms = (time.perf_counter() - started) * 1e3
        return judge.judge(
            Observation(
                route, query, FAISS, tuple(answer.hits), latency_ms, answer.applied_seq, time.time()
            )
        )

    # Cold caches and first connections are no property of a store.
    warm_up = queries[:WARM_UP_MAX]
    both: tuple[Replica, Replica] = (faiss.store, store)
    for query in warm_up:
        for each in both:
            each.search(query)
    migration.evidence.clear_replay(era)
    started = time.monotonic()
    done = 0
    with ThreadPoolExecutor(concurrency, thread_name_prefix="shadow-replay") as pool:
        for batch in _batches(queries):
            migration.evidence.record(
                era, list(pool.map(one, batch)), source=REPLAY, watch_means={}
            )
            done += len(batch)
            if on_done is not None:
                on_done(done)
    return Replayed(done, era, time.monotonic() - started)


def _batches(queries: Sequence[Query]) -> Iterator[list[Query]]:
    rest = iter(queries)
    while batch := list(itertools.islice(rest, BATCH)):
        yield batch


def _of_array(path: Path, k: int) -> Iterator[Query]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("several arrays")
    except (ValueError, EOFError, BadZipFile) as error:
        # NumPy's own words advise to let a pickle run.
        raise InvalidInput(
            f"{path} is no plain array of numbers: save one with numpy.save, of floats and of shape "
            "(queries, dimension)"
        ) from error
    if array.ndim != 2 or array.dtype.kind not in "fiu" or len(array) > QUERIES_MAX:
        raise InvalidInput(
            f"{path} holds {array.dtype} of shape {array.shape}; it must be numbers of shape "
            f"(queries, dimension), at most {QUERIES_MAX:,} queries"
        )
    return (Query(np.array(row, dtype=np.float32), k) for row in array)


def _lines(path: Path) -> list[Mapping[str, Any]]:
    lines: list[Mapping[str, Any]] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, start=1):
                if not text.strip():
                    continue
                if len(lines) >= QUERIES_MAX:
                    raise InvalidInput(f"{path} has more than {QUERIES_MAX:,} queries: split it")
                lines.append(_line(path, number, text))
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not text in UTF-8: {error.reason}") from error
    return lines


def _of_lines(path: Path, k: int, embed: Embed | None) -> list[Query]:
    lines = _lines(path)
    texts = [line["text"] for line in lines if "vector" not in line]
    if texts and embed is None:
        raise InvalidInput(
            f"{path} holds texts, which an embedding model must turn into vectors first: give "
            "--embedder NAME"
        )
    vectors = iter(embed(texts) if texts and embed is not None else ())
    return [
        Query(
            np.asarray(line["vector"] if "vector" in line else next(vectors), dtype=np.float32),
            line.get("k", k),
            Filter.of(line.get("filter") or {}),
            label=line.get("label"),
        )
        for line in lines
    ]


def _line(path: Path, number: int, text: str) -> Mapping[str, Any]:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path}, line {number}: not JSON: {error}") from error
    problem = None
    if not isinstance(line, dict) or not ("vector" in line or isinstance(line.get("text"), str)):
        problem = "it must be an object with `vector` or `text`"
    elif "vector" in line and not _is_vector(line["vector"]):
        problem = "`vector` must be a list of numbers"
    elif not isinstance(line.get("k", 1), int) or not isinstance(line.get("filter") or {}, dict):
        problem = "`k` must be a whole number and `filter` an object"
    elif not isinstance(line.get("label"), str | None):
        problem = "`label` must be text"
    if problem is not None:
        raise InvalidInput(f"{path}, line {number}: {problem}")
    found: Mapping[str, Any] = line
    return found


def _is_vector(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, float) or (type(one) is int and abs(one) < WHOLE_NUMBER_END)
        for one in value
    )
