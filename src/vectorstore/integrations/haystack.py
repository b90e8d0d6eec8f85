"""Haystack's document store and embedding retriever over any store of ours or the router.

They stand on the port alone, so the line that opens the store is the only one that changes when a
team starts the migration, and again when it is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

try:
    from haystack import component, default_from_dict, default_to_dict
    from haystack.dataclasses import Document
    from haystack.document_stores.errors import DuplicateDocumentError
    from haystack.document_stores.types import DuplicatePolicy, FilterPolicy, apply_filter_policy
    from haystack.utils.callable_serialization import deserialize_callable, serialize_callable
    from haystack.utils.filters import document_matches_filter
except ImportError as error:
    raise ImportError(
        "vectorstore.integrations.haystack needs haystack-ai: "
        "install it with: pip install 'shadow-cutover[haystack]'"
    ) from error

from vectorstore.errors import InvalidInput, Unsupported
from vectorstore.filters import Filter
from vectorstore.integrations.haystack_documents import (
    NO_EMBEDDING,
    document_from_parts,
    document_from_record,
    record_from_document,
)
from vectorstore.integrations.haystack_filters import filter_from_haystack
from vectorstore.port import VectorStore
from vectorstore.types import Hit, Query
from vectorstore.validation import BATCH_RECORDS_MAX, K_MAX

__all__ = ["HaystackRetriever", "HaystackStore"]

_SCAN_RECORDS = 1000


class HaystackStore:
    """A Haystack document store whose records live in ``store``.

    ``store`` is an open store, or a named function that opens one: only then can a pipeline with
    this store be saved, because a pipeline's file can name a function and cannot hold a connection.
    """

    def __init__(self, store: VectorStore | Callable[[], VectorStore]) -> None:
        if isinstance(store, VectorStore):
            self._open: Callable[[], VectorStore] | None = None
            self.store = store
        else:
            self._open = store
            self.store = store()

    def to_dict(self) -> dict[str, Any]:
        """This store as data; raises Unsupported when it was given an open store."""
        if self._open is None:
            raise Unsupported(
                "a HaystackStore around an open store cannot be saved: give it the function that "
                "opens the store instead, HaystackStore(open_store)"
            )
        return default_to_dict(self, store=serialize_callable(self._open))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> HaystackStore:
        """Open the store that was saved; the function's module must be on Haystack's allowlist."""
        return cls(deserialize_callable(data["init_parameters"]["store"]))

    def count_documents(self) -> int:
        return self.store.count()

    async def count_documents_async(self) -> int:
        return await asyncio.to_thread(self.count_documents)

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """The documents that match, in byte order of their ids.

        Knows the whole filter language, by Haystack's own reading of it, and reads every document
        for it: meant for upkeep, not for a request's path.
        """
        return [
            document
            for document in self._documents()
            if not filters or document_matches_filter(filters, document)
        ]

    async def filter_documents_async(self, filters: dict[str, Any] | None = None) -> list[Document]:
        return await asyncio.to_thread(self.filter_documents, filters)

    def write_documents(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """Write the documents and return how many were written; ``NONE`` means ``FAIL``.

        ``FAIL`` and ``SKIP`` look before they write: two writers at the same moment may both find an
        id free, and then the later one wins. Every ``BATCH_RECORDS_MAX`` documents are one write.
        """
        if not isinstance(documents, list) or any(
            not isinstance(document, Document) for document in documents
        ):
            raise InvalidInput("write_documents takes a list of Document")
        if policy is not DuplicatePolicy.OVERWRITE:
            documents = self._new(documents, fail=policy is not DuplicatePolicy.SKIP)
        records = [record_from_document(d, dimension=self.store.dimension) for d in documents]
        for start in range(0, len(records), BATCH_RECORDS_MAX):
            self.store.upsert(records[start : start + BATCH_RECORDS_MAX])
        return len(records)

    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        return await asyncio.to_thread(self.write_documents, documents, policy)

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete by id; an id that is not there is no error."""
        for start in range(0, len(document_ids), BATCH_RECORDS_MAX):
            self.store.delete(document_ids[start : start + BATCH_RECORDS_MAX])

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        await asyncio.to_thread(self.delete_documents, document_ids)

    def embedding_retrieval(
        self,
        query_embedding: list[float],
        *,
        filters: Mapping[str, Any] | None = None,
        top_k: int = 10,
        return_embedding: bool = False,
    ) -> list[Document]:
        """The ``top_k`` documents nearest to the vector, their score higher for nearer.

        Filters: see :mod:`vectorstore.integrations.haystack_filters`. Documents that were written
        without an embedding never answer.
        """
        query = Query(np.asarray(query_embedding), k=top_k, filter=filter_from_haystack(filters))
        hits = self._embedded_hits(query)
        embeddings = (
            {record.id: record.embedding for record in self.store.get([hit.id for hit in hits])}
            if return_embedding
            else {}
        )
        return [
            document_from_parts(
                hit.id,
                hit.text,
                hit.metadata,
                embedding=embeddings.get(hit.id),
                score=hit.score,
            )
            for hit in hits
        ]

    def _embedded_hits(self, query: Query) -> list[Hit]:
        found = self.store.search(query).hits
        hits = [hit for hit in found if NO_EMBEDDING not in hit.metadata]
        if len(hits) == len(found):
            return hits
        # Placeholders took places in the answer: ask again with room for every one of them.
        clauses = query.filter.clauses if query.filter is not None else ()
        placeholders = self.store.count(Filter((*clauses, (NO_EMBEDDING, (True,)))))
        k = query.k + placeholders
        if k > K_MAX:
            raise Unsupported(
                f"{placeholders} documents without an embedding match: with top_k {query.k} that "
                f"is beyond {K_MAX}; embed them or delete them"
            )
        found = self.store.search(Query(query.vector, k=k, filter=query.filter)).hits
        return [hit for hit in found if NO_EMBEDDING not in hit.metadata][: query.k]

    def _new(self, documents: list[Document], *, fail: bool) -> list[Document]:
        """The documents whose ids are free, the first of equal ids; or the error if ``fail``."""
        ids = [document.id for document in documents]
        taken: set[str] = set()
        for start in range(0, len(ids), BATCH_RECORDS_MAX):
            taken.update(r.id for r in self.store.get(ids[start : start + BATCH_RECORDS_MAX]))
        free: list[Document] = []
        for document in documents:
            if document.id not in taken:
                taken.add(document.id)
                free.append(document)
            elif fail:
                raise DuplicateDocumentError(f"ID '{document.id}' already exists.")
        return free

    def _documents(self) -> Iterator[Document]:
        after = ""
        while records := self.store.scan(after=after, limit=_SCAN_RECORDS):
            yield from map(document_from_record, records)
            after = records[-1].id


@component
class HaystackRetriever:
    """Retrieves the documents of a ``HaystackStore`` that are nearest to an embedding."""

    def __init__(
        self,
        document_store: HaystackStore,
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        filter_policy: FilterPolicy = FilterPolicy.REPLACE,
        return_embedding: bool = False,
    ) -> None:
        self.document_store = document_store
        self.filters = filters
        self.top_k = top_k
        self.filter_policy = filter_policy
        self.return_embedding = return_embedding

    def to_dict(self) -> dict[str, Any]:
        return default_to_dict(
            self,
            document_store=self.document_store.to_dict(),
            filters=self.filters,
            top_k=self.top_k,
            filter_policy=self.filter_policy.value,
            return_embedding=self.return_embedding,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> HaystackRetriever:
        given = dict(data["init_parameters"])
        given["document_store"] = HaystackStore.from_dict(given["document_store"])
        given["filter_policy"] = FilterPolicy.from_str(given["filter_policy"])
        return default_from_dict(cls, {**data, "init_parameters": given})

    @component.output_types(documents=list[Document])
    def run(
        self,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """Answer from the store; ``filters`` and ``top_k`` stand in for the constructor's."""
        documents = self.document_store.embedding_retrieval(
            query_embedding,
            filters=apply_filter_policy(self.filter_policy, self.filters, filters),
            top_k=self.top_k if top_k is None else top_k,
            return_embedding=self.return_embedding,
        )
        return {"documents": documents}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        return await asyncio.to_thread(self.run, query_embedding, filters, top_k)
