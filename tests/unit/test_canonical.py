"""Canonical JSON beyond what a server can be asked about: what is refused, and odd kinds of values."""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from vectorstore.canonical import DEPTH_MAX, canonical_json
from vectorstore.errors import InvalidInput


class Crop(enum.StrEnum):
    """A text with a name."""

    MAIZE = "maize"


class Month(enum.IntEnum):
    """A number with a name."""

    MAY = 5


def nested(depth: int, innermost: Any) -> Any:
    """``innermost`` within so many lists."""
    value = innermost
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"bb": 1, "a": 2}, '{"a": 2, "bb": 1}'),
        ({"100 %s %%": "%d"}, '{"100 %s %%": "%d"}'),
        (
            {"a": Crop.MAIZE, "b": Month.MAY, "c": np.float64(0.5)},
            '{"a": "maize", "b": 5, "c": 0.5}',
        ),
        ({"a": True, "b": None, "c": 1, "d": 1.0}, '{"a": true, "b": null, "c": 1, "d": 1.0}'),
        (MappingProxyType({"a": (1, [])}), '{"a": [1, []]}'),
        ({}, "{}"),
        ('é\u2028"', '"é\u2028\\""'),
    ],
)
def test_one_text_for_one_value(value: Any, text: str) -> None:
    """Keys by length and bytes; what derives from a text or a number counts as that."""
    assert canonical_json(value) == text


def test_equal_keys_of_other_values_share_nothing_but_their_order() -> None:
    """Objects with the same keys, seen one after the other, keep their own values."""
    assert [canonical_json({"b": n, "a": str(n)}) for n in (1, 2)] == [
        '{"a": "1", "b": 1}',
        '{"a": "2", "b": 2}',
    ]


def test_nesting_is_bounded() -> None:
    """As deep as the bound, and not one level deeper."""
    assert canonical_json(nested(DEPTH_MAX, 1)) == "[" * DEPTH_MAX + "1" + "]" * DEPTH_MAX
    assert canonical_json(nested(DEPTH_MAX, {})) == "[" * DEPTH_MAX + "{}" + "]" * DEPTH_MAX
    for innermost in ([1], {"a": 1}):
        with pytest.raises(InvalidInput, match="nested"):
            canonical_json(nested(DEPTH_MAX, innermost))


@pytest.mark.parametrize(
    "value",
    [
        "\0",
        "a\0é",
        "\ud800",
        {"\0": 1},
        {"\ud800": 1},
        {1: 2},
        float("nan"),
        [float("inf")],
        {1},
        b"",
    ],
)
def test_what_json_or_the_server_cannot_hold_is_refused(value: Any) -> None:
    """In values and in keys."""
    with pytest.raises(InvalidInput):
        canonical_json({"value": value} if not isinstance(value, dict) else value)
