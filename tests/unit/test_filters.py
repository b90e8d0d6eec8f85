"""Filters: what they mean, and that two that mean different things are never taken for one."""

from __future__ import annotations

import pytest

from vectorstore import Filter, InvalidInput
from vectorstore.filters import CLAUSES_MAX, VALUES_MAX


def test_true_and_one_are_different_filters() -> None:
    """A cache that is keyed by filters must not give the rows of `n = 1` to `n = true`."""
    assert Filter.of({"n": 1}) != Filter.of({"n": True})
    assert Filter.of({"n": 1}) == Filter.of({"n": 1.0})
    assert len({Filter.of({"n": 0}), Filter.of({"n": False}), Filter.of({"n": 0.0})}) == 2


def test_no_clauses_mean_no_filter() -> None:
    """An empty mapping filters nothing."""
    assert Filter.of({}) is None


@pytest.mark.parametrize(
    "bad",
    [
        {"k": float("nan")},
        {"k": {"a": 1}},
        {"k\0": 1},
        {"k": "a\0"},
        {"k": list(range(VALUES_MAX + 1))},
        {f"k{n}": n for n in range(CLAUSES_MAX + 1)},
    ],
)
def test_what_cannot_be_a_filter_is_refused(bad: dict[str, object]) -> None:
    """The message names the key or the limit."""
    with pytest.raises(InvalidInput):
        Filter.of(bad)  # type: ignore[arg-type]
