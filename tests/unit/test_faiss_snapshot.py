"""Snapshots come back bit for bit, or not at all."""

from __future__ import annotations

import gc
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.file_limit import file_limit
from vectorstore import Filter, Metric, Query, Record, StoreCorrupt, StoreUnavailable
from vectorstore.faiss.snapshot import (
    load_snapshot,
    newest_snapshots,
    verify_snapshot,
    write_snapshot,
)
from vectorstore.faiss.store import FaissStore

DIMENSION = 8


def filled(kind: str = "flat", metric: Metric = Metric.L2) -> FaissStore:
    store = FaissStore.empty(dimension=DIMENSION, metric=metric, kind=kind)
    rows = np.random.default_rng(2).normal(size=(80, DIMENSION)).astype(np.float32)
    store.upsert(
        [
            Record(
                f"r{at}", row, f"line\none {at} é", {"n": at, "f": at / 3, "deep": [{"x": None}]}
            )
            for at, row in enumerate(rows)
        ]
    )
    store.upsert([Record("r3", rows[0], "again", {"n": 3})])
    store.delete(["r5", "r79"])
    return store


def contents(store: FaissStore) -> list[Any]:
    return [
        (one.id, one.embedding.tobytes(), one.text, one.metadata, one.seq)
        for one in store.records(0, 1000)
    ]


def test_the_garbage_collector_passes_the_rows_by(tmp_path: Path) -> None:
    """However many there are: a full collection looks at none, before a page was read and after."""
    many = 3_001
    store = FaissStore.empty(dimension=2, metric=Metric.L2)
    rows = np.random.default_rng(2).normal(size=(many, 2)).astype(np.float32)
    for start in range(0, many, 1_000):
        block = enumerate(rows[start : start + 1_000], start)
        store.upsert([Record(f"r{at:05d}", row, f"text {at}", {"n": at}) for at, row in block])
    before = {id(one) for one in gc.get_objects()}
    loaded = load_snapshot(write_snapshot(store, tmp_path, incarnation="one"))
    loaded.scan(limit=10)
    gc.collect()
    walked = [
        len(one)
        for one in gc.get_objects()
        if id(one) not in before and isinstance(one, list | dict) and len(one) > many // 5
    ]
    assert (loaded.count(), walked) == (many, [])


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
@pytest.mark.parametrize("metric", list(Metric))
def test_a_snapshot_comes_back_as_it_was(tmp_path: Path, kind: str, metric: Metric) -> None:
    """Records, seqs, positions, tombstones, settings and answers, and writing goes on from there."""
    store = filled(kind, metric)
    path = write_snapshot(store, tmp_path, incarnation="one")
    manifest = verify_snapshot(path)
    assert (manifest.seq, manifest.rows, manifest.incarnation) == (83, 78, "one")
    loaded = load_snapshot(path)
    assert contents(loaded) == contents(store)
    assert loaded.describe() == store.describe()
    assert loaded.applied_seq() == 83
    query = Query(np.ones(DIMENSION), k=9)
    assert loaded.search(query) == store.search(query)
    loaded.upsert([Record("r5", np.ones(DIMENSION, dtype=np.float32), "", {})])
    assert loaded.get(["r5"])[0].seq == 84


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_the_first_writes_after_loading_move_no_rows(tmp_path: Path, kind: str) -> None:
    """There is room for a tenth more: to move millions of rows would keep readers out for many seconds."""
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.L2, kind=kind)
    rows = np.random.default_rng(3).normal(size=(1_000, DIMENSION)).astype(np.float32)
    store.upsert([Record(f"r{at}", row, "", {}) for at, row in enumerate(rows)])
    loaded = load_snapshot(write_snapshot(store, tmp_path, incarnation="one"))

    def place() -> int:
        with loaded.frozen() as (collection, _):
            return collection.index.block(0, 1).ctypes.data

    before = place()
    for start in range(0, 100, 10):
        loaded.upsert([Record(f"n{start + at}", rows[at], "", {}) for at in range(10)])
    assert place() == before
    np.testing.assert_array_equal(loaded.vectors(0, 1_000), rows)
    assert loaded.count() == 1_100


def test_integers_beyond_64_bits_stay_whole(tmp_path: Path) -> None:
    """Metadata that the fast writer cannot hold is written and read by the slower one."""
    store = FaissStore.empty(dimension=2, metric=Metric.L2)
    store.upsert([Record("a", np.ones(2, dtype=np.float32), "é", {"wide": 2**80, "f": 0.1})])
    loaded = load_snapshot(write_snapshot(store, tmp_path, incarnation="one"))
    assert loaded.get(["a"])[0].metadata == {"wide": 2**80, "f": 0.1}


def test_every_damaged_byte_is_noticed(tmp_path: Path) -> None:
    """A flipped bit, a missing end, a missing or foreign file: StoreCorrupt, and nothing is loaded."""
    path = write_snapshot(filled("hnsw"), tmp_path, incarnation="one")
    for file in sorted(path.iterdir()):
        whole = file.read_bytes()
        for at in {0, len(whole) // 3, len(whole) - 2}:
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(StoreCorrupt):
                load_snapshot(path)
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(StoreCorrupt):
            load_snapshot(path)
        file.unlink()
        with pytest.raises(StoreCorrupt):
            load_snapshot(path)
        file.write_bytes(whole)
    (path / "stranger").write_text("")
    with pytest.raises(StoreCorrupt, match="stranger"):
        load_snapshot(path)
    (path / "stranger").unlink()
    assert load_snapshot(path).count() == 78


def test_a_manifest_cannot_be_moved_to_other_files(tmp_path: Path) -> None:
    """A renamed directory, or a manifest edited by hand, does not pass for another seq."""
    path = write_snapshot(filled(), tmp_path, incarnation="one")
    moved = path.rename(tmp_path / path.name.replace("83-", "84-"))
    with pytest.raises(StoreCorrupt, match="seq 83"):
        verify_snapshot(moved)
    edited = json.loads((moved / "manifest.json").read_text())
    edited["manifest"]["seq"] = 84
    (moved / "manifest.json").write_text(json.dumps(edited))
    with pytest.raises(StoreCorrupt, match="checksum"):
        verify_snapshot(moved)


def test_the_farthest_reaching_snapshot_comes_first(tmp_path: Path) -> None:
    """Order is by seq; what a killed writer left behind does not count, and the next one clears it."""
    assert newest_snapshots(tmp_path / "none") == []
    store = filled()
    first = write_snapshot(store, tmp_path, incarnation="one")
    store.delete(["r0"])
    second = write_snapshot(store, tmp_path, incarnation="one")
    (tmp_path / ".writing-dead").mkdir()
    assert newest_snapshots(tmp_path) == [second, first]
    store.delete(["r1"])
    third = write_snapshot(store, tmp_path, incarnation="one")
    assert newest_snapshots(tmp_path) == [third, second, first]
    assert not (tmp_path / ".writing-dead").exists()


def test_a_snapshot_under_writes_is_of_one_moment(tmp_path: Path) -> None:
    """A writer that always changes two rows together is never caught between them."""
    store = filled()
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            vector = np.full(DIMENSION, number, dtype=np.float32)
            store.upsert(
                [Record(name, vector, str(number), {"n": number}) for name in ("r1", "r2")]
            )

    def wait_for_the_writer() -> None:
        reached, deadline = store.applied_seq(), time.monotonic() + 10.0
        while store.applied_seq() == reached:
            assert time.monotonic() < deadline, "the writer stands still"
            time.sleep(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        paths = []
        for _ in range(5):
            wait_for_the_writer()
            paths.append(write_snapshot(store, tmp_path, incarnation="one"))
    finally:
        stop.set()
        writer.join()
    assert len({path.name[:29] for path in paths}) > 1
    for path in paths:
        loaded = load_snapshot(path)
        one, two = loaded.get(["r1", "r2"])
        assert (one.text, one.metadata, one.seq + 1) == (two.text, two.metadata, two.seq)
        assert one.embedding[0] == two.embedding[0]
        assert two.seq == loaded.applied_seq()
        if one.text.isdecimal():
            assert loaded.count(Filter.of({"n": int(one.text)})) in (2, 3)


def test_snapshot_files_are_the_owners_alone(tmp_path: Path) -> None:
    """Texts may be private: nobody else may read them."""
    path = write_snapshot(filled("ivf"), tmp_path, incarnation="one")
    assert path.stat().st_mode & 0o077 == 0
    assert all(file.stat().st_mode & 0o077 == 0 for file in path.iterdir())


@pytest.mark.parametrize("short_bytes", [1, 100, 4_000, 5_000, 100_000])
def test_a_disk_without_room_for_the_last_bytes_gets_no_snapshot(
    tmp_path: Path, short_bytes: int
) -> None:
    """However little is missing, nothing is left behind, the error says why, and the snapshot from
    before is still the newest and loads."""
    store = FaissStore.empty(dimension=63, metric=Metric.COSINE)
    rows = np.random.default_rng(4).normal(size=(1_000, 63)).astype(np.float32)
    store.upsert([Record(f"r{at}", row, "", {}) for at, row in enumerate(rows)])
    before = write_snapshot(store, tmp_path, incarnation="one")
    whole = max(file.stat().st_size for file in before.iterdir())
    store.upsert([Record("r7", rows[8], "", {})])
    with file_limit(whole - short_bytes), pytest.raises(StoreUnavailable, match="too large"):
        write_snapshot(store, tmp_path, incarnation="one")
    assert list(tmp_path.iterdir()) == newest_snapshots(tmp_path) == [before]
    assert load_snapshot(before).count() == 1_000
