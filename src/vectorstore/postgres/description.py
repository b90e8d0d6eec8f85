"""The live facts about a table that change its answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vectorstore.postgres.connection import BoundedConnection
from vectorstore.postgres.session import pending_settings, send_settings

if TYPE_CHECKING:
    from vectorstore.postgres.readable import ReadableTable

__all__ = ["describe"]

_INDEX = """
    SELECT c.relname, a.amname, o.opcname, i.indisvalid, c.reloptions
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_am a ON a.oid = c.relam
    JOIN pg_opclass o ON o.oid = i.indclass[0]
    WHERE i.indrelid = to_regclass(quote_ident(%s)) AND a.amname IN ('hnsw', 'ivfflat')
    ORDER BY c.relname
"""


def describe(store: ReadableTable, *, timeout_ms: float | None) -> Mapping[str, Any]:
    """JSON scalars, read from the server: versions, table, index and search settings."""
    settings, facts = store.settings, store.facts

    def look(connection: BoundedConnection) -> dict[str, Any]:
        # A larger k raises ef_search for its query; what is told is the setting between queries. A
        # setting that the session believes in and the server has lost shows, because it is not sent.
        changes = pending_settings(connection, {"hnsw.ef_search": settings.ef_search})
        send_settings(connection, changes)
        connection.session.update(changes)
        indexes = connection.execute(_INDEX, (settings.table,)).fetchall()
        ef_search = _shown(connection, "hnsw.ef_search")
        iterative_scan = _shown(connection, "hnsw.iterative_scan")
        index: dict[str, Any] = {"index_kind": "none"}
        if indexes:
            name, kind, operator_class, valid, options = indexes[0]
            chosen = dict(option.split("=", 1) for option in options or [])
            index = {
                "index_name": name,
                "index_kind": kind,
                "index_operator_class": operator_class,
                "index_valid": valid,
                "index_m": int(chosen.get("m", 16)),
                "index_ef_construction": int(chosen.get("ef_construction", 64)),
            }
        return {
            "store": store.name,
            "dimension": settings.dimension,
            "metric": settings.metric.value,
            "table": settings.table,
            "server_version": facts.server_version,
            "pgvector_version": ".".join(map(str, facts.pgvector)),
            "exact_rows_max": settings.exact_rows_max,
            "rerank_factor": settings.rerank_factor if settings.halfvec else None,
            "ef_search": int(ef_search) if ef_search else None,
            "iterative_scan": iterative_scan,
            **index,
        }

    return store.read(look, timeout_ms=timeout_ms)


def _shown(connection: BoundedConnection, name: str) -> str | None:
    row = connection.execute("SELECT current_setting(%s, true)", (name,)).fetchone()
    return row[0] if row else None
