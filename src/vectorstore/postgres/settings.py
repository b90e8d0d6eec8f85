"""What a PostgreSQL store is told: where, which table, and how to search."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from vectorstore.errors import ConfigurationError
from vectorstore.postgres.dsn import check_dsn, mask_dsn
from vectorstore.types import Metric

__all__ = ["DIMENSION_MAX", "EF_SEARCH_MAX", "IndexType", "IterativeScan", "PostgresSettings"]

DIMENSION_MAX = 16_000
"""What pgvector's vector type holds."""

EF_SEARCH_MAX = 1_000
"""The upper bound of pgvector's hnsw.ef_search."""

IterativeScan = Literal["off", "strict_order", "relaxed_order"]
IndexType = Literal["auto", "halfvec"]

# Names made from the table's (the cursor table, the index) must fit in PostgreSQL's 63 bytes.
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_MEMORY = re.compile(r"[0-9]+(kB|MB|GB)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresSettings:
    """Settings of one PostgreSQL store. Durations in milliseconds; ``repr`` masks the DSN's password.

    ``exact_rows_max``: up to this many rows no vector index is built. There an exact search costs at
    most about a millisecond more than an HNSW search (docs/performance.md, "Where an index begins to
    pay"), its recall is perfect, and writes need no graph kept. ``statement_timeout_ms`` bounds calls that bring no deadline of their own.
    ``iterative_scan`` needs pgvector 0.8; before that, filtered queries are answered exactly.
    ``index_type`` ``halfvec`` halves the index; its ``rerank_factor`` times k nearest are ranked anew
    by the whole vectors. ``auto`` takes it only where pgvector asks for it, above 2,000 dimensions.
    """

    dsn: str = field(repr=False)
    dimension: int
    metric: Metric = Metric.COSINE
    table: str = "document_embeddings"
    pool_size_min: int = 1
    pool_size_max: int = 8
    connect_timeout_ms: int = 5_000
    statement_timeout_ms: int = 30_000
    ef_search: int = 100
    iterative_scan: IterativeScan = "strict_order"
    exact_rows_max: int = 1_000
    index_type: IndexType = "auto"
    rerank_factor: int = 2
    hnsw_m: int = 16
    hnsw_ef_construction: int = 64
    maintenance_work_mem: str = "256MB"

    def __post_init__(self) -> None:
        check_dsn(self.dsn)
        if not _TABLE.fullmatch(self.table):
            raise ConfigurationError(
                f"table name {self.table!r} is not allowed: letters, digits and _, at most 40"
            )
        if not _MEMORY.fullmatch(self.maintenance_work_mem):
            raise ConfigurationError(
                f"maintenance_work_mem is {self.maintenance_work_mem!r}; write it as 256MB or 1GB"
            )
        if self.iterative_scan not in ("off", "strict_order", "relaxed_order"):
            raise ConfigurationError(
                f"iterative_scan is {self.iterative_scan!r}; "
                "it must be off, strict_order or relaxed_order"
            )
        if self.index_type not in ("auto", "halfvec"):
            raise ConfigurationError(
                f"index_type is {self.index_type!r}; it must be auto or halfvec"
            )
        bounds = {
            "dimension": (1, DIMENSION_MAX),
            "pool_size_min": (0, self.pool_size_max),
            "pool_size_max": (1, 1_000),
            "connect_timeout_ms": (1, 3_600_000),
            "statement_timeout_ms": (1, 86_400_000),
            "ef_search": (1, EF_SEARCH_MAX),
            "exact_rows_max": (0, 1_000_000_000),
            "rerank_factor": (1, 100),
            "hnsw_m": (2, 100),
            "hnsw_ef_construction": (max(4, 2 * self.hnsw_m), 1_000),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigurationError(f"{name} is {value}; it must be from {low} to {high:,}")

    @property
    def dsn_masked(self) -> str:
        """The DSN without its password, for messages."""
        return mask_dsn(self.dsn)

    @property
    def halfvec(self) -> bool:
        """Whether the index is built on halfvec: pgvector indexes vectors up to 2,000 dimensions."""
        return self.index_type == "halfvec" or self.dimension > 2_000

    @property
    def indexable(self) -> bool:
        """Whether pgvector can index this dimension at all: halfvec goes up to 4,000."""
        return self.dimension <= 4_000
