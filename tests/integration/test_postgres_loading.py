"""Loading: exact after a kill, in parts, never seen half done."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from tests.conformance.suite import changes, query, record
from vectorstore.errors import InvalidInput, StoreCorrupt, StoreUnavailable, Unsupported
from vectorstore.postgres.building import BuildProgress, build_progress
from vectorstore.postgres.index import graph_memory
from vectorstore.postgres.loading import (
    LoadProgress,
    begin_load,
    finish_load,
    load_block,
    load_progress,
)
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Record

OpenStore = Callable[..., PostgresStore]

BUILDER = """
import sys
from vectorstore.postgres.loading import finish_load
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.postgres.store import PostgresStore
dsn, table = sys.argv[1:]
finish_load(PostgresStore.open(PostgresSettings(
    dsn=dsn, table=table, dimension=64, exact_rows_max=0, hnsw_ef_construction=1_000, hnsw_m=40
)))
"""

LOADER = """
import sys
from tests.conformance.suite import record
from vectorstore.postgres.loading import load_block, load_progress
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.postgres.store import PostgresStore

store = PostgresStore.open(PostgresSettings(dsn=sys.argv[1], table=sys.argv[2], dimension=8))
position = load_progress(store).positions[0]
while True:
    block = [record(f"r{n:06d}", seed=n) for n in range(position, position + 20)]
    load_block(store, block, position_start=position, position_end=position + 20)
    position += 20
    print(position, flush=True)
"""


def test_a_load_ends_following_from_its_seq(postgres_store: OpenStore) -> None:
    """Records keep their vectors and seqs as they were; the journal goes on after the snapshot."""
    store = postgres_store()
    loaded = [
        Record(f"r{n}", record("", seed=n).embedding * 3, "é", {"n": n, "x": 1e-7}, n)
        for n in range(50)
    ]
    assert load_progress(store) is None
    begin_load(store, incarnation="j", snapshot_id="s1", seq=70)
    load_block(store, loaded, position_start=0, position_end=50)
    assert load_progress(store) == LoadProgress("s1", 70, (50,))
    cursor = finish_load(store)
    assert (cursor.incarnation, cursor.seq, cursor.state) == ("j", 70, "following")
    assert load_progress(store) is None
    for wanted, held in zip(loaded, store.get([row.id for row in loaded]), strict=True):
        assert held.embedding.tobytes() == wanted.embedding.tobytes()
        assert (held.text, held.metadata, held.seq) == (wanted.text, wanted.metadata, wanted.seq)
    assert store.apply(changes("new", start=71)) == 71


def test_nothing_is_seen_of_a_load_that_is_not_done(postgres_store: OpenStore) -> None:
    """Half a table would give wrong answers without an error; so searches say that it is loading."""
    store = postgres_store()
    begin_load(store, incarnation="j", snapshot_id="s1", seq=0)
    load_block(store, [record("one")], position_start=0, position_end=1)
    with pytest.raises(StoreUnavailable, match="loaded"):
        store.search(query())
    with pytest.raises(StoreUnavailable, match="loaded"):
        store.apply(changes("a"))
    finish_load(store)
    assert store.search(query()).hits


def test_a_new_load_starts_from_nothing(postgres_store: OpenStore) -> None:
    """Rows, progress and index of an earlier load are gone."""
    store = postgres_store(exact_rows_max=0)
    for snapshot in ("s1", "s2"):
        begin_load(store, incarnation="j", snapshot_id=snapshot, seq=0)
        assert load_progress(store) == LoadProgress(snapshot, 0, (0,))
        load_block(store, [record("one")], position_start=0, position_end=1)
    seen: list[BuildProgress] = []
    finish_load(store, on_progress=seen.append)
    assert store.count() == 1
    assert store.describe()["index_kind"] == "hnsw"


def test_a_killed_loader_goes_on_exactly(postgres_store: OpenStore, postgresql_dsn: str) -> None:
    """After SIGKILL at any moment the progress and the rows agree, and the rest joins on."""
    store = postgres_store()
    begin_load(store, incarnation="j", snapshot_id="s1", seq=0)
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", LOADER, postgresql_dsn, store.settings.table],
            stdout=subprocess.PIPE,
            text=True,
        ) as loader:
            assert loader.stdout
            for _ in range(5):
                assert loader.stdout.readline()
            loader.send_signal(signal.SIGKILL)
        # The server notices the loss of its client and takes back what was not committed.
        deadline = time.monotonic() + 10
        while (progress := load_progress(store)) and progress.positions[0] != store.count():
            assert time.monotonic() < deadline
        assert progress
        assert progress.positions[0] >= 100


def test_parts_load_side_by_side(postgres_store: OpenStore) -> None:
    """Each part has its own position; all rows are there at the end."""
    store = postgres_store()
    begin_load(store, incarnation="j", snapshot_id="s1", seq=0, parts=3)

    def load(part: int) -> None:
        for start in range(0, 60, 20):
            block = [record(f"p{part}-{n:02d}", seed=n) for n in range(start, start + 20)]
            load_block(store, block, position_start=start, position_end=start + 20, part=part)

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(load, range(3)))
    assert load_progress(store) == LoadProgress("s1", 0, (60, 60, 60))
    finish_load(store)
    assert store.count() == 180


def test_a_build_is_seen_from_another_connection(postgres_store: OpenStore) -> None:
    """Whoever looks, while it lasts: phase and how far it has come; and nothing afterwards."""
    store = postgres_store(exact_rows_max=0, dimension=64)
    begin_load(store, incarnation="j", snapshot_id="s1", seq=0)
    vectors = np.random.default_rng(1).normal(size=(4_000, 64)).astype(np.float32)
    rows = [Record(f"r{n}", vector, "", {}) for n, vector in enumerate(vectors)]
    load_block(store, rows, position_start=0, position_end=len(rows))
    assert build_progress(store) is None
    seen: list[BuildProgress] = []
    with ThreadPoolExecutor(1) as threads:
        building = threads.submit(finish_load, store, rows=len(rows))
        while not building.done():
            if (found := build_progress(store)) is not None:
                seen.append(found)
        building.result()
    assert any(one.phase.startswith("building index") for one in seen)
    assert build_progress(store) is None


def test_a_build_ends_with_its_process(postgres_store: OpenStore, postgresql_dsn: str) -> None:
    """The server does not go on with the index of a process that was killed: the next one may begin."""
    store = postgres_store(exact_rows_max=0, dimension=64, hnsw_ef_construction=1_000, hnsw_m=40)
    begin_load(store, incarnation="j", snapshot_id="s1", seq=0)
    vectors = np.random.default_rng(1).normal(size=(12_000, 64)).astype(np.float32)
    rows = [Record(f"r{n}", vector, "", {}) for n, vector in enumerate(vectors)]
    load_block(store, rows, position_start=0, position_end=len(rows))
    with subprocess.Popen(
        [sys.executable, "-c", BUILDER, postgresql_dsn, store.settings.table]
    ) as builder:
        deadline = time.monotonic() + 30
        while (found := build_progress(store)) is None or "loading" not in found.phase:
            assert time.monotonic() < deadline
            assert builder.poll() is None
        builder.kill()
    while build_progress(store) is not None:
        assert time.monotonic() < deadline
    assert not store.refresh_index()


def test_memory_for_the_graph_is_reckoned_before_it_is_built(postgres_store: OpenStore) -> None:
    """30,000 x 1,536 took between 64 and 256 MB in fact; half of a vector is half of it, nearly."""
    store = postgres_store(dimension=1_536)
    whole = graph_memory(store.settings, 30_000)
    assert 64 << 20 < whole.needed < 256 << 20
    assert whole.fits
    assert not graph_memory(store.settings, 60_000).fits
    half = graph_memory(replace(store.settings, index_type="halfvec"), 30_000)
    assert 0.5 < half.needed / whole.needed < 0.6
    tight = replace(store.settings, maintenance_work_mem="65536kB")
    assert graph_memory(tight, 30_000).allowed == 64 << 20


def test_a_load_with_rows_missing_is_not_ended(postgres_store: OpenStore) -> None:
    """What the server lost in a crash is said; the load stays open, and goes on where it stands."""
    store = postgres_store()
    begin_load(store, incarnation="j", snapshot_id="s1", seq=0, parts=2)
    load_block(store, [record("one")], position_start=0, position_end=1, part=1)
    with pytest.raises(StoreUnavailable, match="1 of 2 rows"):
        finish_load(store, rows=2)
    assert load_progress(store) == LoadProgress("s1", 0, (0, 1))
    load_block(store, [record("two")], position_start=0, position_end=1, part=0)
    assert finish_load(store, rows=2).state == "following"


def test_a_block_is_loaded_once(postgres_store: OpenStore) -> None:
    """A second loader of the same part is refused and leaves no row."""
    store = postgres_store()
    begin_load(store, incarnation="j", snapshot_id="s1", seq=0)
    load_block(store, [record("one")], position_start=0, position_end=1)
    with pytest.raises(StoreCorrupt, match="another loader"):
        load_block(store, [record("two")], position_start=0, position_end=1)
    assert [row.id for row in store.scan()] == ["one"]


def test_a_bad_block_leaves_no_trace(postgres_store: OpenStore) -> None:
    """A vector of another length refuses the block, and its position stays."""
    store = postgres_store()
    begin_load(store, incarnation="j", snapshot_id="s1", seq=0)
    wrong = Record("bad", np.ones(9, np.float32), "", {})
    with pytest.raises(InvalidInput, match="dimension"):
        load_block(store, [record("good"), wrong], position_start=0, position_end=2)
    assert load_progress(store) == LoadProgress("s1", 0, (0,))
    assert store.count() == 0


def test_rows_of_its_own_are_never_truncated(postgres_store: OpenStore) -> None:
    """A table that takes plain writes cannot be rebuilt from a journal, so a load is refused."""
    store = postgres_store()
    store.upsert([record("mine")])
    with pytest.raises(Unsupported, match="another table"):
        begin_load(store, incarnation="j", snapshot_id="s1", seq=0)
    with pytest.raises(Unsupported):
        store.bind("j")
    assert store.count() == 1
