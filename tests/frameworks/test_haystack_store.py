"""What the Haystack adapter promises beyond Haystack's own suites, over an exact store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("haystack", reason="the extra `haystack` is not installed")

from haystack import Pipeline
from haystack.core.serialization_security import allow_deserialization_module
from haystack.dataclasses import ByteStream, Document
from haystack.document_stores.types import DuplicatePolicy, FilterPolicy
from haystack.errors import FilterError

from vectorstore import InvalidInput, Metric, Unsupported
from vectorstore.integrations.haystack import HaystackRetriever, HaystackStore
from vectorstore.memory import MemoryStore

DOCUMENTS = [
    Document(
        id="maize", content="maize", meta={"kind": "crop", "page": 1}, embedding=[1.0, 0.0, 0.0]
    ),
    Document(
        id="corn", content="corn", meta={"kind": "crop", "page": 2}, embedding=[0.9, 0.1, 0.0]
    ),
    Document(id="beans", content="beans", meta={"kind": "crop"}, embedding=[0.6, 0.8, 0.0]),
    Document(id="goats", content="goats", meta={"kind": "animal"}, embedding=[0.0, 0.0, 1.0]),
]
MAIZE = [1.0, 0.0, 0.0]


def open_farm() -> MemoryStore:
    """A function that a saved pipeline can name."""
    store = MemoryStore(dimension=3)
    HaystackStore(store).write_documents(DOCUMENTS)
    return store


def filled(metric: Metric = Metric.COSINE) -> HaystackStore:
    store = HaystackStore(MemoryStore(dimension=3, metric=metric))
    store.write_documents(DOCUMENTS)
    return store


def ids(documents: list[Document]) -> list[str]:
    return [document.id for document in documents]


def clause(key: str, operator: str, value: Any) -> dict[str, Any]:
    return {"field": key, "operator": operator, "value": value}


def every(*conditions: dict[str, Any]) -> dict[str, Any]:
    return {"operator": "AND", "conditions": list(conditions)}


def test_a_pipeline_retrieves_what_was_written() -> None:
    """Smoke: documents go in, a pipeline answers nearest first, with scores, sync and async."""
    retriever = HaystackRetriever(filled(), top_k=2)
    pipeline = Pipeline()
    pipeline.add_component("retriever", retriever)
    answer = pipeline.run({"retriever": {"query_embedding": MAIZE}})["retriever"]["documents"]
    assert ids(answer) == ["maize", "corn"]
    assert answer[0].score == pytest.approx(1.0)
    assert answer[0].embedding is None
    assert asyncio.run(retriever.run_async(MAIZE, top_k=1))["documents"][0].id == "maize"


@pytest.mark.parametrize("metric", list(Metric))
def test_scores_are_higher_for_nearer(metric: Metric) -> None:
    """Whatever the metric, the order of the answer is the falling order of the scores."""
    scores = [d.score or 0.0 for d in filled(metric).embedding_retrieval(MAIZE)]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (clause("meta.kind", "==", "animal"), ["goats"]),
        (clause("kind", "==", "animal"), ["goats"]),
        (clause("meta.page", "in", [2, 3]), ["corn"]),
        (clause("meta.page", "in", []), []),
        (every(clause("meta.kind", "==", "crop"), clause("meta.page", "in", [1])), ["maize"]),
        (every(clause("meta.page", "in", [1, 2]), clause("meta.page", "==", 2.0)), ["corn"]),
        (every(every(clause("meta.page", "==", 1)), clause("meta.page", "==", 2)), []),
        ({}, ["maize", "corn", "beans", "goats"]),
    ],
)
def test_retrieval_filters_are_exact_and_agree_with_haystack(
    filters: dict[str, Any], expected: list[str]
) -> None:
    """What is pushed into the store's search means what Haystack means by it."""
    store = filled()
    assert ids(store.embedding_retrieval(MAIZE, filters=filters)) == expected
    assert sorted(ids(store.filter_documents(filters))) == sorted(expected)


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        (clause("meta.page", ">", 1), "'>'"),
        (clause("meta.page", "!=", 1), "'!='"),
        (clause("meta.page", "not in", [1]), "'not in'"),
        ({"operator": "OR", "conditions": [clause("meta.page", "==", 1)]}, "'OR'"),
        ({"operator": "NOT", "conditions": [clause("meta.page", "==", 1)]}, "'NOT'"),
        (clause("meta.author.name", "==", "x"), "meta.author.name"),
        (clause("content", "==", "maize"), "'content'"),
        (clause("meta.page", "==", None), "the value None"),
        (clause("meta.page", "==", [1]), "list"),
    ],
)
def test_what_a_search_cannot_filter_is_refused_by_name(
    filters: dict[str, Any], named: str
) -> None:
    """The refusal is ours and Haystack's; filter_documents answers the same filter."""
    store = filled()
    with pytest.raises(Unsupported, match=named) as refusal:
        store.embedding_retrieval(MAIZE, filters=filters)
    assert isinstance(refusal.value, FilterError)
    assert isinstance(store.filter_documents(filters), list)


@pytest.mark.parametrize(
    "filters", [{"operator": "AND"}, {"field": "meta.x", "value": 1}, clause("meta.x", "in", 1)]
)
def test_malformed_retrieval_filters_are_invalid_input(filters: dict[str, Any]) -> None:
    """A filter outside Haystack's language is bad input, in both error trees."""
    with pytest.raises(InvalidInput) as refusal:
        filled().embedding_retrieval(MAIZE, filters=filters)
    assert isinstance(refusal.value, FilterError)


def test_runtime_filters_replace_or_merge() -> None:
    """The retriever follows Haystack's filter policy."""
    crops, second = clause("meta.kind", "==", "crop"), clause("meta.page", "==", 2)
    replacing = HaystackRetriever(filled(), filters=crops)
    assert ids(replacing.run(MAIZE)["documents"]) == ["maize", "corn", "beans"]
    assert ids(replacing.run(MAIZE, clause("meta.kind", "==", "animal"))["documents"]) == ["goats"]
    merging = HaystackRetriever(filled(), filters=crops, filter_policy=FilterPolicy.MERGE)
    assert ids(merging.run(MAIZE, second)["documents"]) == ["corn"]


@pytest.mark.parametrize("metric", list(Metric))
def test_documents_without_an_embedding_are_held_and_never_answer(metric: Metric) -> None:
    """Their places in an answer go to documents that have one; they come back as they were."""
    store = HaystackStore(MemoryStore(dimension=2, metric=metric))
    bare = [Document(id=f"bare{i}", content=None, meta={"n": i}) for i in range(20)]
    near = Document(id="near", content="x", embedding=[0.5, 0.5])
    last = Document(id="last", content="x", embedding=[-1.0, 0.5])
    store.write_documents([*bare, near, last])
    towards_placeholders = [0.7, -0.7]
    assert ids(store.embedding_retrieval(towards_placeholders, top_k=3)) == ["near", "last"]
    assert ids(store.embedding_retrieval(towards_placeholders, top_k=1)) == ["near"]
    only_bare = clause("meta.n", "in", list(range(20)))
    assert store.embedding_retrieval(towards_placeholders, top_k=3, filters=only_bare) == []
    assert sorted(ids(store.filter_documents())) == sorted([*ids(bare), "near", "last"])
    assert [d for d in store.filter_documents() if d.id == "bare7"] == [bare[7]]


def test_too_many_placeholders_are_refused_not_hidden() -> None:
    """When they could crowd real documents out of the largest answer, the error counts them."""
    store = HaystackStore(MemoryStore(dimension=2))
    store.write_documents([Document(id=f"bare{i}") for i in range(1000)])
    with pytest.raises(Unsupported, match="1000 documents without an embedding"):
        store.embedding_retrieval([0.7, -0.7])


def test_what_a_record_cannot_hold_is_refused_by_name() -> None:
    """Blobs and reserved keys are refused before anything is written."""
    store = HaystackStore(MemoryStore(dimension=3))
    with pytest.raises(Unsupported, match="blob"):
        store.write_documents([DOCUMENTS[0], Document(id="b", blob=ByteStream(b"x"))])
    with pytest.raises(InvalidInput, match="_haystack_no_embedding"):
        store.write_documents([Document(id="b", meta={"_haystack_no_embedding": True})])
    assert store.count_documents() == 0


def test_skip_keeps_the_first_of_equal_ids_in_one_batch() -> None:
    """Equal ids in one call follow the same policy as ids that are already stored."""
    store = filled()
    twins = [Document(id="new", content="first"), Document(id="new", content="second")]
    assert store.write_documents([*twins, DOCUMENTS[0]], DuplicatePolicy.SKIP) == 1
    assert [d.content for d in store.filter_documents(clause("id", "==", "new"))] == ["first"]


def test_embeddings_come_back_when_asked_for() -> None:
    """As stored: float32, and of unit length under cosine."""
    retriever = HaystackRetriever(filled(), top_k=1, return_embedding=True)
    assert retriever.run([0.0, 0.0, 3.0])["documents"][0].embedding == [0.0, 0.0, 1.0]


def test_a_pipeline_can_be_saved_when_it_names_the_function_that_opens_its_store() -> None:
    """The saved pipeline opens the store again; around an open store, saving is refused."""
    allow_deserialization_module("vectorstore")
    allow_deserialization_module(open_farm.__module__)
    pipeline = Pipeline()
    pipeline.add_component("retriever", HaystackRetriever(HaystackStore(open_farm), top_k=1))
    again = Pipeline.loads(pipeline.dumps())
    answer = again.run({"retriever": {"query_embedding": MAIZE}})["retriever"]["documents"]
    assert ids(answer) == ["maize"]
    with pytest.raises(Unsupported, match="function"):
        filled().to_dict()
