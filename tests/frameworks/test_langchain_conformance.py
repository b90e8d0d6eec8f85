"""LangChain's own conformance suite over every store of ours."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("langchain_core", reason="the extra `langchain` is not installed")
pytest.importorskip("langchain_tests", reason="langchain-tests is not installed")

from langchain_tests.integration_tests.vectorstores import (
    EMBEDDING_SIZE,
    VectorStoreIntegrationTests,
)

from vectorstore import VectorStore
from vectorstore.integrations.langchain import LangChainStore

pytestmark = pytest.mark.slow


class TestLangChainConformance(VectorStoreIntegrationTests):
    """25 tests for each store, sync and async, none excluded."""

    @pytest.fixture
    def vectorstore(self, open_store: Callable[..., VectorStore]) -> LangChainStore:
        return LangChainStore(open_store(dimension=EMBEDDING_SIZE), self.get_embeddings())
