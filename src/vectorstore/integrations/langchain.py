"""LangChain's ``VectorStore`` over any store of ours: one in memory, FAISS, PostgreSQL, the router.

It stands on the port alone, so the line that opens the store is the only one that changes when a
team starts the migration, and again when it is over. Figures follow LangChain's own FAISS class, so
that an application's thresholds keep their meaning: see :meth:`LangChainStore.similarity_search_with_score`.
"""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

try:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore as LangChainVectorStore
except ImportError as error:
    raise ImportError(
        "vectorstore.integrations.langchain needs langchain-core: "
        "install it with: pip install 'shadow-cutover[langchain]'"
    ) from error

from vectorstore.errors import InvalidInput
from vectorstore.integrations.langchain_batches import text_batches
from vectorstore.integrations.langchain_filters import filter_from_langchain
from vectorstore.integrations.mmr import marginal_relevance
from vectorstore.memory import MemoryStore
from vectorstore.port import VectorStore
from vectorstore.types import Metric, Query
from vectorstore.validation import BATCH_RECORDS_MAX

__all__ = ["LangChainStore"]


class LangChainStore(LangChainVectorStore):
    """A LangChain vector store whose records live in ``store`` and whose vectors ``embedding`` makes.

    ``relevance_score_fn`` turns a figure of ``similarity_search_with_score`` into a relevance from
    0 to 1, as the argument of that name does in LangChain's FAISS class. Keyword arguments that no
    method knows are refused by name: one that was quietly ignored would change answers.
    """

    def __init__(
        self,
        store: VectorStore,
        embedding: Embeddings,
        *,
        relevance_score_fn: Callable[[float], float] | None = None,
    ) -> None:
        self.store = store
        self._embedding = embedding
        self._relevance_score_fn = relevance_score_fn

    @property
    def embeddings(self) -> Embeddings:
        return self._embedding

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        store: VectorStore | None = None,
        **kwargs: Any,
    ) -> LangChainStore:
        """Embed the texts and put them into ``store``; without one, into an exact store in memory.

        Other keyword arguments go to the constructor.
        """
        if store is None:
            _require_text(texts)
            store = MemoryStore(dimension=len(embedding.embed_query(texts[0])))
        made = cls(store, embedding, **kwargs)
        made.add_texts(texts, metadatas, ids=ids)
        return made

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        store: VectorStore | None = None,
        **kwargs: Any,
    ) -> LangChainStore:
        if store is None:
            _require_text(texts)
            store = MemoryStore(dimension=len(await embedding.aembed_query(texts[0])))
        made = cls(store, embedding, **kwargs)
        await made.aadd_texts(texts, metadatas, ids=ids)
        return made

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int = BATCH_RECORDS_MAX,
        **kwargs: Any,
    ) -> list[str]:
        """Embed and upsert; an id that is missing or None is a new UUID. Returns the ids.

        Each batch of ``batch_size`` is written all or none; batches before a failure stay.
        """
        _refuse_unknown(kwargs)
        batches = text_batches(texts, metadatas, ids, batch_size=batch_size)
        for batch in batches:
            self.store.upsert(batch.records(self._embedding.embed_documents(batch.texts)))
        return [record_id for batch in batches for record_id in batch.ids]

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int = BATCH_RECORDS_MAX,
        **kwargs: Any,
    ) -> list[str]:
        _refuse_unknown(kwargs)
        batches = text_batches(texts, metadatas, ids, batch_size=batch_size)
        for batch in batches:
            records = batch.records(await self._embedding.aembed_documents(batch.texts))
            await asyncio.to_thread(self.store.upsert, records)
        return [record_id for batch in batches for record_id in batch.ids]

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Remove by id; an id that is not there is no error. Without ids nothing is deleted."""
        _refuse_unknown(kwargs)
        if ids is None:
            raise InvalidInput("delete needs ids: a call without them would mean every record")
        for start in range(0, len(ids), BATCH_RECORDS_MAX):
            self.store.delete(ids[start : start + BATCH_RECORDS_MAX])
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        return [_document(r.id, r.text, r.metadata) for r in self.store.get(ids)]

    def similarity_search(
        self, query: str, k: int = 4, filter: object = None, **kwargs: Any
    ) -> list[Document]:
        """The ``k`` documents nearest to the text; keywords as in ``similarity_search_with_score``."""
        scored = self.similarity_search_with_score(query, k, filter, **kwargs)
        return [document for document, _ in scored]

    async def asimilarity_search(
        self, query: str, k: int = 4, filter: object = None, **kwargs: Any
    ) -> list[Document]:
        scored = await self.asimilarity_search_with_score(query, k, filter, **kwargs)
        return [document for document, _ in scored]

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: object = None, **kwargs: Any
    ) -> list[Document]:
        scored = self.similarity_search_with_score_by_vector(embedding, k, filter, **kwargs)
        return [document for document, _ in scored]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: object = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The nearest documents and the figures that LangChain's FAISS class gives for them.

        Under ``l2`` the figure is the squared distance (lower is nearer); under ``cosine`` and
        ``inner_product`` it is the similarity (higher is nearer). ``score_threshold`` keeps the
        figures that are at least as near. ``filter`` is exact in every store, so ``fetch_k``, with
        which FAISS over-fetches before it filters, is taken and not needed.
        """
        vector = self._embedding.embed_query(query)
        return self.similarity_search_with_score_by_vector(vector, k, filter, **kwargs)

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, filter: object = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        vector = await self._embedding.aembed_query(query)
        return await asyncio.to_thread(
            self.similarity_search_with_score_by_vector, vector, k, filter, **kwargs
        )

    def similarity_search_with_score_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        filter: object = None,
        *,
        fetch_k: int | None = None,  # noqa: ARG002 - see similarity_search_with_score
        score_threshold: float | None = None,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """As ``similarity_search_with_score``, for a vector of the store's dimension."""
        _refuse_unknown(kwargs)
        lower_is_nearer = self.store.metric is Metric.L2
        query = Query(np.asarray(embedding), k=k, filter=filter_from_langchain(filter))
        scored: list[tuple[Document, float]] = []
        for hit in self.store.search(query).hits:
            figure = 0.0 - hit.score if lower_is_nearer else hit.score
            if score_threshold is None or (
                figure <= score_threshold if lower_is_nearer else figure >= score_threshold
            ):
                scored.append((_document(hit.id, hit.text, hit.metadata), figure))
        return scored

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(
            vector, k, fetch_k, lambda_mult, **kwargs
        )

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        vector = await self._embedding.aembed_query(query)
        return await self.amax_marginal_relevance_search_by_vector(
            vector, k, fetch_k, lambda_mult, **kwargs
        )

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: object = None,
        **kwargs: Any,
    ) -> list[Document]:
        """``k`` of the ``fetch_k`` nearest documents, near the query and unlike each other."""
        _refuse_unknown(kwargs)
        vector = np.asarray(embedding)
        query = Query(vector, k=max(k, fetch_k), filter=filter_from_langchain(filter))
        # Answers carry no vectors; a record deleted since the search is simply not there any more.
        found = self.store.get([hit.id for hit in self.store.search(query).hits])
        if not found:
            return []
        rows = marginal_relevance(
            vector, np.stack([r.embedding for r in found]), k=k, lambda_mult=lambda_mult
        )
        return [_document(found[row].id, found[row].text, found[row].metadata) for row in rows]

    async def amax_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        return await asyncio.to_thread(
            self.max_marginal_relevance_search_by_vector,
            embedding,
            k,
            fetch_k,
            lambda_mult,
            **kwargs,
        )

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        if self._relevance_score_fn is not None:
            return self._relevance_score_fn
        if self.store.metric is Metric.L2:
            return _relevance_of_squared_distance
        return _relevance_of_similarity


def _relevance_of_squared_distance(figure: float) -> float:
    # LangChain's FAISS divides the squared distance by the root of two as well, so a team's
    # threshold means what it meant; what would fall below 0 is 0.
    return max(0.0, 1.0 - figure / math.sqrt(2))


def _relevance_of_similarity(figure: float) -> float:
    return min(1.0, max(0.0, figure))


def _document(record_id: str, text: str, metadata: Mapping[str, Any]) -> Document:
    # A copy, because a chain may change its documents and the store's record is not its to change.
    return Document(id=record_id, page_content=text, metadata=copy.deepcopy(dict(metadata)))


def _require_text(texts: Sequence[str]) -> None:
    if not texts:
        raise InvalidInput("there is no text to learn the dimension from: pass store=...")


def _refuse_unknown(options: Mapping[str, Any]) -> None:
    if options:
        raise InvalidInput(f"unknown options: {', '.join(sorted(options))}")
