"""The SQL of reads: built once per shape, values always parameters.

The limit is written into the text: with a parameter the planner would have to guess it, and might
leave the vector index alone. Each k is a statement of its own, prepared on first use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from psycopg import sql

from vectorstore.canonical import canonical_json
from vectorstore.filters import Filter
from vectorstore.postgres.schema import Names
from vectorstore.postgres.settings import EF_SEARCH_MAX, PostgresSettings
from vectorstore.types import Metric

__all__ = ["OPERATOR_CLASSES", "SCORES", "Queries", "clause_values", "filter_parameters"]

_OPERATORS = {Metric.COSINE: "<=>", Metric.INNER_PRODUCT: "<#>", Metric.L2: "<->"}
OPERATOR_CLASSES = {
    Metric.COSINE: "cosine_ops",
    Metric.INNER_PRODUCT: "ip_ops",
    Metric.L2: "l2_ops",
}
"""pgvector's operator classes, after the prefix ``vector_`` or ``halfvec_``."""

RECORD_COLUMNS = "id, embedding, text, metadata, seq"


SCORES: Mapping[Metric, Callable[[float], float]] = {
    Metric.COSINE: lambda distance: 1.0 - distance,
    Metric.INNER_PRODUCT: lambda distance: -distance,
    Metric.L2: lambda distance: -(distance * distance),
}
"""The score (higher is nearer) of what pgvector calls a distance; see vectorstore.types."""


def filter_parameters(filter: Filter | None) -> list[list[str]]:
    """One parameter a clause: the JSON objects of which a row must contain one."""
    if filter is None:
        return []
    return [[canonical_json({key: value}) for value in values] for key, values in filter.clauses]


def clause_values(clauses: Sequence[Sequence[str]]) -> dict[str, Sequence[str]]:
    """The parameters under the names that the statements give them."""
    return {f"clause_{number}": values for number, values in enumerate(clauses)}


class Queries:
    """Texts of the read statements for one table."""

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings
        self._names = Names.of(settings.table)
        self.search = lru_cache(maxsize=256)(self._search)
        self.numbered = lru_cache(maxsize=256)(self._numbered)
        self.count = lru_cache(maxsize=64)(self._count)
        self.get = self._text(
            f"SELECT {RECORD_COLUMNS} FROM {{table}} WHERE id = ANY(%s::text[])"  # noqa: S608
        )
        self.scan = self._text(
            f"SELECT {RECORD_COLUMNS} FROM {{table}} WHERE id > %s ORDER BY id LIMIT %s"  # noqa: S608
        )
        self.row_seq = self._text("SELECT seq FROM {table} WHERE id = %s")
        self.remove_row = self._text("DELETE FROM {table} WHERE id = %s")
        self.cursor = self._text(
            "SELECT coalesce(incarnation, ''), seq, state, mark FROM {cursor} WHERE single"
        )
        self.indexed = self._text(
            "SELECT coalesce(bool_or(i.indisvalid), false) FROM pg_index i "
            "WHERE i.indexrelid = to_regclass(quote_ident({index}))"
        )

    def rerank_width(self, k: int) -> int:
        """How many rows the halfvec index is asked for before they are ranked by full vectors."""
        return max(k, min(self._settings.rerank_factor * k, EF_SEARCH_MAX))

    def _search(self, k: int, clauses: int, *, exact: bool) -> str:
        operator = _OPERATORS[self._settings.metric]
        distance = f"embedding {operator} %s"
        if not exact and self._settings.halfvec:
            return self._halfvec_search(k, clauses, operator)
        # Adding zero makes an expression that no index provides: the scan is exact.
        order = f"({distance}) + 0" if exact else distance
        return self._text(
            f"""
            SELECT c.seq, c.state, h.id, h.distance, h.text, h.metadata, h.seq
            FROM {{cursor}} c LEFT JOIN LATERAL (
                SELECT id, {order.replace("%s", "%(vector)s")} AS distance, text, metadata, seq
                FROM {{table}} {_where(clauses)}
                ORDER BY {order.replace("%s", "%(vector)s")} LIMIT {k:d}
            ) h ON true
            WHERE c.single
            """  # noqa: S608 - made of operators, numbers and identifiers
        )

    def _numbered(self, k: int, *, exact: bool) -> str:
        """The search without a filter as libpq takes it: the vector is $1."""
        return self._search(k, 0, exact=exact).replace("%(vector)s", "$1")

    def _halfvec_search(self, k: int, clauses: int, operator: str) -> str:
        half = f"halfvec({self._settings.dimension:d})"
        return self._text(
            f"""
            SELECT c.seq, c.state, h.id, h.distance, h.text, h.metadata, h.seq
            FROM {{cursor}} c LEFT JOIN LATERAL (
                SELECT id, embedding {operator} %(vector)s AS distance, text, metadata, seq
                FROM (
                    SELECT id, embedding, text, metadata, seq
                    FROM {{table}} {_where(clauses)}
                    ORDER BY embedding::{half} {operator} %(vector)s::{half}
                    LIMIT {self.rerank_width(k):d}
                ) near
                ORDER BY embedding {operator} %(vector)s LIMIT {k:d}
            ) h ON true
            WHERE c.single
            """  # noqa: S608 - made of operators, numbers and identifiers
        )

    def _count(self, clauses: int) -> str:
        return self._text(f"SELECT count(*) FROM {{table}} {_where(clauses)}")  # noqa: S608

    def _text(self, template: str) -> str:
        return (
            sql.SQL(template)
            .format(
                table=self._names.table,
                cursor=self._names.cursor,
                index=sql.Literal(self._names.vector_index),
            )
            .as_string(None)
        )


def _where(clauses: int) -> str:
    if not clauses:
        return ""
    # GIN answers `contains any of`; numbers compare as numbers, booleans and null as themselves.
    return "WHERE " + " AND ".join(
        f"metadata @> ANY(%(clause_{number})s::text[]::jsonb[])" for number in range(clauses)
    )
