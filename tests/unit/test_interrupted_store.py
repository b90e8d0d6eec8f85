"""The FAISS store under handlers of signals that raise: nothing hangs, and nothing is mixed up."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import numpy as np
import pytest

from tests.fakes.interrupts import struck_at
from vectorstore import Filter, Metric, Query, Record, StoreUnavailable
from vectorstore.faiss.gate import Gate
from vectorstore.faiss.store import FaissStore

DIMENSION = 4
ROWS = 12
WAIT_S_MAX = 30.0
# What strikes while a generator is cleared away is told and swallowed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
MAIZE = Filter.of({"crop": "maize"})


def record(name: str, version: int) -> Record:
    seed = int.from_bytes(f"{name}/{version}".encode(), "big")
    vector = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
    return Record(name, vector, f"{name}/{version}", {"crop": "maize"})


def filled(kind: str) -> FaissStore:
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.L2, kind=kind)
    store.upsert([record(f"r{at}", 1) for at in range(ROWS)])
    store.count(MAIZE)
    return store


def changes(store: FaissStore) -> None:
    """One batch that overwrites, adds and adds again; and one that removes."""
    store.upsert([record("r3", 2), record("new", 1), record("r5", 2), record("other", 1)])
    store.delete(["r1", "r5"])


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_a_write_that_was_broken_off_mixes_nothing_up(kind: str) -> None:
    """Each record has its own vector, or the copy says that it is of no use. Others never hang."""
    broken = 0
    with ThreadPoolExecutor(1) as another:
        for number in count(1):
            store = filled(kind)
            struck = struck_at(number, lambda store=store: changes(store))  # type: ignore[misc]
            if store.broken:
                broken += 1
                with pytest.raises(StoreUnavailable, match="broken off"):
                    another.submit(store.search, Query(record("r3", 1).embedding, 3)).result(
                        WAIT_S_MAX
                    )
                with pytest.raises(StoreUnavailable, match="broken off"):
                    another.submit(store.upsert, [record("late", 1)]).result(WAIT_S_MAX)
                with pytest.raises(StoreUnavailable, match="broken off"), store.frozen():
                    pass
                continue
            another.submit(store.upsert, [record("late", 1)]).result(WAIT_S_MAX)
            held = another.submit(store.scan).result(WAIT_S_MAX)
            assert store.count(MAIZE) == len(held)
            for one in held:
                expected = record(one.id, int(one.text[-1]))
                np.testing.assert_array_equal(one.embedding, expected.embedding)
                near = another.submit(store.search, Query(one.embedding, 1)).result(WAIT_S_MAX)
                assert near.hits[0].id == one.id
            if not struck:
                break
    assert broken > 5


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.search(Query(record("r3", 1).embedding, 3)),
        lambda store: store.search(Query(record("r3", 1).embedding, 3, MAIZE)),
        lambda store: store.search_exact(Query(record("r3", 1).embedding, 3)),
        lambda store: store.search_many([Query(record("r3", 1).embedding, 3)] * 2),
        lambda store: store.count(Filter.of({"crop": "beans"})),
        lambda store: store.get(["r1"]),
    ],
)
def test_a_read_that_was_broken_off_holds_nobody_up(ask: Callable[[FaissStore], object]) -> None:
    """A writer after it gets in, and so does a reader."""
    with ThreadPoolExecutor(1) as another:
        for number in count(1):
            store = filled("flat")
            struck = struck_at(number, lambda store=store: ask(store))  # type: ignore[misc]
            assert another.submit(store.upsert, [record("late", 1)]).result(WAIT_S_MAX) == ROWS + 1
            assert another.submit(store.count).result(WAIT_S_MAX) == ROWS + 1
            if not struck:
                break
        assert number > 10


def test_a_reader_that_waits_for_a_writer_may_be_broken_off() -> None:
    """Whoever waits behind a closed gate leaves nothing behind."""
    with ThreadPoolExecutor(2) as others:
        for number in count(1):
            gate = Gate()
            gate._closed = True
            struck = struck_at(number, lambda gate=gate: gate.read(lambda: None))  # type: ignore[misc]
            gate._closed = False
            others.submit(gate.alone, lambda: None).result(WAIT_S_MAX)
            if not struck:
                break
        assert number > 5
