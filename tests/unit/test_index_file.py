"""A snapshot is of one moment, byte for byte, and writes go on while it is made."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from vectorstore import Metric, Record
from vectorstore.faiss.gate import Gate
from vectorstore.faiss.index import IVF_TRAINING_ROWS
from vectorstore.faiss.snapshot import INDEX_NAME, load_snapshot, write_snapshot
from vectorstore.faiss.store import FaissStore

DIMENSION = 4
KINDS = ("flat", "hnsw", "ivf")

State = dict[str, tuple[int, bytes, str]]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows a block, so that a few rows are many."""
    monkeypatch.setattr("vectorstore.faiss.index_file.BLOCK_BYTES", 2 * 4 * DIMENSION)
    monkeypatch.setattr("vectorstore.faiss.index_file.CHANGED_MAX", 2)


def state(store: FaissStore) -> State:
    """Everything that the store holds."""
    rows = store.scan(limit=10_000)
    return {one.id: (one.seq, one.embedding.tobytes(), one.text) for one in rows}


def between_looks(
    monkeypatch: pytest.MonkeyPatch, store: FaissStore, act: Callable[[], None]
) -> list[None]:
    """Let ``act`` run after each look that is taken at the rows while writes are not held off; an entry
    for each time."""
    read, frozen = Gate.read, store.frozen
    quiet, acted = [False], []

    def spied(gate: Gate, work: Any) -> Any:
        found = read(gate, work)
        if not quiet[0]:
            quiet[0] = True
            act()
            acted.append(None)
            quiet[0] = False
        return found

    @contextmanager
    def held() -> Iterator[Any]:
        with frozen() as found:
            quiet[0] = True
            yield found
        quiet[0] = False

    monkeypatch.setattr(Gate, "read", spied)
    monkeypatch.setattr(store, "frozen", held)
    return acted


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("kind", KINDS)
def test_a_snapshot_under_writes_is_of_one_moment(
    kind: str, metric: Metric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New rows, changed and deleted ones, before and behind what is being copied: what comes back is what
    the store held at the seq that the snapshot names."""
    draw = np.random.default_rng(5)
    store = FaissStore.empty(dimension=DIMENSION, metric=metric, kind=kind)
    names = [f"r{at:03d}" for at in range(60)]
    history: dict[int, State] = {}

    def write() -> None:
        some = [str(one) for one in draw.choice(names, 3, replace=False)]
        vectors = draw.normal(size=(3, DIMENSION)).astype(np.float32)
        store.upsert(
            [Record(one, row, f"text {one}", {}) for one, row in zip(some, vectors, strict=True)]
        )
        store.delete([some[0], names[int(draw.integers(60))]])

    for _ in range(40):
        write()
    begun_at = store.applied_seq()

    def act() -> None:
        write()
        history[store.applied_seq()] = state(store)

    acted = between_looks(monkeypatch, store, act)
    path = write_snapshot(store, tmp_path, incarnation="one")
    monkeypatch.undo()
    loaded = load_snapshot(path)
    assert state(loaded) == history[loaded.applied_seq()]
    assert loaded.applied_seq() > begun_at
    assert len(acted) > 20 or kind == "ivf"


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_is_what_faiss_itself_writes(kind: str, tmp_path: Path) -> None:
    """To the last byte, so that it can be read by whoever reads FAISS's files."""
    rows = np.random.default_rng(1).normal(size=(IVF_TRAINING_ROWS + 7, DIMENSION))
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.L2, kind=kind)
    store.upsert([Record(f"r{at}", row, "", {}) for at, row in enumerate(rows.astype(np.float32))])
    if kind == "flat":
        store.delete(["r3", "r9"])
    path = write_snapshot(store, tmp_path, incarnation="one")
    with store.frozen() as (collection, _):
        faiss.write_index(collection.index.faiss_index, str(tmp_path / "other"))
    assert (path / INDEX_NAME).read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_a_write_gets_in_while_the_vectors_are_copied(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are: no write waits for the file."""
    rows = np.random.default_rng(2).normal(size=(40, DIMENSION)).astype(np.float32)
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.L2, kind=kind)
    store.upsert([Record(f"r{at:02d}", row, "", {}) for at, row in enumerate(rows)])
    waited: list[bool] = []

    def act() -> None:
        done = threading.Event()

        def write() -> None:
            store.upsert([Record("new", rows[0], "", {})])
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        waited.append(done.wait(20))
        writer.join()

    between_looks(monkeypatch, store, act)
    write_snapshot(store, tmp_path, incarnation="one")
    assert len(waited) >= 20
    assert all(waited)


def test_an_index_that_is_trained_meanwhile_is_written_as_it_is_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An IVF index begins flat: it may become one while its rows are being copied."""
    rows = np.random.default_rng(3).normal(size=(IVF_TRAINING_ROWS, DIMENSION)).astype(np.float32)
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.L2, kind="ivf")
    records = [Record(f"r{at:04d}", row, "", {}) for at, row in enumerate(rows)]
    store.upsert(records[:10])

    def act() -> None:
        if store.count() == 10:
            store.upsert(records[10:])

    between_looks(monkeypatch, store, act)
    path = write_snapshot(store, tmp_path, incarnation="one")
    monkeypatch.undo()
    assert isinstance(faiss.read_index(str(path / INDEX_NAME)), faiss.IndexIVFFlat)
    assert state(load_snapshot(path)) == state(store)
