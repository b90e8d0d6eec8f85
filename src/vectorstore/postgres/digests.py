"""Digests computed on the server: bit-exact twins of :mod:`vectorstore.digests`."""

from __future__ import annotations

from psycopg import sql

from vectorstore.digests import METHODS, Digest, DigestMethod
from vectorstore.errors import Unsupported
from vectorstore.postgres.connection import BoundedConnection
from vectorstore.postgres.schema import ServerFacts
from vectorstore.postgres.store import PostgresStore

__all__ = ["best_method", "digest_range", "digest_rows", "split_ranges"]

_HEAD = """int8send(seq) || int4send(octet_length(id)) || int4send(octet_length(text))
    || convert_to(id, 'UTF8') || convert_to(text, 'UTF8') || convert_to(metadata::text, 'UTF8')"""
_VECTOR = "vector_send(embedding)"

_ROW: dict[DigestMethod, str] = {
    # Two checksums side by side: joining the bytes first would copy every vector.
    "crc32c": f"(crc32c({_HEAD}) << 32) | crc32c({_VECTOR})",
    "md5": f"('x' || substr(md5({_HEAD} || {_VECTOR}), 1, 16))::bit(64)::bigint",
    "sha256": (
        f"('x' || encode(substr(sha256({_HEAD} || {_VECTOR}), 1, 8), 'hex'))::bit(64)::bigint"
    ),
}

# OFFSET 0 keeps the planner from moving the digest above a sort, which would then sort vectors.
_ROWS = """
    SELECT id, seq, {row} AS digest FROM {table}
    WHERE id > %(after)s AND (%(upto)s::text IS NULL OR id <= %(upto)s::text) {tail} OFFSET 0
"""


def best_method(facts: ServerFacts) -> DigestMethod:
    """The fastest method that the server has."""
    return "crc32c" if facts.has_crc32c else "md5"


def digest_range(
    store: PostgresStore,
    *,
    after: str = "",
    upto: str | None = None,
    method: DigestMethod | None = None,
    timeout_ms: float | None = None,
) -> Digest:
    """The digest of the rows with ``after < id <= upto`` in byte order; ``upto`` None: to the end."""
    inner = _rows_query(store, method, sql.SQL(""))
    statement = sql.SQL(
        "SELECT count(*), coalesce(sum(digest), 0), coalesce(bit_xor(digest), 0) FROM ({}) AS r"
    ).format(inner)

    def compute(connection: BoundedConnection) -> Digest:
        row = connection.execute(statement, {"after": after, "upto": upto}).fetchone()
        return Digest(*(int(value) for value in row)) if row else Digest()

    return store.read(compute, timeout_ms=timeout_ms)


def digest_rows(
    store: PostgresStore,
    *,
    after: str = "",
    upto: str | None = None,
    limit: int = 10_000,
    method: DigestMethod | None = None,
) -> list[tuple[str, int, int]]:
    """(id, seq, digest) of up to ``limit`` rows of the range, in byte order of ids."""
    tail = sql.SQL("ORDER BY id LIMIT {}").format(sql.Literal(limit))
    statement = _rows_query(store, method, tail)

    def compute(connection: BoundedConnection) -> list[tuple[str, int, int]]:
        rows = connection.reader.execute(statement, {"after": after, "upto": upto}).fetchall()
        return [(row[0], row[1], row[2]) for row in rows]

    return store.read(compute)


def split_ranges(store: PostgresStore, parts: int) -> list[tuple[str, str | None]]:
    """Up to ``parts`` ranges (after, upto) of about equal row counts that cover every id."""
    statement = sql.SQL(
        "SELECT max(id) FROM (SELECT id, ntile(%s) OVER (ORDER BY id) AS part FROM {}) AS t "
        "GROUP BY part ORDER BY part"
    ).format(store.names.table)
    rows = store.read(lambda connection: connection.execute(statement, (parts,)).fetchall())
    bounds = [str(row[0]) for row in rows][:-1]
    starts = ["", *bounds]
    ends: list[str | None] = [*bounds, None]
    return list(zip(starts, ends, strict=True))


def _rows_query(
    store: PostgresStore, method: DigestMethod | None, tail: sql.Composable
) -> sql.Composed:
    chosen = method or best_method(store.facts)
    if chosen not in METHODS:
        raise Unsupported(f"digest method {chosen!r} is not known; use one of {', '.join(METHODS)}")
    if chosen == "crc32c" and not store.facts.has_crc32c:
        raise Unsupported(
            f"PostgreSQL {store.facts.server_version} has no crc32c(): use md5 or sha256"
        )
    return sql.SQL(_ROWS).format(row=sql.SQL(_ROW[chosen]), table=store.names.table, tail=tail)
