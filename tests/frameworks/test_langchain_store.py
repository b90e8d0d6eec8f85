"""What the LangChain adapter promises beyond LangChain's own suite, over an exact store."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("langchain_core", reason="the extra `langchain` is not installed")

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import InMemoryRecordManager, index

from vectorstore import InvalidInput, Metric, Unsupported
from vectorstore.integrations.langchain import LangChainStore
from vectorstore.memory import MemoryStore

PLACES = {
    "maize": [1.0, 0.0, 0.0],
    "corn": [0.99, 0.1, 0.0],
    "beans": [0.6, 0.8, 0.0],
    "goats": [0.0, 0.0, 1.0],
}


class Gazetteer(Embeddings):
    """Knows the place of each word, and counts which of its doors was used."""

    def __init__(self) -> None:
        self.awaited = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [PLACES[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return PLACES[text]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        self.awaited += 1
        return self.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        self.awaited += 1
        return self.embed_query(text)


def filled(metric: Metric = Metric.COSINE, **options: object) -> LangChainStore:
    store = LangChainStore(MemoryStore(dimension=3, metric=metric), Gazetteer(), **options)
    store.add_texts(
        list(PLACES),
        [
            {"kind": "crop", "page": 1},
            {"kind": "crop", "page": 2},
            {"kind": "crop"},
            {"kind": "animal"},
        ],
        ids=list(PLACES),
    )
    return store


def contents(documents: list[Document]) -> list[str]:
    return [document.page_content for document in documents]


def test_a_chain_finds_what_it_added() -> None:
    """Smoke: documents go in, come back by meaning, by id and through a retriever, and go away."""
    store = LangChainStore.from_documents(
        [Document(page_content=text, id=text) for text in PLACES], Gazetteer()
    )
    assert contents(store.similarity_search("maize", k=2)) == ["maize", "corn"]
    assert contents(store.get_by_ids(["goats", "nobody"])) == ["goats"]
    assert contents(store.as_retriever(search_kwargs={"k": 1}).invoke("goats")) == ["goats"]
    assert store.delete(["maize"]) is True
    assert contents(store.similarity_search("maize", k=1)) == ["corn"]


def test_scores_are_the_figures_of_langchains_faiss_class() -> None:
    """Squared distance under l2 (lower is nearer), similarity otherwise (higher is nearer)."""
    far = {p[0].id: p[1] for p in filled(Metric.L2).similarity_search_with_score("maize")}
    assert far["maize"] == 0.0
    assert far["goats"] == pytest.approx(2.0)
    for metric in (Metric.COSINE, Metric.INNER_PRODUCT):
        near = [score for _, score in filled(metric).similarity_search_with_score("beans")]
        assert near == sorted(near, reverse=True)
        assert near[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("metric", "threshold", "kept"),
    [("l2", 0.1, ["maize", "corn"]), ("cosine", 0.5, ["maize", "corn", "beans"])],
)
def test_a_score_threshold_keeps_the_near_side(
    metric: str, threshold: float, kept: list[str]
) -> None:
    """The threshold is an upper bound on distances and a lower bound on similarities."""
    store = filled(Metric(metric))
    assert contents(store.similarity_search("maize", score_threshold=threshold)) == kept


@pytest.mark.parametrize("metric", list(Metric))
def test_relevance_runs_from_one_to_zero(metric: Metric) -> None:
    """The nearest is 1, order is kept, nothing leaves [0, 1], and a threshold cuts below itself."""
    store = filled(metric)
    scored = store.similarity_search_with_relevance_scores("maize")
    relevance = [figure for _, figure in scored]
    assert relevance[0] == pytest.approx(1.0)
    assert relevance == sorted(relevance, reverse=True)
    assert min(relevance) == 0.0
    retriever = store.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.9}
    )
    assert contents(retriever.invoke("maize")) == ["maize", "corn"]


def test_relevance_under_l2_is_langchains_own_formula() -> None:
    """1 - d / sqrt(2) for squared distance d, so that thresholds keep their meaning; or the caller's."""
    scored = {
        d.page_content: s
        for d, s in filled(Metric.L2).similarity_search_with_relevance_scores("maize")
    }
    assert scored["beans"] == pytest.approx(1 - 0.8 / math.sqrt(2))
    own = filled(Metric.L2, relevance_score_fn=lambda distance: 1 / (1 + distance))
    by_word = {d.page_content: s for d, s in own.similarity_search_with_relevance_scores("maize")}
    assert by_word["goats"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "filter",
    [
        {"kind": "crop", "page": [2, 3]},
        {"kind": {"$eq": "crop"}, "page": {"$in": [2, 3]}},
    ],
)
def test_filters_are_exact(filter: dict[str, object]) -> None:
    """Equality and any-of hold together, however near the rows are that they exclude."""
    store = filled()
    assert contents(store.similarity_search("goats", filter=filter)) == ["corn"]
    assert contents(store.max_marginal_relevance_search("goats", filter=filter)) == ["corn"]
    retriever = store.as_retriever(search_kwargs={"filter": filter, "fetch_k": 50})
    assert contents(retriever.invoke("goats")) == ["corn"]


def by_page(metadata: dict[str, object]) -> bool:
    return metadata.get("page") == 1


@pytest.mark.parametrize(
    ("filter", "named"),
    [
        (by_page, "by_page"),
        ({"page": {"$gt": 1}}, r"\$gt"),
        ({"$or": [{"page": 1}]}, r"\$or"),
        ({"page": {"$in": [1], "$eq": 1}}, "2 operators"),
        ({"page": {"$eq": [1]}}, r"\$eq of a list"),
    ],
)
def test_what_a_store_cannot_filter_is_refused_by_name(
    filter: dict[str, object] | Callable[..., bool], named: str
) -> None:
    """Functions and other operators never silently match everything or nothing."""
    with pytest.raises(Unsupported, match=named):
        filled().similarity_search("maize", filter=filter)


def test_an_unknown_option_is_refused_by_name() -> None:
    """An option that was quietly ignored would change answers."""
    store = filled()
    with pytest.raises(InvalidInput, match="search_params"):
        store.similarity_search("maize", search_params={"ef": 4})
    with pytest.raises(InvalidInput, match="bulk"):
        store.add_texts(["maize"], bulk=True)
    with pytest.raises(InvalidInput, match="ids"):
        store.delete()


def test_marginal_relevance_prefers_what_is_not_said_yet() -> None:
    """Corn repeats maize, so beans come second; with lambda 1 nearness alone decides."""
    store = filled()
    assert contents(store.max_marginal_relevance_search("maize", k=2, lambda_mult=0.3)) == [
        "maize",
        "goats",
    ]
    assert contents(store.max_marginal_relevance_search("maize", k=2, lambda_mult=1.0)) == [
        "maize",
        "corn",
    ]
    nearest_three = store.max_marginal_relevance_search("maize", k=2, fetch_k=3, lambda_mult=0.3)
    assert contents(nearest_three) == ["maize", "beans"]
    with pytest.raises(InvalidInput, match="lambda_mult"):
        store.max_marginal_relevance_search("maize", lambda_mult=1.5)


def test_ids_are_kept_or_made_one_by_one() -> None:
    """A missing id becomes a new one; texts, metadata and ids must be as many."""
    store = LangChainStore(MemoryStore(dimension=3), Gazetteer())
    first, second = store.add_documents(
        [Document(page_content="maize", id="m"), Document(page_content="corn")]
    )
    assert first == "m"
    assert store.get_by_ids([second])[0].page_content == "corn"
    with pytest.raises(InvalidInput, match="2 texts"):
        store.add_texts(["maize", "corn"], ids=["m"])
    with pytest.raises(InvalidInput, match="3 metadatas"):
        store.add_texts(["maize", "corn"], [{}, {}, {}], batch_size=1)


def test_a_documents_metadata_is_not_the_stores() -> None:
    """Changing what went in or what came out changes no record."""
    store = LangChainStore(MemoryStore(dimension=3), Gazetteer())
    metadata = {"tags": ["a"]}
    store.add_texts(["maize"], [metadata], ids=["m"])
    metadata["tags"].append("b")
    store.get_by_ids(["m"])[0].metadata["tags"].append("c")
    store.similarity_search("maize")[0].metadata["tags"].append("d")
    assert store.get_by_ids(["m"])[0].metadata == {"tags": ["a"]}


def test_async_calls_await_the_embedding_and_agree_with_the_sync_ones() -> None:
    """Nothing blocks the loop: the embedding's own coroutines are used, the store runs in a thread."""

    async def story() -> None:
        embedding = Gazetteer()
        store = await LangChainStore.afrom_texts(list(PLACES), embedding, ids=list(PLACES))
        assert contents(await store.asimilarity_search("maize", k=2)) == ["maize", "corn"]
        assert await store.asimilarity_search_with_score(
            "maize"
        ) == store.similarity_search_with_score("maize")
        assert contents(
            await store.amax_marginal_relevance_search("maize", k=2, lambda_mult=0.3)
        ) == ["maize", "goats"]
        assert await store.asimilarity_search_with_relevance_scores("maize", score_threshold=0.9)
        assert contents(await store.asimilarity_search_by_vector([0.0, 0.0, 1.0], k=1)) == ["goats"]
        await store.adelete(["goats"])
        assert await store.aget_by_ids(["goats"]) == []
        assert embedding.awaited == 6

    asyncio.run(story())


def test_langchains_indexer_keeps_the_store_in_step() -> None:
    """`langchain_core.indexing.index` adds, skips and cleans up through the adapter."""
    store = LangChainStore(MemoryStore(dimension=3), Gazetteer())
    manager = InMemoryRecordManager("farm")
    manager.create_schema()

    def run(*words: str) -> dict[str, int]:
        documents = [Document(page_content=word, metadata={"source": "guide"}) for word in words]
        return dict(
            index(
                documents,
                manager,
                store,
                cleanup="full",
                source_id_key="source",
                key_encoder="sha256",
            )
        )

    assert run("maize", "goats")["num_added"] == 2
    again = run("maize", "beans")
    assert (again["num_added"], again["num_skipped"], again["num_deleted"]) == (1, 1, 1)
    assert sorted(contents(store.similarity_search("maize"))) == ["beans", "maize"]


def test_an_empty_store_needs_a_text_or_a_dimension() -> None:
    """Without texts and without a store there is nothing to learn the dimension from."""
    with pytest.raises(InvalidInput, match="store="):
        LangChainStore.from_texts([], Gazetteer())
    empty = LangChainStore.from_texts([], Gazetteer(), store=MemoryStore(dimension=3))
    assert empty.similarity_search("maize") == []
    assert empty.max_marginal_relevance_search_by_vector(list(np.eye(3)[0])) == []
