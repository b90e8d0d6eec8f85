"""Foreign folders become stores with nothing lost."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from tests.foreign.layouts import (
    flat_chunk,
    nested_chunk,
    write_bare_layout,
    write_bot_layout,
    write_langchain_layout,
    write_llamaindex_layout,
)
from vectorstore import ConfigurationError, Filter, IntakeRefused, Metric, Query
from vectorstore.faiss.intake import recognise, take_in

ROWS, DIMENSION = 120, 12


def vectors(count: int = ROWS) -> Any:
    return (np.random.default_rng(3).normal(size=(count, DIMENSION)) * 3).astype(np.float32)


def mixed_chunks() -> list[dict[str, Any]]:
    return [flat_chunk(at) if at % 2 else nested_chunk(at) for at in range(ROWS)]


def labelled() -> tuple[list[str], list[str], list[dict[str, Any]]]:
    ids = [f"doc-{at}" for at in range(ROWS)]
    return ids, [f"text {at}" for at in range(ROWS)], [{"n": at} for at in range(ROWS)]


@pytest.mark.parametrize(
    ("kind", "metric"), [("flat", Metric.COSINE), ("ivf", Metric.L2), ("hnsw", Metric.L2)]
)
def test_the_bots_layout_keeps_every_vector_and_both_chunk_shapes(
    tmp_path: Path, kind: str, metric: Metric
) -> None:
    """Positions become ids, vectors are bit for bit the index's, and documents can be filtered by."""
    raw = vectors()
    write_bot_layout(tmp_path / "bot", kind, raw, mixed_chunks())
    taken = take_in(tmp_path / "bot", copy_to=tmp_path / "copy")
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True) if kind == "flat" else raw
    assert (taken.layout, taken.metric, taken.rows) == ("bot", metric, ROWS)
    np.testing.assert_array_equal(taken.store.vectors(0, ROWS), expected)
    assert [one.id for one in taken.store.records(0, ROWS)] == [str(at) for at in range(ROWS)]
    beans = Filter.of({"source_document": "beans.pdf"})
    maize = Filter.of({"source_document": "maize.pdf"})
    assert taken.store.count(beans) == taken.store.count(maize) == ROWS // 2
    nested = taken.store.get(["4"])[0]
    assert nested.text == "passage 4"
    assert nested.metadata == {
        "chunk_id": 4,
        "start_token": 40,
        "end_token": 50,
        "token_count": 10,
        "source_document": "beans.pdf",
        "file_path": "guides/beans.pdf",
        "document_type": "pdf",
    }
    assert taken.store.applied_seq() == 0
    assert nested.seq == 0


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_answers_after_intake_are_those_of_the_index(tmp_path: Path, kind: str) -> None:
    """The nearest rows are the ones FAISS itself would name, with scores of the contract."""
    raw = vectors()
    path = write_bot_layout(tmp_path / "bot", kind, raw, mixed_chunks())
    store = take_in(path, copy_to=tmp_path / "copy").store
    index = faiss.read_index(str(path))
    for query in raw[:10]:
        asked = query / np.linalg.norm(query) if kind == "flat" else query
        distances, found = index.search(asked.reshape(1, -1), 5)
        hits = store.search(Query(query, k=5)).hits
        named = [at for at in found[0].tolist() if at >= 0]
        assert [hit.id for hit in hits][: len(named)] == [str(at) for at in named]
        sign = 1 if kind == "flat" else -1
        scores = [hit.score for hit in hits][: len(named)]
        np.testing.assert_allclose(scores, sign * distances[0][: len(named)], rtol=1e-6)
        assert len(hits) == 5


def test_a_collision_of_names_keeps_the_nested_object_whole(tmp_path: Path) -> None:
    """A field that both levels hold with different values stays, and nothing of either is lost."""
    chunk = nested_chunk(0) | {"source_document": "other.pdf"}
    write_bot_layout(tmp_path / "bot", "flat", vectors(1), [chunk])
    record = take_in(tmp_path / "bot", copy_to=tmp_path / "copy").store.get(["0"])[0]
    assert record.metadata["source_document"] == "other.pdf"
    assert record.metadata["metadata"] == chunk["metadata"]


def test_langchains_folder_keeps_ids_texts_and_metadata(tmp_path: Path) -> None:
    """The docstore's ids are the records' ids; no pickle class is imported."""
    ids, texts, metadata = labelled()
    write_langchain_layout(tmp_path / "lc", vectors(), ids, texts, metadata)
    taken = take_in(tmp_path / "lc", copy_to=tmp_path / "copy")
    assert (taken.layout, taken.metric) == ("langchain", Metric.L2)
    np.testing.assert_array_equal(taken.store.vectors(0, ROWS), vectors())
    records = taken.store.records(0, ROWS)
    assert [(r.id, r.text, r.metadata) for r in records] == list(
        zip(ids, texts, metadata, strict=True)
    )


@pytest.mark.parametrize("mapped", [False, True])
def test_llamaindexes_folder_is_placed_by_its_own_maps(tmp_path: Path, mapped: bool) -> None:
    """Nodes go to their vectors by the index store, or by id_map.json over an IDMap with holes."""
    ids, texts, metadata = labelled()
    write_llamaindex_layout(tmp_path / "li", vectors(), ids, texts, metadata, mapped=mapped)
    taken = take_in(tmp_path / "li", copy_to=tmp_path / "copy")
    assert taken.layout == "llamaindex"
    np.testing.assert_array_equal(taken.store.vectors(0, ROWS), vectors())
    records = taken.store.records(0, ROWS)
    assert [(r.id, r.text, r.metadata) for r in records] == list(
        zip(ids, texts, metadata, strict=True)
    )


def bare_index(kind: str) -> Any:
    raw = vectors()
    labels = np.arange(ROWS, dtype=np.int64)
    if kind == "flat":
        index = faiss.IndexFlatL2(DIMENSION)
        index.add(raw)
    elif kind == "idmap of hnsw":
        index = faiss.IndexIDMap(faiss.IndexHNSWFlat(DIMENSION, 8))
        index.add_with_ids(raw, labels)
    elif kind == "idmap2 of ivf":
        inner = faiss.IndexIVFFlat(faiss.IndexFlatL2(DIMENSION), DIMENSION, 3)
        inner.train(raw)
        index = faiss.IndexIDMap2(inner)
        index.add_with_ids(raw, labels)
    else:
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(DIMENSION), DIMENSION, 3)
        index.train(raw)
        # Added backwards, so that the order in the lists is not the order of the ids.
        index.add_with_ids(raw[::-1].copy(), labels[::-1].copy())
    return index


@pytest.mark.parametrize("kind", ["flat", "idmap of hnsw", "idmap2 of ivf", "ivf with ids"])
def test_a_bare_index_of_any_kind_with_records(tmp_path: Path, kind: str) -> None:
    """IDMaps are unwrapped, and rows find their records by label whatever the order in the lists."""
    ids, texts, metadata = labelled()
    write_bare_layout(tmp_path / "bare", bare_index(kind), ids, texts, metadata)
    store = take_in(tmp_path / "bare", copy_to=tmp_path / "copy").store
    np.testing.assert_array_equal(store.vectors(0, ROWS), vectors())
    for at in (0, 17, ROWS - 1):
        assert store.search(Query(vectors()[at], k=1)).hits[0].id == f"doc-{at}"
    store.delete(["doc-17"])
    assert store.search(Query(vectors()[17], k=1)).hits[0].id != "doc-17"


def test_a_bare_index_with_numbers_of_its_own(tmp_path: Path) -> None:
    """The lines go by its order where its numbers do, wherever they begin; else nobody knows, and it is
    refused."""
    ids, texts, metadata = labelled()
    numbers = np.arange(100, 100 + 2 * ROWS, 2, dtype=np.int64)
    for name, given in (("rising", numbers), ("mixed", numbers[::-1].copy())):
        index = faiss.IndexIDMap(faiss.IndexFlatL2(DIMENSION))
        index.add_with_ids(vectors(), given)
        write_bare_layout(tmp_path / name, index, ids, texts, metadata)
    store = take_in(tmp_path / "rising", copy_to=tmp_path / "copy").store
    for at in (0, 17, ROWS - 1):
        assert store.search(Query(vectors()[at], k=1)).hits[0].id == f"doc-{at}"
    with pytest.raises(IntakeRefused, match=r"does not match.* do not rise \(338, 336, "):
        take_in(tmp_path / "mixed", copy_to=tmp_path / "other")


@pytest.mark.parametrize("first", [0, 100])
def test_lines_that_name_the_numbers_of_the_index_go_with_them(tmp_path: Path, first: int) -> None:
    """In whatever order both stand, also where the numbers are those of lines."""
    numbers = np.arange(first, first + ROWS, dtype=np.int64)[::-1].copy()
    index = faiss.IndexIDMap(faiss.IndexFlatL2(DIMENSION))
    index.add_with_ids(vectors(), numbers)
    write_bare_layout(tmp_path / "bare", index, numbers)
    store = take_in(tmp_path / "bare", copy_to=tmp_path / "copy").store
    for at in (0, 17, ROWS - 1):
        assert store.search(Query(vectors()[at], k=1)).hits[0].id == str(numbers[at])


def test_ids_alone_are_enough(tmp_path: Path) -> None:
    """An ids.npy of integers gives ids in decimal and empty texts."""
    write_bare_layout(tmp_path / "bare", bare_index("flat"), list(range(500, 500 + ROWS)))
    record = take_in(tmp_path / "bare", copy_to=tmp_path / "copy").store.get(["503"])[0]
    assert (record.text, record.metadata) == ("", {})


def test_what_repeats_in_the_lines_is_held_once(tmp_path: Path) -> None:
    """The names of the keys and the short texts beside them: else millions of lines hold millions of each."""
    ids, texts, _ = labelled()
    fields = [{"crop": f"maize {at % 2}", "page": at} for at in range(ROWS)]
    write_bare_layout(tmp_path / "bare", bare_index("flat"), ids, texts, fields)
    store = take_in(tmp_path / "bare", copy_to=tmp_path / "copy").store
    held = [one.metadata for one in store.records(0, ROWS)]
    assert held == fields
    assert len({id(key) for one in held for key in one}) == 2
    assert len({id(one["crop"]) for one in held}) == 2


def test_what_only_pythons_reader_takes_is_taken(tmp_path: Path) -> None:
    """A whole number beyond 64 bits stays whole; what JSON does not know is refused by its position."""
    ids, texts, fields = labelled()
    fields[3] = {"n": 2**70, "below": -(2**64)}
    write_bare_layout(tmp_path / "bare", bare_index("flat"), ids, texts, fields)
    store = take_in(tmp_path / "bare", copy_to=tmp_path / "copy").store
    assert store.get(["doc-3"])[0].metadata == {"n": 2**70, "below": -(2**64)}
    fields[5] = {"n": float("nan")}
    write_bare_layout(tmp_path / "odd", bare_index("flat"), ids, texts, fields)
    with pytest.raises(IntakeRefused, match=r"position:5 .*nan"):
        take_in(tmp_path / "odd", copy_to=tmp_path / "other")


def test_a_durable_copy_is_made_and_the_source_is_left_alone(tmp_path: Path) -> None:
    """The copies carry their sums; the source keeps every byte; a second run reuses the copy."""
    path = write_bot_layout(tmp_path / "bot", "flat", vectors(), mixed_chunks())
    before = {one.name: one.read_bytes() for one in (tmp_path / "bot").iterdir()}
    take_in(path, copy_to=tmp_path / "copy")
    assert {one.name: one.read_bytes() for one in (tmp_path / "bot").iterdir()} == before
    for line in (tmp_path / "copy" / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256(before[name]).hexdigest() == digest
        assert (tmp_path / "copy" / name).read_bytes() == before[name]
    assert take_in(path, copy_to=tmp_path / "copy").rows == ROWS


def test_a_copy_never_replaces_something_else(tmp_path: Path) -> None:
    """A folder that holds other files is refused and left as it was."""
    path = write_bot_layout(tmp_path / "bot", "flat", vectors(), mixed_chunks())
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "faiss_index_flat.index").write_text("precious")
    with pytest.raises(ConfigurationError, match="not empty"):
        take_in(path, copy_to=tmp_path / "copy")
    assert (tmp_path / "copy" / "faiss_index_flat.index").read_text() == "precious"


def test_layouts_are_told_by_content_not_by_name(tmp_path: Path) -> None:
    """Renamed files are recognised all the same."""
    path = write_bot_layout(tmp_path / "bot", "flat", vectors(), mixed_chunks())
    path.rename(tmp_path / "bot" / "a.bin")
    path.with_suffix(".metadata").rename(tmp_path / "bot" / "b.bin")
    assert recognise(tmp_path / "bot").name == "bot"


def test_two_indexes_in_one_folder_must_be_named(tmp_path: Path) -> None:
    """The folder alone is refused with both names; each file by itself is taken."""
    first = write_bot_layout(tmp_path / "bot", "flat", vectors(), mixed_chunks())
    write_bot_layout(tmp_path / "bot", "hnsw", vectors(), mixed_chunks())
    with pytest.raises(IntakeRefused, match=r"faiss_index_flat\.index, faiss_index_hnsw\.index"):
        recognise(tmp_path / "bot")
    assert recognise(first).sides[0].name == "faiss_index_flat.metadata"


def test_a_folder_that_is_not_there_or_holds_no_index(tmp_path: Path) -> None:
    """Each is a clear error of its own kind."""
    with pytest.raises(ConfigurationError, match="does not exist"):
        recognise(tmp_path / "nowhere")
    with pytest.raises(IntakeRefused, match="holds no FAISS index"):
        recognise(tmp_path)


def test_the_metric_of_an_inner_product_index_follows_its_vectors(tmp_path: Path) -> None:
    """Unit vectors mean cosine, others inner product; a metric it cannot serve is refused."""
    ids, texts, metadata = labelled()
    index = faiss.IndexFlatIP(DIMENSION)
    index.add(vectors())
    write_bare_layout(tmp_path / "bare", index, ids, texts, metadata)
    taken = take_in(tmp_path / "bare", copy_to=tmp_path / "copy")
    assert taken.metric is Metric.INNER_PRODUCT
    for refused in (Metric.COSINE, Metric.L2):
        with pytest.raises(IntakeRefused, match="built for"):
            take_in(tmp_path / "bare", copy_to=tmp_path / "copy", metric=refused)
