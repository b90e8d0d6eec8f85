"""Filters: what they mean, and that two that mean different things are never taken for one."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
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


class Crop(StrEnum):
    MAIZE = "maize"


def test_a_filter_holds_what_a_store_holds() -> None:
    """However it was made: what a cache remembers for one is right for every one that equals it."""
    for wanted in (Crop.MAIZE, np.str_("maize")):
        for made in (Filter.of({"crop": wanted}), Filter((("crop", (wanted,)),))):
            assert made == Filter.of({"crop": "maize"})
            assert type(made.clauses[0][1][0]) is str
    assert Filter((("n", (1e23,)),)) == Filter.of({"n": 10**23})


def test_rows_kept_as_they_were_found_match_by_what_their_copy_says() -> None:
    """The rows of a foreign index hold floats that PostgreSQL holds as whole numbers."""
    for wanted in (1e23, 10**23):
        assert Filter((("n", (wanted,)),)).matches({"n": 1e23})
    # The float is this whole number to the bit, and is written as another.
    assert not Filter((("n", (int(1e23),)),)).matches({"n": 1e23})


@pytest.mark.parametrize("bad", [(["maize"],), ({},), "maize", (float("inf"),), ("\ud800",)])
def test_what_is_made_directly_is_checked_too(bad: object) -> None:
    """It would fail inside a store, and look like the store's failure."""
    with pytest.raises(InvalidInput):
        Filter((("crop", bad),))  # type: ignore[arg-type]


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
