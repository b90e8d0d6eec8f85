"""Digests are the same number on either side of the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.suite import record
from vectorstore.canonical import canonical_json
from vectorstore.digests import METHODS, Digest, DigestMethod, digest_of, row_digest
from vectorstore.errors import InvalidInput
from vectorstore.postgres.digests import best_method, digest_range, digest_rows, split_ranges
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Metric, Record

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
)
documents = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)
objects = st.dictionaries(texts, documents, max_size=5)


@pytest.fixture(scope="module")
def connection(postgresql_dsn: str) -> Any:
    with psycopg.connect(postgresql_dsn, autocommit=True) as opened:
        yield opened


@given(objects)
@settings(deadline=None, max_examples=300)
def test_canonical_json_is_what_jsonb_prints(connection: Any, value: dict[str, Any]) -> None:
    """For any JSON object, our canonical text is a fixed point of the server's jsonb."""
    text = canonical_json(value)
    (printed,) = connection.execute("SELECT %s::jsonb::text", (text,)).fetchone()
    assert printed == text


@pytest.mark.parametrize("method", METHODS)
@given(st.data())
@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_server_and_client_agree_bit_for_bit(
    postgres_store: Callable[..., PostgresStore], method: DigestMethod, data: st.DataObject
) -> None:
    """Whatever ids, texts, metadata and vectors a table holds, the digests of its rows are equal."""
    rows = [
        Record(
            record_id,
            np.array(
                data.draw(
                    st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=3, max_size=3)
                ),
                np.float32,
            ),
            data.draw(texts),
            data.draw(objects),
        )
        for record_id in data.draw(st.lists(texts.filter(bool), max_size=6, unique=True))
    ]
    store = shared_store(postgres_store)
    store.delete([row.id for row in store.scan(limit=10_000)])
    store.upsert(rows)
    held = store.scan()
    expected = [(row.id, row.seq, row_digest(row, method)) for row in held]
    assert digest_rows(store, method=method) == expected
    assert digest_range(store, method=method) == digest_of(digest for _, _, digest in expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "change",
    [
        lambda r: Record("other", r.embedding, r.text, r.metadata, r.seq),
        lambda r: Record(r.id, r.embedding, r.text, r.metadata, r.seq + 1),
        lambda r: Record(r.id, np.nextafter(r.embedding, np.float32(9)), r.text, r.metadata, r.seq),
        lambda r: Record(r.id, r.embedding, r.text + " ", r.metadata, r.seq),
        lambda r: Record(r.id, r.embedding, r.text, {"n": 2}, r.seq),
        # The border between two fields moves.
        lambda r: Record(r.id + r.text[0], r.embedding, r.text[1:], r.metadata, r.seq),
    ],
)
def test_every_field_counts(method: DigestMethod, change: Callable[[Record], Record]) -> None:
    """A change of id, seq, one bit of the vector, text or metadata changes the digest."""
    original = record("one", metadata={"n": 1})
    assert row_digest(change(original), method) != row_digest(original, method)


def test_metadata_digests_ignore_how_the_object_was_written() -> None:
    """Key order is no difference."""
    one = record("one", metadata={"a": 1, "b": 2})
    two = record("one", metadata={"b": 2, "a": 1})
    assert row_digest(one, "crc32c") == row_digest(two, "crc32c")


def test_ranges_join_to_the_whole(postgres_store: Callable[..., PostgresStore]) -> None:
    """Split ranges cover every id once, in nearly equal parts, and their digests add up."""
    store = postgres_store()
    store.upsert([record(f"é{n:03d}", seed=n) for n in range(101)])
    whole = digest_range(store)
    assert whole.rows == 101
    ranges = split_ranges(store, 4)
    parts = [digest_range(store, after=after, upto=upto) for after, upto in ranges]
    assert sum(parts, Digest()) == whole
    assert [part.rows for part in parts] == [26, 25, 25, 25]
    walked = [row for after, upto in ranges for row in digest_rows(store, after=after, upto=upto)]
    assert [row[0] for row in walked] == [row.id for row in store.scan()]
    assert len(digest_rows(store, limit=7)) == 7


def test_an_empty_table_has_the_empty_digest(postgres_store: Callable[..., PostgresStore]) -> None:
    """No rows: count, sum and mix are zero, and there is one range."""
    store = postgres_store()
    assert digest_range(store) == Digest()
    assert split_ranges(store, 3) == [("", None)]
    assert best_method(store.facts) == ("crc32c" if store.facts.server_major >= 18 else "md5")


def test_json_that_the_server_would_refuse_is_refused_here() -> None:
    """NaN never reaches the server."""
    with pytest.raises(InvalidInput):
        canonical_json({"x": float("nan")})


_stores: dict[int, PostgresStore] = {}


def shared_store(postgres_store: Callable[..., PostgresStore]) -> PostgresStore:
    """One store for all examples of a test."""
    key = id(postgres_store)
    if key not in _stores:
        _stores.clear()
        _stores[key] = postgres_store(dimension=3, metric=Metric.L2)
    return _stores[key]
