"""Vector stores behind one port: FAISS, PostgreSQL with pgvector, and an exact one in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vectorstore.errors import (
        ConfigurationError,
        DeadlineExceeded,
        IntakeRefused,
        InvalidInput,
        StoreCorrupt,
        StoreUnavailable,
        Unsupported,
        VectorStoreError,
    )
    from vectorstore.filters import Filter
    from vectorstore.port import Replica, VectorStore
    from vectorstore.types import Answer, Change, Hit, Metric, Query, Record

__all__ = [
    "Answer",
    "Change",
    "ConfigurationError",
    "DeadlineExceeded",
    "Filter",
    "Hit",
    "IntakeRefused",
    "InvalidInput",
    "Metric",
    "Query",
    "Record",
    "Replica",
    "StoreCorrupt",
    "StoreUnavailable",
    "Unsupported",
    "VectorStore",
    "VectorStoreError",
]

# Looked up when asked for: whoever needs the errors alone does not wait for NumPy.
_HOMES = {
    "Answer": "types",
    "Change": "types",
    "Filter": "filters",
    "Hit": "types",
    "Metric": "types",
    "Query": "types",
    "Record": "types",
    "Replica": "port",
    "VectorStore": "port",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'vectorstore' has no attribute {name!r}")
    import importlib

    found = getattr(importlib.import_module(f"vectorstore.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = found
    return found
