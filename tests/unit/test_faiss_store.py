"""The FAISS store: right answers of every index kind, beside a writer, after any writes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import tracemalloc
from typing import Any

import faiss
import numpy as np
import pytest

from vectorstore import (
    Change,
    Filter,
    InvalidInput,
    Metric,
    Query,
    Record,
    Replica,
    StoreCorrupt,
    StoreUnavailable,
    Unsupported,
)
from vectorstore.digests import METHODS, row_digest
from vectorstore.faiss.collection import Collection
from vectorstore.faiss.exact_scan import ExactScan
from vectorstore.faiss.gate import Gate
from vectorstore.faiss.index import IVF_TRAINING_ROWS, wrapped_index
from vectorstore.faiss.ranking import BLOCK_ROWS
from vectorstore.faiss.rows import MASKS_MAX, MATCHED_BLOCK, Rows
from vectorstore.faiss.store import FaissStore
from vectorstore.memory import MemoryStore

DIMENSION = 16
KINDS = ["flat", "hnsw", "ivf"]


def normal(count: int, seed: int = 1, dimension: int = DIMENSION) -> Any:
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


def record(name: str, vector: Any, **metadata: Any) -> Record:
    return Record(name, vector, f"text of {name}", metadata)


def store_of(index: Any, metric: Metric, **metadata: Any) -> FaissStore:
    names = [f"r{at:05d}" for at in range(index.ntotal)]
    fields = [{**metadata, "share": at % 100} for at in range(index.ntotal)]
    rows = Rows(names, [""] * len(names), fields, [0] * len(names))
    return FaissStore(Collection(wrapped_index(index), rows, metric))


def flat_of(rows: Any) -> Any:
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return index


def ivf_of(rows: Any, *, nlist: int = 20, nprobe: int = 1) -> Any:
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(rows.shape[1]), rows.shape[1], nlist)
    index.train(rows)
    index.add(rows)
    index.nprobe = nprobe
    return index


def hnsw_of(rows: Any, metric: int = faiss.METRIC_L2) -> Any:
    index = faiss.IndexHNSWFlat(rows.shape[1], 16, metric)
    index.add(rows)
    return index


def ids(store: Any, vector: Any, k: int = 10, **filtered: Any) -> list[str]:
    answer = store.search(Query(vector, k=k, filter=Filter.of(filtered)))
    return [hit.id for hit in answer.hits]


def test_importing_the_stores_does_not_import_faiss() -> None:
    """FAISS is loaded by its own store alone: an application on PostgreSQL never pays for it."""
    code = "import sys, vectorstore, vectorstore.faiss; sys.exit('faiss' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", list(Metric))
def test_scores_are_those_of_the_reference_store(kind: str, metric: Metric) -> None:
    """Every kind gives the contract's score for each metric, and the exact neighbours while small."""
    store = FaissStore.empty(dimension=DIMENSION, metric=metric, kind=kind)
    assert isinstance(store, Replica)
    oracle = MemoryStore(dimension=DIMENSION, metric=metric)
    written = [record(f"r{at}", vector * 3) for at, vector in enumerate(normal(60))]
    assert store.upsert(written) == oracle.upsert(written) == 60
    for query in normal(10, seed=2):
        expected = oracle.search(Query(query, k=7)).hits
        for answer in (store.search(Query(query, k=7)), store.search_exact(Query(query, k=7))):
            assert [hit.id for hit in answer.hits] == [hit.id for hit in expected]
            scores = [hit.score for hit in answer.hits]
            np.testing.assert_allclose(
                scores, [hit.score for hit in expected], rtol=2e-5, atol=2e-6
            )
            assert answer.applied_seq == 60


@pytest.mark.parametrize("kind", KINDS)
def test_upsert_and_delete_on_every_kind(kind: str) -> None:
    """A changed row is found where it is now and not where it was; a deleted one nowhere."""
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.L2, kind=kind)
    rows = normal(50)
    store.upsert([record(f"r{at}", row) for at, row in enumerate(rows)])
    moved = rows[3] + 100
    store.upsert([record("r3", moved, changed=True)])
    store.delete(["r4", "never there"])
    assert ids(store, moved, 1) == ["r3"]
    assert "r3" not in ids(store, rows[3], 40)
    assert "r4" not in ids(store, rows[4], 100)
    assert store.count() == len(ids(store, rows[0], 100)) == 49
    assert [one.id for one in store.get(["r3", "r4"])] == ["r3"]
    assert store.get(["r4", "r3"])[0].metadata == {"changed": True}
    np.testing.assert_array_equal(store.get(["r3"])[0].embedding, moved)
    store.upsert([record("r4", rows[4])])
    assert ids(store, rows[4], 1) == ["r4"]
    assert store.applied_seq() == 54


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_compacting_changes_no_answer_and_frees_the_dead(kind: str) -> None:
    """The rebuilt index holds the live rows alone, bit for bit, with the settings it had."""
    rows = normal(600)
    index = ivf_of(rows, nprobe=20) if kind == "ivf" else hnsw_of(rows)
    store = store_of(index, Metric.L2)
    store.set_breadth(600)  # all there is, so that a new graph may not change what is found
    store.upsert([record(f"r{at:05d}", rows[at] + 1) for at in range(200)])
    store.delete([f"r{at:05d}" for at in range(200, 300)])
    assert store.describe()["tombstones"] == 300
    before = [ids(store, query) for query in rows[::50]]
    vectors = store.vectors(0, 1000)
    settings = dict(store.describe())
    assert store.compact() == 300
    assert [ids(store, query) for query in rows[::50]] == before
    np.testing.assert_array_equal(store.vectors(0, 1000), vectors)
    assert store.describe() == settings | {"tombstones": 0}
    assert store.compact() == 0


def test_a_flat_index_never_holds_a_dead_row() -> None:
    """Deletes give up the last place, so that searches stay as fast as the rows that are left."""
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.INNER_PRODUCT)
    rows = normal(30)
    store.upsert([record(f"r{at}", row) for at, row in enumerate(rows)])
    store.delete([f"r{at}" for at in range(0, 30, 2)])
    assert store.describe()["tombstones"] == 0
    assert store.vectors(0, 100).shape == (15, DIMENSION)
    kept = {one.id: one.embedding for one in store.records(0, 100)}
    assert set(kept) == {f"r{at}" for at in range(1, 30, 2)}
    for at in range(1, 30, 2):
        np.testing.assert_array_equal(kept[f"r{at}"], rows[at])
    store.delete(list(kept))
    assert ids(store, rows[0]) == []


@pytest.mark.parametrize("share", [1, 7, 60])
@pytest.mark.parametrize("kind", KINDS)
def test_a_filter_brings_back_k_rows_when_k_match(kind: str, share: int) -> None:
    """However few rows match, and wherever they lie: min(k, matches), each of them matching."""
    rows = normal(4000)
    if kind == "flat":
        index = faiss.IndexFlatL2(DIMENSION)
        index.add(rows)
    else:
        index = ivf_of(rows) if kind == "ivf" else hnsw_of(rows)
    store = store_of(index, Metric.L2)
    wanted = list(range(share))
    matches = {f"r{at:05d}" for at in range(4000) if at % 100 < share}
    for query in normal(5, seed=9):
        found = ids(store, query, 300, share=wanted)
        assert len(found) == len(set(found)) == min(300, len(matches))
        assert set(found) <= matches
    assert store.count(Filter.of({"share": wanted})) == len(matches)


def test_filters_follow_every_write() -> None:
    """What a remembered filter matches is right after changes of metadata, deletes and moves."""
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.COSINE)
    rows = normal(40)
    store.upsert([record(f"r{at}", row, crop="maize") for at, row in enumerate(rows)])
    assert store.count(Filter.of({"crop": "maize"})) == 40
    assert store.count(Filter.of({"crop": "beans"})) == 0
    store.upsert([record("r5", rows[5], crop="beans"), record("r39", rows[39], crop="beans")])
    store.delete(["r0", "r1"])
    store.upsert([record("new", rows[0], crop=["maize"])])
    assert set(ids(store, rows[5], crop="beans")) == {"r5", "r39"}
    assert store.count(Filter.of({"crop": "maize"})) == 36
    assert store.count(Filter.of({"crop": ["maize", "beans"]})) == 38


def test_more_filters_than_are_remembered_stay_right() -> None:
    """Forgotten ones are worked out again, after writes as well."""
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.COSINE)
    rows = normal(3 * MASKS_MAX)
    store.upsert([record(f"r{at}", row, n=at) for at, row in enumerate(rows)])
    for _ in range(2):
        for at in range(3 * MASKS_MAX):
            assert ids(store, rows[0], n=at) == [f"r{at}"]
        store.upsert([record(f"r{at}", row, n=at) for at, row in enumerate(rows)])


@pytest.mark.parametrize(("bytes_max", "again"), [(256 << 20, 0), (12 * 250, 100)])
def test_a_hundred_filters_in_turn_are_remembered_as_far_as_there_is_memory(
    bytes_max: int, again: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To match every row anew each time would cost more than the search; the masks are bounded all the
    same, and one that was forgotten is worked out again."""
    rows = normal(2_000)
    store = store_of(flat_of(rows), Metric.INNER_PRODUCT)
    monkeypatch.setattr("vectorstore.faiss.rows.MASKS_BYTES_MAX", bytes_max)
    worked_out: list[Filter] = []
    remember = Rows.remember

    def counted(held: Rows, filter: Filter) -> Any:
        # All rows are less than a block.
        worked_out.append(filter)
        return remember(held, filter)

    monkeypatch.setattr(Rows, "remember", counted)
    asked = [Filter.of({"share": at}) for at in range(100)]
    for one in asked:
        assert store.count(one) == 20
    assert len(worked_out) == 100
    for one in asked:
        assert store.count(one) == 20
    assert len(worked_out) == 100 + again
    # 250 bytes each: the last few are there in any case.
    for one in asked[-9:]:
        store.count(one)
    assert len(worked_out) == 100 + again


def test_an_approximate_index_that_stops_short_is_widened() -> None:
    """One probed list of many holds fewer than k rows; the answer still has k."""
    rows = normal(400)
    store = store_of(ivf_of(rows, nlist=40, nprobe=1), Metric.L2)
    assert len(ids(store, rows[0], 300)) == 300
    many = store.search_many([Query(row, k=300) for row in rows[:5]])
    assert [len(answer.hits) for answer in many] == [300] * 5


def test_k_beyond_the_rows_gives_all_of_them() -> None:
    """No padding and no error, also for an empty store."""
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.L2)
    assert store.search(Query(normal(1)[0], k=1000)).hits == []
    assert store.search_exact(Query(normal(1)[0], k=3)).hits == []
    store.upsert([record("only", normal(1)[0])])
    assert ids(store, normal(1)[0], 1000) == ["only"]


def test_batches_answer_as_single_queries_do() -> None:
    """Mixed k and filters come back in the order asked."""
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.COSINE)
    rows = normal(80)
    store.upsert([record(f"r{at}", row, half=at % 2) for at, row in enumerate(rows)])
    asked = [
        Query(row, k=3 + at % 3, filter=Filter.of({"half": 1}) if at % 4 == 0 else None)
        for at, row in enumerate(normal(50, seed=4))
    ]
    for together, query in zip(store.search_many(asked), asked, strict=True):
        alone = store.search(query)
        assert [hit.id for hit in together.hits] == [hit.id for hit in alone.hits]
    assert store.search_many([]) == []


def test_cosine_over_an_l2_index_of_unit_vectors() -> None:
    """Scores are cosines, though FAISS measured squared distances."""
    rows = normal(100)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    store = store_of(hnsw_of(rows), Metric.COSINE)
    query = normal(1, seed=8)[0] * 5
    answer = store.search(Query(query, k=5))
    exact = store.search_exact(Query(query, k=5))
    assert [hit.id for hit in answer.hits] == [hit.id for hit in exact.hits]
    scores = [hit.score for hit in answer.hits]
    np.testing.assert_allclose(scores, [hit.score for hit in exact.hits], atol=1e-6)


def test_lengths_a_little_off_one_do_not_spoil_cosine_scores() -> None:
    """Vectors taken in as found are ranked and scored by their true cosine, also after writes."""
    rows = normal(200)
    lengths = 1 + np.random.default_rng(0).uniform(-9e-5, 9e-5, size=(200, 1))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True) * lengths).astype(np.float32)
    index = faiss.IndexFlatIP(DIMENSION)
    index.add(rows)
    store = store_of(index, Metric.COSINE)
    store.delete(["r00000", "r00199"])
    store.upsert([record("r00007", rows[0]), record("more", rows[199])])
    for query in normal(20, seed=3):
        found = store.search(Query(query, k=10)).hits
        exact = store.search_exact(Query(query, k=10)).hits
        assert [hit.id for hit in found] == [hit.id for hit in exact]
        np.testing.assert_allclose([h.score for h in found], [h.score for h in exact], atol=1e-6)


def test_a_metric_that_the_index_cannot_serve_is_refused() -> None:
    """Raw vectors under cosine, and L2 asked of inner product, name the reason."""
    index = faiss.IndexFlatIP(DIMENSION)
    index.add(normal(5))
    for metric in (Metric.COSINE, Metric.L2):
        with pytest.raises(Unsupported, match="built for"):
            store_of(index, metric)


def test_equal_scores_keep_one_order() -> None:
    """The same question over unchanged rows names ties in the same order every time."""
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.COSINE)
    same = normal(1)[0]
    store.upsert([record(f"r{at}", same) for at in range(30)])
    first = ids(store, same, 10)
    assert all(ids(store, same, 10) == first for _ in range(5))


def test_journal_entries_apply_in_order_and_once() -> None:
    """Entries already applied are skipped, a gap is corrupt, and what was before it is kept."""
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.L2)
    rows = normal(5)
    changes = [
        Change(at + 1, f"r{at % 3}", Record(f"r{at % 3}", rows[at], "", {}, at + 1))
        for at in range(5)
    ]
    assert store.apply(changes[:3]) == 3
    assert store.apply(changes) == 5
    assert [one.seq for one in store.get(["r0", "r1", "r2"])] == [4, 5, 3]
    with pytest.raises(StoreCorrupt, match="entry 8 follows 5"):
        store.apply([Change(8, "r0", None)])
    with pytest.raises(StoreCorrupt, match="16 dimensions"):
        store.apply([Change(6, "x", Record("x", rows[0][:3], "", {}, 6))])
    assert store.apply([Change(6, "r0", None), Change(7, "r9", None)]) == 7
    assert store.count() == 2
    assert store.apply([]) == 7


def test_a_rejected_batch_leaves_no_trace() -> None:
    """One bad record among good ones: nothing is written and no seq is used."""
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.COSINE)
    rows = normal(3)
    with pytest.raises(InvalidInput, match="zero vector"):
        store.upsert([record("a", rows[0]), record("b", rows[1] * 0)])
    assert (store.count(), store.applied_seq()) == (0, 0)


def test_the_last_of_equal_ids_in_a_batch_wins() -> None:
    """And the store holds it once, at its own seq."""
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.L2, kind="hnsw")
    rows = normal(2)
    assert store.upsert([record("a", rows[0]), record("a", rows[1])]) == 2
    assert (store.count(), store.get(["a"])[0].seq) == (1, 2)
    np.testing.assert_array_equal(store.vectors(0, 9)[0], rows[1])


def test_what_the_caller_changes_afterwards_changes_nothing() -> None:
    """Vector and metadata are the store's own."""
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.L2)
    vector, metadata = normal(1)[0], {"crop": "maize"}
    store.upsert([Record("a", vector, "", metadata)])
    metadata["crop"] = "beans"
    vector[:] = 0
    assert store.get(["a"])[0].metadata == {"crop": "maize"}
    assert store.get(["a"])[0].embedding.any()


def test_scan_pages_in_byte_order() -> None:
    """Pages follow the order of UTF-8 bytes, across writes between pages."""
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.L2)
    names = ["a", "B", "é", "\U0001f33d", "zz", "z", "\uffff"]
    store.upsert([record(name, row) for name, row in zip(names, normal(7), strict=True)])
    first = store.scan(limit=3)
    store.delete(["a"])
    store.upsert([record("zzz", normal(1)[0])])
    rest = store.scan(after=first[-1].id, limit=100)
    expected = sorted({*names, "zzz"}, key=str.encode)
    assert [one.id for one in first + rest] == expected


@pytest.mark.parametrize("kind", KINDS)
def test_digests_are_those_of_the_records_as_they_are_read(kind: str) -> None:
    """Whatever the index and however often rows were written anew, in pages of any size."""
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.L2, kind=kind)
    rows = normal(200)
    store.upsert([record(f"r{at:03d}", row, n=at, é=["ä", at / 3]) for at, row in enumerate(rows)])
    store.upsert([record("r007", rows[0], n=7), record("r150", rows[1])])
    store.delete(["r003", "r199"])
    names = store.ids(limit=1_000)
    assert names == [one.id for one in store.scan(limit=1_000)]
    assert store.ids(after="r150", limit=2) == ["r151", "r152"]
    for method in METHODS:
        expected = [(r.id, r.seq, row_digest(r, method)) for r in store.scan(limit=1_000)]
        assert store.digests(["gone", *names], method) == expected


def test_ivf_begins_flat_and_trains_when_it_can() -> None:
    """Before there are rows to train on answers are exact; afterwards it is an IVF index."""
    store = FaissStore.empty(dimension=4, metric=Metric.L2, kind="ivf")
    rows = normal(IVF_TRAINING_ROWS, dimension=4)
    store.upsert([record(f"r{at}", row) for at, row in enumerate(rows[:-1])])
    assert "nprobe" not in store.describe()
    with pytest.raises(Unsupported, match="exactly"):
        store.set_breadth(3)
    store.upsert([record("last", rows[-1])])
    assert store.describe()["nprobe"] == 8
    np.testing.assert_array_equal(store.vectors(0, len(rows)), rows)
    store.set_breadth(100)
    assert ids(store, rows[11], 1) == ["r11"]


def test_a_single_query_leaves_the_applications_threads_as_they_were() -> None:
    """The OpenMP setting is the application's: it is put back after each search."""
    store = store_of(hnsw_of(normal(100)), Metric.L2)
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        ids(store, normal(1)[0])
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(before)


def test_a_closed_store_says_so() -> None:
    """Every call after close is StoreUnavailable."""
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.L2)
    store.close()
    store.close()
    for call in (
        lambda: store.search(Query(normal(1)[0])),
        lambda: store.search(Query(normal(1)[0], filter=Filter.of({"a": 1}))),
        lambda: store.upsert([record("a", normal(1)[0])]),
        lambda: store.apply([]),
        store.count,
        store.compact,
        store.describe,
    ):
        with pytest.raises(StoreUnavailable, match="closed"):
            call()


@pytest.mark.parametrize("kind", KINDS)
def test_readers_beside_a_writer_never_see_half_a_write(kind: str) -> None:
    """Every hit's text, metadata, seq and score belong to one and the same version of its row."""
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.INNER_PRODUCT, kind=kind)
    axis = np.zeros(DIMENSION, dtype=np.float32)
    axis[0] = 1

    def version(name: int, number: int) -> Record:
        return Record(f"r{name}", axis * number, str(number), {"number": number})

    store.upsert([version(name, 1) for name in range(50)])
    faults: list[str] = []
    done = threading.Event()
    searches = [0, 0]

    def read(slot: int) -> None:
        chosen = Filter.of({"number": list(range(1, 900, 2))}) if slot else None
        while not done.is_set():
            for hit in store.search(Query(axis, k=20, filter=chosen)).hits:
                if not hit.score == float(hit.text) == hit.metadata["number"]:
                    faults.append(f"{hit}")
            searches[slot] += 1

    readers = [threading.Thread(target=read, args=(slot,)) for slot in range(2)]
    for reader in readers:
        reader.start()
    deadline = time.monotonic() + 30
    number = 1
    while number < 300 or min(searches) < 20:
        assert time.monotonic() < deadline
        number += 1
        store.upsert([version(number % 50, number)])
        store.delete([f"r{(number + 25) % 50}"])
        if number % 100 == 0:
            store.compact()
    done.set()
    for reader in readers:
        reader.join()
    assert faults == []


@pytest.mark.parametrize("scale", [1e-43, 1e-30, 3e-22, 1e-15, 1e-6, 1.0, 1e6, 1e17])
def test_a_vector_of_any_length_becomes_a_unit_vector(scale: float) -> None:
    """Under cosine, however short it is: one that is not of unit length could not be loaded again."""
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.COSINE)
    vector = (normal(1)[0].astype(np.float64) * scale).astype(np.float32)
    store.upsert([record("a", vector)])
    held = store.get(["a"])[0].embedding.astype(np.float64)
    assert abs(np.linalg.norm(held) - 1.0) < 2e-7
    assert store.search(Query(vector, 1)).hits[0].score == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_writes_get_in_between_the_blocks_of_an_exact_scan(kind: str) -> None:
    """What they move is met all the same, and once; what they removed is not in the answer."""
    rows = normal(2 * BLOCK_ROWS + 10)
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.L2, kind=kind)
    names = [f"r{at:05d}" for at in range(len(rows))]
    store.apply([Change(at + 1, name, record(name, rows[at])) for at, name in enumerate(names)])
    with store.frozen() as (collection, seq):
        scan = ExactScan(collection, rows[-1], 3, None, seq)
        nearest = [hit.id for hit in store.search_exact(Query(rows[-1], 4)).hits]
    assert scan.step(collection)
    # In a flat index the last row, which is the nearest, moves to where the scan has been.
    store.delete([names[0], nearest[1]])
    while scan.step(collection):
        pass
    assert [hit.id for hit in scan.hits(collection)][:2] == [names[-1], nearest[2]]
    assert scan.seq == len(rows)


def test_an_exact_scan_holds_writes_off_for_one_block_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A scan of many rows takes seconds, and a reader that waits to write would hold up all others."""
    store = store_of(flat_of(normal(3 * BLOCK_ROWS)), Metric.INNER_PRODUCT)
    holds = 0
    read = Gate.read

    def counted(gate: Gate, work: Any) -> Any:
        nonlocal holds
        holds += 1
        return read(gate, work)

    monkeypatch.setattr(Gate, "read", counted)
    assert len(store.search_exact(Query(normal(1)[0], 5)).hits) == 5
    assert holds >= 3


def test_a_change_under_way_is_no_failure_to_whoever_asks_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until it is in place the copy stands where it stood; nobody takes it for broken meanwhile."""
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.L2)
    store.upsert([record("a", normal(1)[0])])
    asked: list[tuple[int, bool]] = []
    write = Collection.write

    def watched(collection: Collection, changes: Any) -> None:
        asked.append((store.applied_seq(), store.broken))
        write(collection, changes)

    monkeypatch.setattr(Collection, "write", watched)
    assert store.upsert([record("b", normal(1)[0])]) == 2
    assert asked == [(1, False)]


def test_a_filter_is_matched_block_by_block() -> None:
    """A new filter makes no list of all rows: to make one is a single step, in which no thread moves."""
    count = 16 * MATCHED_BLOCK
    rows = np.zeros((count, 1), dtype=np.float32)
    store = store_of(flat_of(rows), Metric.INNER_PRODUCT)
    store.count(Filter.of({"share": 1}))
    tracemalloc.start()
    try:
        assert store.count(Filter.of({"share": 7})) == sum(at % 100 == 7 for at in range(count))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A list of positions takes forty bytes for each of them, and there may be two of a block.
    assert peak < 2 * 40 * MATCHED_BLOCK


def test_a_write_gets_in_while_a_new_filter_is_matched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two blocks of rows, however many there are of them."""
    rows = normal(200)
    store = store_of(flat_of(rows), Metric.INNER_PRODUCT)
    written = threading.Event()
    waited: list[bool] = []

    def write() -> None:
        store.upsert([record("new", rows[0], share=7)])
        written.set()

    writer = threading.Thread(target=write)
    read = Gate.read

    def spied(gate: Gate, work: Any) -> Any:
        found = read(gate, work)
        if threading.current_thread() is threading.main_thread() and not waited and steps:
            writer.start()
            waited.append(written.wait(20))
        return found

    steps: list[Filter] = []
    remember = Rows.remember

    def counted(held: Rows, filter: Filter) -> Any:
        steps.append(filter)
        return remember(held, filter)

    monkeypatch.setattr("vectorstore.faiss.rows.MATCHED_BLOCK", 16)
    monkeypatch.setattr(Rows, "remember", counted)
    monkeypatch.setattr(Gate, "read", spied)
    found = store.count(Filter.of({"share": 7}))
    writer.join()
    assert (waited, found) == ([True], 3)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_while_a_filter_is_matched_is_matched_too(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New rows, changed ones and deleted ones, before and behind the block that is at hand."""
    draw = np.random.default_rng(4)
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.L2, kind=kind)
    oracle = MemoryStore(dimension=DIMENSION, metric=Metric.L2)
    names = [f"r{at:03d}" for at in range(150)]

    def write() -> None:
        some = [str(one) for one in draw.choice(names, 3, replace=False)]
        batch = [record(one, normal(1)[0], crop=int(draw.integers(3))) for one in some]
        gone = [some[0], names[int(draw.integers(150))]]
        for one in (store, oracle):
            one.upsert(batch)
            one.delete(gone)

    for _ in range(60):
        write()
    read = Gate.read
    blocks = 0

    def spied(gate: Gate, work: Any) -> Any:
        nonlocal blocks
        found = read(gate, work)
        if found is None and matching:
            blocks += 1
            write()
        return found

    monkeypatch.setattr("vectorstore.faiss.rows.MATCHED_BLOCK", 8)
    monkeypatch.setattr("vectorstore.faiss.rows.MASKS_MAX", 1)
    monkeypatch.setattr(Gate, "read", spied)
    for crop in range(12):
        matching = True
        store.count(Filter.of({"crop": [crop % 3, 9]}))
        matching = False
        for asked in ([crop % 3, 9], [crop % 3]):
            wanted = Filter.of({"crop": asked})
            assert store.count(wanted) == oracle.count(wanted)
    assert blocks > 12
