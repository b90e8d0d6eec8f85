"""Filters that match different rows are different, so that no store mistakes one for another."""

from __future__ import annotations

import numpy as np
import pytest

from vectorstore.faiss.store import FaissStore
from vectorstore.filters import Filter
from vectorstore.types import Change, Metric, Query, Record


@pytest.mark.parametrize(("one", "other"), [(1, True), (0, False), ([1, 2], [True, 2])])
def test_true_is_not_one(one: object, other: object) -> None:
    """A filter for 1 and a filter for true are unequal; 1 and 1.0 match the same and are equal."""
    assert Filter.of({"n": one}) != Filter.of({"n": other})
    assert len({Filter.of({"n": one}), Filter.of({"n": other})}) == 2
    assert Filter.of({"n": 1}) == Filter.of({"n": 1.0})
    assert hash(Filter.of({"n": 1})) == hash(Filter.of({"n": 1.0}))


def test_a_remembered_filter_is_not_taken_for_another() -> None:
    """FAISS remembers what a filter matched; asking for true after 1 gives the rows with true."""
    store = FaissStore.empty(dimension=2, metric=Metric.COSINE, kind="flat")
    store.apply(
        [
            Change(1, "one", Record("one", np.array([1, 0], np.float32), "", {"n": 1}, 1)),
            Change(2, "true", Record("true", np.array([0, 1], np.float32), "", {"n": True}, 2)),
        ]
    )
    found = [
        [hit.id for hit in store.search(Query(np.ones(2), filter=Filter.of({"n": n}))).hits]
        for n in (1, True, 1)
    ]
    assert found == [["one"], ["true"], ["one"]]
