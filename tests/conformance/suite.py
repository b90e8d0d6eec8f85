"""What every store must do, whatever it is made of. Subclass it and provide the fixtures.

``StoreConformance`` needs ``make_store``; ``ReplicaConformance`` also needs ``make_replica``, which
returns a store that has applied everything up to seq 0 and may apply entry 1.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum, StrEnum
from typing import Any, Protocol

import numpy as np
import pytest

from vectorstore.errors import InvalidInput, StoreCorrupt, StoreUnavailable
from vectorstore.filters import Filter
from vectorstore.port import Replica, VectorStore
from vectorstore.types import Change, Metric, Query, Record

DIMENSION = 8
METRICS = list(Metric)


class Crop(StrEnum):
    MAIZE = "maize"


class Rank(IntEnum):
    SECOND = 2


class MakeStore(Protocol):
    def __call__(self, *, dimension: int = DIMENSION, metric: Metric = Metric.COSINE) -> Any: ...


def record(
    record_id: str,
    *,
    seed: int = 0,
    metadata: dict[str, Any] | None = None,
    text: str | None = None,
    dimension: int = DIMENSION,
) -> Record:
    """A record with a pseudo-random embedding that the seed decides."""
    embedding = np.random.default_rng(seed).normal(size=dimension).astype(np.float32)
    return Record(record_id, embedding, text or f"text of {record_id}", metadata or {})


def records(count: int) -> list[Record]:
    return [
        record(f"r{n:03d}", seed=n, metadata={"n": n, "even": n % 2 == 0}) for n in range(count)
    ]


def query(seed: int = 999, **options: Any) -> Query:
    return Query(np.random.default_rng(seed).normal(size=DIMENSION), **options)


class StoreConformance:
    """Runs against an empty store that takes plain writes."""

    @pytest.fixture
    def make_store(self) -> MakeStore:
        raise NotImplementedError

    @pytest.fixture
    def store(self, make_store: MakeStore) -> VectorStore:
        store: VectorStore = make_store()
        return store

    def test_it_is_a_vector_store(self, store: VectorStore) -> None:
        """The port's methods and properties are all there."""
        assert isinstance(store, VectorStore)
        assert store.name
        assert store.dimension == DIMENSION
        assert store.metric is Metric.COSINE

    def test_an_empty_store_answers_with_nothing(self, store: VectorStore) -> None:
        """No rows is an answer, not an error."""
        assert store.search(query()).hits == []
        assert store.count() == 0
        assert store.get(["nobody"]) == []
        assert store.scan() == []

    @pytest.mark.parametrize("metric", METRICS)
    def test_scores_keep_the_contract(self, make_store: MakeStore, metric: Metric) -> None:
        """A score is what Metric.scores defines, to float32 rounding, for each metric."""
        store = make_store(metric=metric)
        rows = records(40)
        store.upsert(rows)
        asked = query(k=40)
        held = {row.id: row for row in store.get([row.id for row in rows])}
        vector = np.asarray(asked.vector, np.float32)
        expected = metric.scores(vector, np.stack([held[row.id].embedding for row in rows]))
        wanted = dict(zip((row.id for row in rows), expected.tolist(), strict=True))
        hits = store.search(asked).hits
        if metric is not Metric.COSINE:
            assert {hit.id: hit.score for hit in hits} == pytest.approx(wanted, abs=2e-5, rel=1e-5)
        else:
            assert {hit.id: hit.score for hit in hits} == pytest.approx(wanted, abs=1e-6)

    @pytest.mark.parametrize("metric", METRICS)
    def test_hits_come_nearest_first(self, make_store: MakeStore, metric: Metric) -> None:
        """Hits are ordered by falling score and are the best k of all rows."""
        store = make_store(metric=metric)
        store.upsert(records(40))
        every = [hit.score for hit in store.search(query(k=40)).hits]
        assert every == sorted(every, reverse=True)
        best = [hit.score for hit in store.search(query(k=7)).hits]
        assert best == pytest.approx(every[:7], abs=1e-6)

    def test_a_hit_carries_the_record(self, store: VectorStore) -> None:
        """Text, metadata and seq come with the hit."""
        metadata = {"source_document": "guide.pdf", "page": 3, "tags": ["a", {"b": None}], "x": 1.5}
        seq = store.upsert([record("one", metadata=metadata, text="Maize – 'ufa' \\ \n 🌽")])
        (hit,) = store.search(query(k=1)).hits
        assert hit.id == "one"
        assert hit.text == "Maize – 'ufa' \\ \n 🌽"
        assert dict(hit.metadata) == metadata
        assert hit.seq == seq

    def test_k_beyond_the_rows_returns_all_rows(self, store: VectorStore) -> None:
        """Fewer rows than k is a shorter answer."""
        store.upsert(records(5))
        assert len(store.search(query(k=1000)).hits) == 5

    @pytest.mark.parametrize("k", [0, -1, 1001])
    def test_k_outside_its_limits_is_refused(self, store: VectorStore, k: int) -> None:
        """The error names the limit."""
        with pytest.raises(InvalidInput, match="1000"):
            store.search(query(k=k))

    @pytest.mark.parametrize(
        ("condition", "expected"),
        [
            ({"kind": "a"}, {"r1", "r2"}),
            ({"kind": ["a", "b"]}, {"r1", "r2", "r3"}),
            ({"kind": "a", "n": 1}, {"r1"}),
            ({"n": 1}, {"r1", "r3"}),
            ({"n": True}, {"r4"}),
            ({"n": False}, set()),
            ({"n": None}, {"r5"}),
            ({"missing": None}, set()),
            ({"kind": []}, set()),
            ({"kind": [None, 7, "b"]}, {"r3"}),
            ({"kind": "A"}, set()),
            ({"n": "1"}, {"r6"}),
            ({"list": "x"}, set()),
            ({'quote\'d "key"': "v'\"\\"}, {"r7"}),
        ],
    )
    def test_filters_mean_the_same_everywhere(
        self, store: VectorStore, condition: dict[str, Any], expected: set[str]
    ) -> None:
        """Equality is JSON's: 1 equals 1.0 but not true nor "1"; null matches a present null only."""
        store.upsert(
            [
                record("r1", seed=1, metadata={"kind": "a", "n": 1}),
                record("r2", seed=2, metadata={"kind": "a", "n": 2}),
                record("r3", seed=3, metadata={"kind": "b", "n": 1.0}),
                record("r4", seed=4, metadata={"n": True}),
                record("r5", seed=5, metadata={"n": None, "list": ["x"]}),
                record("r6", seed=6, metadata={"n": "1"}),
                record("r7", seed=7, metadata={'quote\'d "key"': "v'\"\\"}),
            ]
        )
        allowed = Filter.of(condition)
        assert {hit.id for hit in store.search(query(k=10, filter=allowed)).hits} == expected
        assert store.count(allowed) == len(expected)

    @pytest.mark.parametrize(
        ("stored", "wanted"),
        [
            ("maize", Crop.MAIZE),
            ("maize", np.str_("maize")),
            (Crop.MAIZE, "maize"),
            (2, Rank.SECOND),
            (1e23, 1e23),
            (1.2345678901234567e20, 1.2345678901234567e20),
            (np.float64(0.1), 0.1),
            (-0.0, 0),
            (5e-324, 5e-324),
            (2**60 + 1, 2**60 + 1),
        ],
    )
    def test_a_filter_finds_what_was_stored_under_the_same_value(
        self, store: VectorStore, stored: Any, wanted: Any
    ) -> None:
        """Members of enumerations are what they derive from; large floats come back as whole numbers."""
        store.upsert(
            [record("r1", metadata={"crop": stored}), record("r2", metadata={"crop": "x"})]
        )
        for allowed in (
            Filter.of({"crop": wanted}),
            Filter.of({"crop": [wanted, "other"]}),
            Filter((("crop", (wanted,)),)),
            Filter.of({"crop": stored}),
        ):
            assert store.count(allowed) == 1
            assert [hit.id for hit in store.search(query(filter=allowed)).hits] == ["r1"]

    def test_a_filter_still_gives_k_rows_when_k_match(self, store: VectorStore) -> None:
        """Filtering happens before the cut to k, however far away the matching rows are."""
        store.upsert(records(60))
        hits = store.search(query(k=20, filter=Filter.of({"even": True}))).hits
        assert len(hits) == 20
        assert all(hit.metadata["even"] is True for hit in hits)

    def test_search_many_equals_one_by_one(self, store: VectorStore) -> None:
        """A batch is answered in order, filters and different k included."""
        store.upsert(records(30))
        queries = [query(seed, k=1 + seed % 5) for seed in range(12)]
        queries.append(query(3, k=4, filter=Filter.of({"even": False})))
        batch = store.search_many(queries)
        single = [store.search(one) for one in queries]
        assert [[hit.id for hit in a.hits] for a in batch] == [
            [hit.id for hit in a.hits] for a in single
        ]
        assert store.search_many([]) == []

    def test_upsert_replaces_by_id(self, store: VectorStore) -> None:
        """The new record takes the old one's place: vector, text and metadata."""
        first = store.upsert([record("one", seed=1, metadata={"v": 1})])
        second = store.upsert([record("one", seed=2, metadata={"w": 2}, text="new")])
        assert second > first
        (held,) = store.get(["one"])
        assert (held.text, dict(held.metadata), held.seq) == ("new", {"w": 2}, second)
        assert store.count() == 1
        wanted = record("one", seed=2).embedding
        assert held.embedding == pytest.approx(wanted / np.linalg.norm(wanted), abs=1e-6)

    def test_the_last_of_equal_ids_in_a_batch_wins(self, store: VectorStore) -> None:
        """Order inside a batch is the order of writing."""
        store.upsert(
            [record("a", seed=1, text="first"), record("b"), record("a", seed=2, text="last")]
        )
        assert store.count() == 2
        assert store.get(["a"])[0].text == "last"

    def test_delete_removes_and_forgives(self, store: VectorStore) -> None:
        """Deleted rows are gone from every read; an unknown id is no error; seq still rises."""
        before = store.upsert(records(4))
        after = store.delete(["r001", "nobody", "r001"])
        assert after > before
        assert store.count() == 3
        assert store.get(["r001"]) == []
        assert "r001" not in {hit.id for hit in store.search(query(k=10)).hits}
        assert "r001" not in {row.id for row in store.scan()}

    def test_a_deleted_id_may_be_written_again(self, store: VectorStore) -> None:
        """A delete is no tombstone for later writes."""
        store.upsert([record("one", text="old")])
        store.delete(["one"])
        store.upsert([record("one", text="new")])
        assert store.get(["one"])[0].text == "new"

    def test_an_answer_includes_the_own_write(self, store: VectorStore) -> None:
        """The answer's applied seq reaches the write that this client was given a seq for."""
        seq = store.upsert([record("one")])
        assert store.search(query()).applied_seq >= seq
        seq = store.delete(["one"])
        assert store.search(query()).applied_seq >= seq

    def test_nothing_is_shared_with_the_caller(self, store: VectorStore) -> None:
        """What a caller does to what it gave, or was given, changes nothing that the store holds."""
        given = {"page": 1, "nested": {"list": [1]}}
        vector = np.random.default_rng(7).normal(size=DIMENSION).astype(np.float32)
        vector /= np.linalg.norm(vector)
        kept = vector.copy()
        store.upsert([Record("one", vector, "text", given)])
        ways: list[Callable[[], list[Any]]] = [
            lambda: store.search(Query(kept)).hits,
            lambda: store.search_many([Query(kept)])[0].hits,
            lambda: store.get(["one"]),
            lambda: store.scan(),
        ]
        owned: Any = [given]
        for way in ways:
            for metadata in owned:
                metadata["page"] = 2
                metadata["nested"]["list"].append(2)
            vector[:] = 0
            found = way()
            assert found[0].metadata == {"page": 1, "nested": {"list": [1]}}
            owned = [found[0].metadata]
            if isinstance(found[0], Record):
                assert np.allclose(found[0].embedding, kept, atol=1e-6)
                vector = found[0].embedding
        assert store.get(["one"])[0].metadata == {"page": 1, "nested": {"list": [1]}}

    def test_get_keeps_the_order_asked(self, store: VectorStore) -> None:
        """Unknown ids are left out; the rest comes in the order of the question."""
        store.upsert(records(5))
        asked = ["r003", "nobody", "r000", "r004", "nul\0", "lone\ud800", "", np.str_("r001")]
        # More often than a router lets a store fail.
        for _ in range(10):
            assert [row.id for row in store.get(asked)] == ["r003", "r000", "r004", "r001"]
        assert store.search(query()).hits

    def test_a_page_may_be_as_large_as_one_likes(self, store: VectorStore) -> None:
        """A limit beyond all rows gives all rows."""
        store.upsert(records(3))
        for limit in (2**70, np.int64(7), True):
            page = store.scan(after="r000", limit=limit)
            assert [row.id for row in page] == ["r001", "r002"][: int(limit)]

    def test_scan_walks_in_byte_order(self, store: VectorStore) -> None:
        """Ids beyond ASCII are ordered by their UTF-8 bytes, and pages join without gap or overlap."""
        ids = [
            "Z",
            "a",
            "é",
            "z",
            "zz",
            "ÿ",
            "Ā",
            "\u2028",
            "\uffff",
            "\U0001f33d",
            "0",
            "-",
            "a b",
        ]
        store.upsert([record(record_id) for record_id in ids])
        walked: list[str] = []
        while page := store.scan(after=walked[-1] if walked else "", limit=3):
            walked += [row.id for row in page]
        assert walked == sorted(ids, key=str.encode)

    def test_records_come_back_bit_for_bit(self, make_store: MakeStore) -> None:
        """Embeddings, texts and metadata survive the way in and out unchanged."""
        store = make_store(metric=Metric.L2)
        vector = np.array([1e-30, -0.0, 3.4e18, 1 / 3, -1e-45, 7, 0, 2**-126], np.float32)
        metadata = {
            "big": 2**70,
            "small": 1e-9,
            "deep": {"": [1, 2.50, {"é": "\u2028"}]},
            "f": 1e22,
        }
        store.upsert([Record("one", vector, "tab\t\u0001\ud7ff", metadata)])
        (held,) = store.get(["one"])
        assert held.embedding.tobytes() == vector.tobytes()
        assert held.text == "tab\t\u0001\ud7ff"
        assert dict(held.metadata) == metadata

    @pytest.mark.parametrize(
        "bad",
        [
            Record("nan", np.full(DIMENSION, np.nan, np.float32), "t", {}),
            Record("short", np.ones(DIMENSION - 1, np.float32), "t", {}),
            Record("zero", np.zeros(DIMENSION, np.float32), "t", {}),
            Record("wide", np.full(DIMENSION, 1e200), "t", {}),  # type: ignore[arg-type]
            Record("long", np.full(DIMENSION, 1e30, np.float32), "t", {}),
            Record("nul\0", np.ones(DIMENSION, np.float32), "t", {}),
            Record("", np.ones(DIMENSION, np.float32), "t", {}),
            Record("text", np.ones(DIMENSION, np.float32), "nul\0", {}),
            Record("lone", np.ones(DIMENSION, np.float32), "\ud800", {}),
            Record("meta", np.ones(DIMENSION, np.float32), "t", {"x": float("nan")}),
            Record("list", np.ones(DIMENSION, np.float32), "t", ["x"]),  # type: ignore[arg-type]
        ],
        ids=lambda bad: repr(bad.id),
    )
    # Whoever runs Python with -W error is told the same.
    @pytest.mark.filterwarnings("error::RuntimeWarning")
    def test_a_refused_write_leaves_no_trace(self, store: VectorStore, bad: Record) -> None:
        """One bad record in a batch refuses the whole batch, and nothing of it is seen."""
        before = store.upsert([record("kept")])
        with pytest.raises(InvalidInput):
            store.upsert([record("good"), bad])
        assert [row.id for row in store.scan()] == ["kept"]
        answer = store.search(query(k=10))
        assert [hit.id for hit in answer.hits] == ["kept"]
        assert answer.applied_seq == before

    @pytest.mark.parametrize(
        "call",
        [
            lambda store: store.search(query(k=10.0)),
            lambda store: store.search(query(k=None)),
            lambda store: store.search(query(min_seq="1")),
            lambda store: store.search(query(filter={"page": 1})),
            lambda store: store.search(query(timeout_ms="50")),
            lambda store: store.search(query(timeout_ms=float("nan"))),
            lambda store: store.search(query(timeout_ms=float("inf"))),
            lambda store: store.search(query(label=1)),
            lambda store: store.search(query(label="\ud800")),
            lambda store: store.search(query(label="x" * 101)),
            lambda store: store.search(query(filter=Filter.of({"page": 10**5000}))),
            lambda store: store.search(query(filter=Filter.of({"page": "\ud800"}))),
            lambda store: store.upsert([record("c", metadata={"page": 10**5000})]),
            lambda store: store.search(query(spent_ms="1")),
            lambda store: store.search(Query("a text")),  # type: ignore[arg-type]
            lambda store: store.count({"page": 1}),
            lambda store: store.count(Filter((("page", (["maize"],)),))),  # type: ignore[arg-type]
            lambda store: store.get("ab"),
            lambda store: store.get([1]),
            lambda store: store.delete("ab"),
            lambda store: store.delete([1]),
            lambda store: store.upsert(record("c")),
            lambda store: store.scan(after=None),
            lambda store: store.scan(after="\ud800"),
            lambda store: store.scan(after="nul\0"),
            lambda store: store.scan(limit=-1),
            lambda store: store.get(["a"], timeout_ms="50"),
            lambda store: store.scan(timeout_ms=float("nan")),
            lambda store: store.count(timeout_ms=-1),
            lambda store: store.describe(timeout_ms=float("inf")),
        ],
    )
    def test_a_mistake_of_the_caller_is_told_and_is_no_failure_of_the_store(
        self, store: VectorStore, call: Callable[[Any], object]
    ) -> None:
        """InvalidInput at once, however often; then the store answers others as before."""
        store.upsert([record("a"), record("b")])
        for _ in range(20):
            with pytest.raises(InvalidInput):
                call(store)
        assert len(store.search(query(k=np.int64(1))).hits) == 1
        assert store.count() == 2

    def test_a_deadline_that_is_met_changes_nothing(self, store: VectorStore) -> None:
        """Every read may bring one."""
        store.upsert(records(5))
        ms = 60_000.0
        assert [row.id for row in store.get(["r001"], timeout_ms=ms)] == ["r001"]
        assert [row.id for row in store.scan(limit=2, timeout_ms=ms)] == ["r000", "r001"]
        assert store.count(timeout_ms=ms) == 5
        assert store.count(Filter.of({"even": True}), timeout_ms=ms) == 3
        assert store.describe(timeout_ms=ms).keys()

    def test_describe_gives_scalars(self, store: VectorStore) -> None:
        """What describe says can be written as JSON."""
        for name, value in store.describe().items():
            assert isinstance(name, str)
            assert value is None or isinstance(value, str | int | float | bool)

    def test_a_closed_store_says_so(self, store: VectorStore) -> None:
        """After close every call raises StoreUnavailable; closing twice is harmless."""
        store.upsert([record("one")])
        store.close()
        store.close()
        calls: list[Callable[[], object]] = [
            lambda: store.search(query()),
            lambda: store.upsert([record("two")]),
            lambda: store.delete(["one"]),
            lambda: store.get(["one"]),
            lambda: store.scan(),
            lambda: store.count(),
        ]
        for call in calls:
            with pytest.raises(StoreUnavailable):
                call()


class ReplicaConformance(StoreConformance):
    """Adds the applying of journal entries."""

    @pytest.fixture
    def make_replica(self) -> MakeStore:
        raise NotImplementedError

    @pytest.fixture
    def replica(self, make_replica: MakeStore) -> Replica:
        replica: Replica = make_replica()
        return replica

    def test_apply_moves_the_seq(self, replica: Replica) -> None:
        """Entries are applied in order, and their seq is the record's."""
        assert isinstance(replica, Replica)
        assert replica.applied_seq() == 0
        assert replica.apply(changes("a", "b", "c")) == 3
        assert replica.applied_seq() == 3
        assert [(row.id, row.seq) for row in replica.scan()] == [("a", 1), ("b", 2), ("c", 3)]
        assert replica.apply([]) == 3

    def test_entries_applied_before_are_skipped(self, replica: Replica) -> None:
        """Applying a stretch again, or one that overlaps, changes nothing that was applied."""
        stretch = changes("a", "b", "-a", "c")
        assert replica.apply(stretch[:3]) == 3
        assert replica.apply(stretch) == 4
        assert replica.apply(stretch) == 4
        assert [(row.id, row.seq) for row in replica.scan()] == [("b", 2), ("c", 4)]

    def test_a_gap_is_refused_and_nothing_is_applied(self, replica: Replica) -> None:
        """An entry whose predecessor is missing does not get in."""
        replica.apply(changes("a"))
        with pytest.raises(StoreCorrupt, match="gap"):
            replica.apply([Change(3, "c", record("c"))])
        assert replica.applied_seq() == 1
        assert [row.id for row in replica.scan()] == ["a"]

    def test_the_last_entry_of_an_id_wins(self, replica: Replica) -> None:
        """Inside one stretch, over upserts and deletes, and a record's seq is that of its last write."""
        replica.apply(changes("a", "b", "a", "-b", "c", "-c", "c"))
        assert [(row.id, row.seq) for row in replica.scan()] == [("a", 3), ("c", 7)]
        assert replica.get(["a"])[0].text == "text at 3"

    def test_answers_tell_the_applied_seq(self, replica: Replica) -> None:
        """An answer names the last entry that it includes."""
        replica.apply(changes("a", "b"))
        assert replica.search(query()).applied_seq == 2
        replica.apply([Change(3, "a", None)])
        answer = replica.search(query())
        assert answer.applied_seq == 3
        assert [hit.id for hit in answer.hits] == ["b"]


def changes(*marks: str, start: int = 1) -> list[Change]:
    """Journal entries: ``"a"`` upserts a, ``"-a"`` deletes it."""
    entries: list[Change] = []
    for seq, mark in enumerate(marks, start=start):
        if mark.startswith("-"):
            entries.append(Change(seq, mark[1:], None))
        else:
            written = record(mark, seed=seq, text=f"text at {seq}")
            unit = written.embedding / np.float32(np.linalg.norm(written.embedding))
            entries.append(Change(seq, mark, Record(mark, unit, written.text, {}, seq)))
    return entries
