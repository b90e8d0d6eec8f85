"""Haystack's own conformance suites over every store of ours, sync and async, no test excluded.

Two differences are deliberate, and :func:`same_documents` is where they are allowed for:

* documents come back in byte order of their ids, not in the order of writing;
* an embedding comes back as it is stored, in float32 and, under cosine, at unit length.

``test_write_documents`` is abstract in the suites: each store states what policy NONE means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("haystack", reason="the extra `haystack` is not installed")

from haystack.dataclasses import Document
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.testing.document_store import DocumentStoreBaseTests
from haystack.testing.document_store_async import (
    CountDocumentsAsyncTest,
    DeleteDocumentsAsyncTest,
    FilterDocumentsAsyncTest,
    WriteDocumentsAsyncTest,
)

from vectorstore import VectorStore
from vectorstore.integrations.haystack import HaystackStore

pytestmark = pytest.mark.slow

DIMENSION = 768


def same_documents(received: list[Document], expected: list[Document]) -> None:
    """Assert that both lists hold the same documents, up to order and the embeddings' scale."""
    received = sorted(received, key=lambda document: document.id)
    expected = sorted(expected, key=lambda document: document.id)
    assert [replace(d, embedding=None) for d in received] == [
        replace(d, embedding=None) for d in expected
    ]
    for got, wanted in zip(received, expected, strict=True):
        assert (got.embedding is None) == (wanted.embedding is None)
        if got.embedding is not None and wanted.embedding is not None:
            unit = np.asarray(wanted.embedding) / np.linalg.norm(wanted.embedding)
            np.testing.assert_allclose(got.embedding, unit, atol=1e-6)


class TestHaystackConformance(DocumentStoreBaseTests):
    """Haystack's synchronous suite."""

    assert_documents_are_equal = staticmethod(same_documents)

    @pytest.fixture
    def document_store(self, open_store: Callable[..., VectorStore]) -> HaystackStore:
        return HaystackStore(open_store(dimension=DIMENSION))

    def test_write_documents(self, document_store: HaystackStore) -> None:
        """Without a policy, a document whose id is taken is refused and nothing is written."""
        document = Document(content="test doc")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([Document(content="another"), document])
        same_documents(document_store.filter_documents(), [document])


class TestHaystackAsyncConformance(
    CountDocumentsAsyncTest,
    DeleteDocumentsAsyncTest,
    FilterDocumentsAsyncTest,
    WriteDocumentsAsyncTest,
):
    """The asynchronous counterparts of the four suites that the synchronous one is made of."""

    assert_documents_are_equal = staticmethod(same_documents)

    @pytest.fixture
    def document_store(self, open_store: Callable[..., VectorStore]) -> HaystackStore:
        return HaystackStore(open_store(dimension=DIMENSION))

    async def test_write_documents_async(self, document_store: HaystackStore) -> None:
        """Without a policy, a document whose id is taken is refused and nothing is written."""
        document = Document(content="test doc")
        assert await document_store.write_documents_async([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async([Document(content="another"), document])
        same_documents(await document_store.filter_documents_async(), [document])
