"""Haystack's documents as records, and back.

Haystack allows documents without an embedding or content; a record has both. Two reserved metadata
keys mark what was missing, so that such a document comes back as it was; they are never shown.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from haystack.dataclasses import Document

from vectorstore.errors import InvalidInput, Unsupported
from vectorstore.types import Record, Vector

__all__ = ["NO_EMBEDDING", "document_from_parts", "document_from_record", "record_from_document"]

NO_EMBEDDING = "_haystack_no_embedding"
_NO_CONTENT = "_haystack_no_content"
_RESERVED = (NO_EMBEDDING, _NO_CONTENT)


def record_from_document(document: Document, *, dimension: int) -> Record:
    """The record that holds a document; its score, which belongs to an answer, is not kept.

    Raises Unsupported for a blob or a sparse embedding, InvalidInput for a reserved metadata key.
    """
    for field in ("blob", "sparse_embedding"):
        if getattr(document, field) is not None:
            raise Unsupported(
                f"document {document.id!r} has a {field}, which a record has no place for: "
                "keep it elsewhere and its address in the metadata"
            )
    for key in _RESERVED:
        if key in document.meta:
            raise InvalidInput(f"document {document.id!r} has the reserved metadata key {key!r}")
    # Copies, because the caller may go on changing what it handed over.
    metadata = copy.deepcopy(document.meta)
    if document.content is None:
        metadata[_NO_CONTENT] = True
    if document.embedding is None:
        metadata[NO_EMBEDDING] = True
        vector = _placeholder(dimension)
    else:
        vector = np.asarray(document.embedding, dtype=np.float32)
    return Record(document.id, vector, document.content or "", metadata)


def document_from_record(record: Record) -> Document:
    """The document that a record holds; its embedding is as stored, in float32."""
    return document_from_parts(record.id, record.text, record.metadata, embedding=record.embedding)


def document_from_parts(
    record_id: str,
    text: str,
    metadata: Mapping[str, Any],
    *,
    embedding: Vector | None = None,
    score: float | None = None,
) -> Document:
    """A document from a record's or a hit's fields."""
    has_embedding = embedding is not None and NO_EMBEDDING not in metadata
    return Document(
        id=record_id,
        content=None if _NO_CONTENT in metadata else text,
        meta=copy.deepcopy({k: v for k, v in metadata.items() if k not in _RESERVED}),
        embedding=embedding.tolist() if has_embedding and embedding is not None else None,
        score=score,
    )


def _placeholder(dimension: int) -> Vector:
    # Never zero, which cosine refuses; alternating, because embeddings of text hardly point there.
    signs = np.where(np.arange(dimension) % 2 == 0, 1.0, -1.0)
    return np.asarray(signs / np.sqrt(dimension), dtype=np.float32)
