"""A FAISS index is rebuilt, and its snapshot written, while searches and writes go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from vectorstore import Metric, Query, Record, StoreUnavailable
from vectorstore.faiss import guarded, snapshot
from vectorstore.faiss.guarded import APPLY_BLOCK
from vectorstore.faiss.index import IVF_TRAINING_ROWS, RowIndex
from vectorstore.faiss.store import FaissStore

DIMENSION = 8
DEADLINE_S = 20.0
ROWS = np.random.default_rng(6).normal(size=(IVF_TRAINING_ROWS + 100, DIMENSION)).astype(np.float32)


def record(at: int, text: str = "first", **metadata: Any) -> Record:
    return Record(f"r{at:04d}", ROWS[at], text, metadata or {"n": at})


def filled(kind: str) -> FaissStore:
    """A store with 20 tombstones."""
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.COSINE, kind=kind)
    store.upsert([record(at) for at in range(IVF_TRAINING_ROWS if kind == "ivf" else 300)])
    store.upsert([record(at, "second") for at in range(20)])
    return store


def test_a_breadth_that_is_set_meanwhile_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The index that is built aside has that of the beginning."""
    store = filled("hnsw")
    build = guarded.compacted

    def built(hold: Any) -> Any:
        fresh = build(hold)
        store.set_breadth(77)
        return fresh

    monkeypatch.setattr(guarded, "compacted", built)
    assert store.compact() == 20
    assert store.describe()["ef_search"] == 77


class Halt:
    """A place where one thread stops, until the test lets it go on."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._on = threading.Event()

    def here(self) -> None:
        self._reached.set()
        assert self._on.wait(DEADLINE_S)

    @contextmanager
    def held(self, work: Callable[[], Any]) -> Iterator[None]:
        """Do the block while ``work`` stands at this place in another thread; then wait for its end."""
        failures: list[BaseException] = []

        def run() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)
                self._reached.set()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            assert self._reached.wait(DEADLINE_S)
            yield
        finally:
            self._on.set()
            thread.join(DEADLINE_S)
        assert not thread.is_alive()
        if failures:
            raise failures[0]


def within_deadline(work: Callable[[], Any]) -> None:
    """``work`` in a thread of its own, which must come to an end whoever stands still."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(DEADLINE_S / 2)
    assert not thread.is_alive(), "it waits for what stands still"


def halting_append(monkeypatch: pytest.MonkeyPatch) -> Halt:
    """Where rows come to an index, for the first time from now on."""
    halt, append, first = Halt(), RowIndex.append, [True]

    def halted(index: RowIndex, block: Any) -> None:
        if first.pop() if first else False:
            halt.here()
        append(index, block)

    monkeypatch.setattr(RowIndex, "append", halted)
    return halt


def write(store: FaissStore) -> None:
    """Overwrite, delete, bring back and add, and more than goes over in one block."""
    store.upsert([record(1, "third"), record(299, "third"), Record("new", ROWS[-1], "new", {})])
    store.delete(["r0002", "r0003"])
    store.upsert([record(3, "back")])
    store.upsert([record(at, "many") for at in range(30, 60 + APPLY_BLOCK)])
    store.search(Query(ROWS[0], k=3))


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_writes_and_searches_go_on_during_a_compaction(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the new index is built nobody waits, and all that was written is in it afterwards."""
    store = filled(kind)
    halt = halting_append(monkeypatch)
    dead: list[int] = []
    with halt.held(lambda: dead.append(store.compact())):
        within_deadline(lambda: write(store))
        expected = {one.id: one for one in store.records(0, 9_999)}
        seq = store.applied_seq()
    assert dead == [20]
    # The rows that had been copied when they were written again or deleted.
    assert store.describe()["tombstones"] == 34 + APPLY_BLOCK
    found = {one.id: one for one in store.records(0, 9_999)}
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        other = found[name]
        assert (other.text, other.metadata, other.seq) == (one.text, one.metadata, one.seq)
        assert other.embedding.tobytes() == one.embedding.tobytes()
    assert [hit.id for hit in store.search(Query(ROWS[-1], k=1)).hits] == ["new"]
    assert store.get(["r0002"]) == []
    assert store.applied_seq() == seq


def test_a_store_that_is_closed_during_a_compaction_stays_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rebuild ends with an error, and what it built is not put in place."""
    store = filled("hnsw")
    halt = halting_append(monkeypatch)
    with pytest.raises(StoreUnavailable, match="closed"), halt.held(store.compact):
        within_deadline(store.close)
    with pytest.raises(StoreUnavailable, match="closed"):
        store.count()


def test_a_compaction_that_fails_leaves_all_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory for the new index: the old one answers, is written to, and is rebuilt the next time."""
    store = filled("hnsw")

    def no_memory(index: RowIndex, rows: int) -> None:
        raise MemoryError(f"{rows} rows")

    with monkeypatch.context() as patched:
        patched.setattr(RowIndex, "reserve", no_memory)
        with pytest.raises(MemoryError):
            store.compact()
    write(store)
    assert store.compact() > 20
    assert store.get(["r0003"])[0].text == "back"


@pytest.mark.parametrize("place", ["encoding", "checksum"])
def test_writes_and_searches_go_on_while_a_snapshot_is_written(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the index is in its file nobody waits for the encoding, the flushing and the checksums;
    and the snapshot is of the moment before."""
    store = filled("hnsw")
    seq, halt = store.applied_seq(), Halt()
    owner: Any = orjson if place == "encoding" else snapshot
    name = "dumps" if place == "encoding" else "file_sum"
    real, first = getattr(owner, name), [True]

    def halted(*arguments: Any, **options: Any) -> Any:
        if first.pop() if first else False:
            halt.here()
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, halted)
    paths: list[Path] = []
    with halt.held(
        lambda: paths.append(snapshot.write_snapshot(store, tmp_path, incarnation="one"))
    ):
        within_deadline(lambda: write(store))
    loaded = snapshot.load_snapshot(paths[0])
    assert loaded.applied_seq() == seq < store.applied_seq()
    assert [one.text for one in loaded.get(["r0001", "r0002", "r0299"])] == [
        "second",
        "second",
        "first",
    ]
    assert loaded.get(["new"]) == []
