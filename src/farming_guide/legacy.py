"""The interface of the FAISS-only bot, kept: code written for it changes its import lines and no more.

Two things differ on purpose. A failure raises instead of returning ``False`` or an empty list, and
``chunk_id`` in a result is the record's id, a text, because a position means nothing to two stores.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from farming_guide.chunks import CHARACTERS, OVERLAP_CHARACTERS_MAX
from farming_guide.embeddings import Embedder, embedder_from_environment
from farming_guide.ingestion import all_records, delete_all, ingest, remove_document, stored_ids
from farming_guide.passages import source_document
from farming_guide.settings import BotSettings, load_settings
from farming_guide.wiring import OpenedBackend, open_backend
from vectorstore.errors import InvalidInput
from vectorstore.filters import Filter
from vectorstore.port import VectorStore
from vectorstore.types import Answer, Query, Record

__all__ = ["SemanticSearch", "VectorDatabase", "create_vector_database"]

BATCH_RECORDS = 1_000
CHARACTERS_PER_TOKEN = 4
PREVIEW_CHARACTERS = 250
DOCUMENT_TYPE = "agricultural_guide"


def create_vector_database(
    db_type: str | None = None,
    dimension: int = 1536,
    *,
    settings: BotSettings | None = None,
    model: str | None = None,
    **options: Any,
) -> VectorDatabase:
    """Open a backend by its name in ``DATABASE_BACKENDS``: ``faiss``, ``postgresql`` or ``shadow``.

    ``db_type``: unset, as ``VECTOR_DB_TYPE`` says. ``options`` go over the backend's settings
    (``storage_path``, ``index_type``, ``table_name``, ``config``). ``model``: the embedding model's name.
    """
    chosen = settings or load_settings()
    name = db_type or chosen.vector_db_type
    return VectorDatabase(open_backend(chosen, dimension, name=name, model=model, **options), name)


class VectorDatabase:
    """Vectors and chunks, whichever backend holds them. Safe to share between threads."""

    def __init__(self, backend: OpenedBackend, db_type: str) -> None:
        self._backend = backend
        self.db_type = db_type

    @property
    def store(self) -> VectorStore:
        """The port under this interface, for code that is written anew."""
        return self._backend.store

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return self.store.dimension

    def add_vectors(
        self, embeddings: Sequence[Sequence[float]], chunks: Sequence[Mapping[str, Any]]
    ) -> bool:
        """Add chunks, nested or flat, each with its embedding; the same chunk again replaces itself.

        Returns True. Raises InvalidInput if there are none, or not one vector a chunk.
        """
        if not len(chunks) or len(embeddings) != len(chunks):
            raise InvalidInput(
                f"{len(embeddings)} embeddings for {len(chunks)} chunks: one each is needed"
            )
        records = [
            _record(chunk, embedding) for chunk, embedding in zip(chunks, embeddings, strict=True)
        ]
        for start in range(0, len(records), BATCH_RECORDS):
            self.store.upsert(records[start : start + BATCH_RECORDS])
        return True

    def search(
        self,
        query_embedding: Sequence[float],
        top_k: int = 5,
        threshold: float = 0.7,
        filter_by_document: str | None = None,
        filter_by_type: str | None = None,
    ) -> list[dict[str, Any]]:
        """The nearest chunks with a score of at least ``threshold``, nearest first."""
        only = _filter(filter_by_document, filter_by_type)
        query = Query(np.asarray(query_embedding, dtype=np.float32), k=top_k, filter=only)
        return _results(self.store.search(query), threshold)

    def batch_search(
        self,
        query_embeddings: Sequence[Sequence[float]],
        top_k: int = 5,
        threshold: float = 0.7,
    ) -> list[list[dict[str, Any]]]:
        """The results of several searches, in order."""
        queries = [Query(np.asarray(q, dtype=np.float32), k=top_k) for q in query_embeddings]
        return [_results(answer, threshold) for answer in self.store.search_many(queries)]

    def get_database_stats(self) -> dict[str, Any]:
        """What the store holds; counts documents by reading every record."""
        types: Counter[str] = Counter()
        documents: set[str] = set()
        for record in all_records(self.store):
            documents.add(source_document(record.metadata))
            types[str(record.metadata.get("document_type", DOCUMENT_TYPE))] += 1
        total = sum(types.values())
        return {
            "total_vectors": total,
            "metadata_count": total,
            "unique_documents": len(documents - {""}),
            "document_types": dict(types),
            "dimension": self.dimension,
            "database_type": self.db_type,
            "is_trained": True,
            **self.store.describe(),
        }

    def remove_vectors_by_document(self, document_name: str) -> bool:
        """Delete a document's vectors; False if the store holds none of it."""
        return remove_document(self.store, document_name) > 0

    def clear_database(self) -> None:
        """Delete every vector."""
        delete_all(self.store)

    def save_index(self, filename: str | None = None) -> bool:
        """Make everything durable that is not yet. ``filename`` is refused: a store names its files."""
        _refuse_name(filename)
        self._backend.save()
        return True

    def load_index(self, filename: str | None = None) -> bool:
        """Read what was saved; False if there is nothing."""
        _refuse_name(filename)
        return self._backend.load()

    def close(self) -> None:
        """Release the store."""
        self.store.close()


class SemanticSearch:
    """Questions in words to chunks: an embedding model before a :class:`VectorDatabase`."""

    def __init__(
        self,
        storage_path: str | None = None,
        chunk_size: int = CHARACTERS // CHARACTERS_PER_TOKEN,
        overlap: int = OVERLAP_CHARACTERS_MAX // CHARACTERS_PER_TOKEN,
        embedding_model: str | None = None,
        *,
        db_type: str | None = None,
        database: VectorDatabase | None = None,
        embedder: Embedder | None = None,
        settings: BotSettings | None = None,
    ) -> None:
        """Open the backend (``storage_path`` is for ``faiss``), or use the ``database`` given.

        ``chunk_size`` and ``overlap`` are in tokens, taken as four characters each.
        ``embedding_model`` is OpenAI's name; unset, the environment chooses.
        """
        self.chunk_size = chunk_size
        self.overlap = overlap
        chosen = {"OPENAI_EMBEDDING_MODEL": embedding_model} if embedding_model else {}
        self.embedder = embedder or embedder_from_environment({**os.environ, **chosen})
        options = {"storage_path": storage_path} if storage_path is not None else {}
        self.vector_db = database or create_vector_database(
            db_type,
            self.embedder.dimension,
            settings=settings,
            model=self.embedder.model,
            **options,
        )

    def search(
        self, query: str, top_k: int = 5, threshold: float = 0.7, **filters: str | None
    ) -> list[dict[str, Any]]:
        """The nearest chunks to a question; ``filter_by_document`` and ``filter_by_type`` narrow it."""
        if not query.strip():
            raise InvalidInput("the query is empty")
        embedding = self.embedder.embed([query])[0]
        return self.vector_db.search(embedding.tolist(), top_k, threshold, **filters)

    def search_documents(
        self,
        query: str,
        top_k: int = 5,
        threshold: float = 0.7,
        filter_by_document: str | None = None,
    ) -> list[dict[str, Any]]:
        """As :meth:`search`, with the query, a preview and a word for the relevance in each result."""
        results = self.search(query, top_k, threshold, filter_by_document=filter_by_document)
        for result in results:
            text: str = result["text"]
            cut = text if len(text) <= PREVIEW_CHARACTERS else text[:PREVIEW_CHARACTERS] + "..."
            score = result["score"]
            relevance = "high" if score > 0.9 else "medium" if score > 0.8 else "low"
            result.update(query=query, text_preview=cut, relevance=relevance)
        return results

    def process_pdf_documents(
        self, pdf_paths: Sequence[str], force_reprocess: bool = False
    ) -> bool:
        """Bring these documents up to date in the store; what is unchanged costs nothing."""
        ingest(
            [Path(path) for path in pdf_paths],
            self.vector_db.store,
            self.embedder,
            characters=CHARACTERS_PER_TOKEN * self.chunk_size,
            overlap_characters_max=CHARACTERS_PER_TOKEN * self.overlap,
            all_again=force_reprocess,
        )
        return self.vector_db.save_index()

    def get_database_status(self) -> dict[str, Any]:
        """The database's figures, the model, and which documents there are."""
        documents = sorted(name for name in stored_ids(self.vector_db.store) if name)
        return {
            **self.vector_db.get_database_stats(),
            "chunk_size": self.chunk_size,
            "overlap": self.overlap,
            "embedding_model": self.embedder.model,
            "processed_documents": documents,
        }

    def clear_database(self) -> None:
        """Delete every vector."""
        self.vector_db.clear_database()


def _record(chunk: Mapping[str, Any], embedding: Sequence[float]) -> Record:
    nested = chunk.get("metadata")
    metadata = {key: value for key, value in chunk.items() if key not in ("text", "metadata")}
    metadata.update(nested if isinstance(nested, Mapping) else {})
    text = str(chunk.get("text", ""))
    source = source_document(metadata)
    # chunk_id restarts in every document and may repeat; with the words it tells chunks apart.
    digest = hashlib.sha256(f"{metadata.get('chunk_id')}\0{text}".encode()).hexdigest()[:16]
    return Record(f"{source}:{digest}", np.asarray(embedding, dtype=np.float32), text, metadata)


def _filter(document: str | None, document_type: str | None) -> Filter | None:
    wanted = {"source_document": document, "document_type": document_type}
    return Filter.of({key: value for key, value in wanted.items() if value is not None})


def _results(answer: Answer, threshold: float) -> list[dict[str, Any]]:
    return [
        {
            "chunk_id": hit.id,
            "score": hit.score,
            "text": hit.text,
            "metadata": dict(hit.metadata),
            "source_document": source_document(hit.metadata),
            "document_type": hit.metadata.get("document_type", DOCUMENT_TYPE),
            "token_count": hit.metadata.get("token_count", 0),
            "rank": rank,
        }
        for rank, hit in enumerate(answer.hits, 1)
        if hit.score >= threshold
    ]


def _refuse_name(filename: str | None) -> None:
    if filename is not None:
        raise InvalidInput(
            f"the file name {filename!r} is not used: a store names its own files; leave it out"
        )
