"""Vector stores behind one port: FAISS, PostgreSQL with pgvector, and an exact one in memory."""

from __future__ import annotations

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
