"""Filters on metadata: equality and any-of, the same in every store.

A filter is a conjunction of clauses ``key = value`` or ``key in values`` over the top-level keys of a
record's metadata. Values are JSON scalars. Equality is JSON's: ``1`` equals ``1.0``, ``true`` does
not equal ``1``, and ``null`` matches only a key that is present and null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from vectorstore.canonical import INTEGER_BITS_MAX, canonical_json
from vectorstore.errors import InvalidInput

__all__ = ["CLAUSES_MAX", "EXACT_MAX", "VALUES_MAX", "Filter", "Scalar", "check_filter"]

Scalar: TypeAlias = str | int | float | bool | None

CLAUSES_MAX = 32
VALUES_MAX = 1000

# Larger floats are not the whole numbers that their shortest texts spell.
EXACT_MAX = 2**53
_UNCHANGED = frozenset({str, int, bool, type(None)})


@dataclass(frozen=True, slots=True, eq=False)
class Filter:
    """A normalised filter: hashable, so that stores may cache what it matches.

    Raises InvalidInput for other shapes and for what JSON cannot hold.
    """

    clauses: tuple[tuple[str, tuple[Scalar, ...]], ...]

    def __post_init__(self) -> None:
        # What a value is once it has been stored: a member of an enumeration its text, 1e23 a whole
        # number. Otherwise stores that compare in their own ways would not agree on what matches.
        object.__setattr__(
            self, "clauses", tuple(_clause(key, values) for key, values in self.clauses)
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and self._typed() == other._typed()

    def __hash__(self) -> int:
        return hash(self._typed())

    def _typed(self) -> tuple[tuple[str, tuple[tuple[bool, Scalar], ...]], ...]:
        # To Python True equals 1; to a filter it does not.
        return tuple(
            (key, tuple((isinstance(value, bool), value) for value in values))
            for key, values in self.clauses
        )

    @classmethod
    def of(cls, mapping: Mapping[str, Scalar | Sequence[Scalar]]) -> Filter | None:
        """Build a filter from ``{key: value}`` or ``{key: [value, ...]}``; ``{}`` means no filter.

        Raises InvalidInput as the constructor does, and for more than ``CLAUSES_MAX`` clauses or
        ``VALUES_MAX`` values in one clause.
        """
        if len(mapping) > CLAUSES_MAX:
            raise InvalidInput(
                f"filter has {len(mapping)} clauses; at most {CLAUSES_MAX} are allowed"
            )
        clauses: list[tuple[str, tuple[Scalar, ...]]] = []
        for key, value in sorted(mapping.items()):
            values: tuple[Scalar, ...]
            if isinstance(value, Sequence) and not isinstance(value, str):
                values = tuple(value)
            else:
                values = (value,)
            if len(values) > VALUES_MAX:
                raise InvalidInput(
                    f"filter on {key!r} lists {len(values)} values; at most {VALUES_MAX} are allowed"
                )
            clauses.append((key, values))
        return cls(tuple(clauses)) if clauses else None

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a record with this metadata may answer."""
        return all(
            key in metadata and any(_equal(metadata[key], value) for value in values)
            for key, values in self.clauses
        )


def check_filter(filter: Filter | None) -> None:
    """Refuse what is no filter."""
    if filter is not None and not isinstance(filter, Filter):
        raise InvalidInput(
            f"the filter is a {type(filter).__name__}; make one by Filter.of({{key: value}})"
        )


def _equal(stored: Any, wanted: Scalar) -> bool:
    if isinstance(stored, bool) or isinstance(wanted, bool):
        return stored is wanted
    if isinstance(stored, int | float) and isinstance(wanted, int | float):
        # Rows of a foreign index are kept as they were found there.
        return bool(_as_stored(stored) == wanted)
    return type(stored) is type(wanted) and bool(stored == wanted)


def _clause(key: str, values: tuple[Scalar, ...]) -> tuple[str, tuple[Scalar, ...]]:
    _check_text(key, "a filter's key")
    if not isinstance(values, tuple):
        raise InvalidInput(f"filter on {key!r} takes a tuple of values, not {values!r}")
    for value in values:
        _check_scalar(key, value)
    return _as_stored(key), tuple(map(_as_stored, values))


def _as_stored(value: Any) -> Any:
    kind = type(value)
    if kind in _UNCHANGED or (kind is float and abs(value) <= EXACT_MAX):
        return value
    return json.loads(canonical_json(value))


def _check_text(text: object, what: str) -> None:
    if not isinstance(text, str) or "\0" in text:
        raise InvalidInput(f"{what} must be text without NUL characters, not {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{what} holds a lone surrogate, which UTF-8 cannot encode") from error


def _check_scalar(key: str, value: object) -> None:
    if isinstance(value, str):
        _check_text(value, f"the filter value for {key!r}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(f"filter on {key!r} has {value!r}, which JSON cannot hold")
    elif isinstance(value, int) and value.bit_length() > INTEGER_BITS_MAX:
        raise InvalidInput(
            f"filter on {key!r} has a whole number of more than {INTEGER_BITS_MAX:,} bits"
        )
    elif value is not None and not isinstance(value, bool | int | float):
        raise InvalidInput(
            f"filter on {key!r} takes text, numbers, booleans, null, or a list of these; "
            f"got {type(value).__name__}"
        )
