"""Canonical JSON: one text for one JSON object, on either side of the wire.

The form is the one that PostgreSQL prints for ``jsonb``, so that a digest made here equals a digest
made on the server: keys ordered by (length in bytes, bytes), ``", "`` and ``": "`` as separators,
numbers in plain decimal notation with their written scale (PostgreSQL documentation, 8.14 JSON Types).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any

from vectorstore.errors import InvalidInput

__all__ = ["DEPTH_MAX", "INTEGER_BITS_MAX", "canonical_json"]

DEPTH_MAX = 64
# Printing a number takes time that grows with the square of its digits; Python refuses 4,300 of them.
INTEGER_BITS_MAX = 4_096


def canonical_json(value: Any) -> str:
    """The canonical text of a JSON value.

    Raises InvalidInput for NaN, infinities, whole numbers beyond ``INTEGER_BITS_MAX``, NUL or lone
    surrogates in text, keys that are not text, nesting beyond ``DEPTH_MAX``, and types that JSON does not
    know.
    """
    return _written(value, 0)


def _written(value: Any, depth: int) -> str:
    write = _SCALARS.get(type(value))
    if write is not None:
        return write(value)
    # The common type by itself: to ask the abstract one takes longer than to write a small object.
    if type(value) is dict or isinstance(value, Mapping):
        return _object(value, depth)
    if isinstance(value, list | tuple):
        _check_depth(value, depth)
        return f"[{', '.join([_written(item, depth + 1) for item in value])}]"
    # Subclasses, as of an enumeration: they are what they derive from.
    for kind in (str, int, float):
        if isinstance(value, kind):
            return _SCALARS[kind](value)
    raise InvalidInput(f"metadata holds a {type(value).__name__}, which JSON does not know")


def _object(value: Mapping[Any, Any], depth: int) -> str:
    _check_depth(value, depth)
    template, keys = _form(tuple(value))
    texts: list[str] = []
    for key in keys:
        item = value[key]
        write = _SCALARS.get(type(item))
        texts.append(_written(item, depth + 1) if write is None else write(item))
    return template % tuple(texts)


def _check_depth(value: Any, depth: int) -> None:
    # What it holds lies one level deeper.
    if depth + bool(value) > DEPTH_MAX:
        raise InvalidInput(f"metadata is nested more than {DEPTH_MAX} levels deep")


# The objects of one collection have the same few sets of keys, millions of times.
@lru_cache(maxsize=1024)
def _form(keys: tuple[Any, ...]) -> tuple[str, tuple[str, ...]]:
    """The text of an object with these keys, with a place for each value, and the keys in its order."""
    encoded: list[tuple[int, bytes, str]] = []
    for key in keys:
        if not isinstance(key, str):
            raise InvalidInput(f"metadata has the key {key!r}; JSON keys are text")
        data = _encode(key)
        encoded.append((len(data), data, key))
    ordered = tuple(key for _, _, key in sorted(encoded))
    places = [_text(key).replace("%", "%%") + ": %s" for key in ordered]
    return "{" + ", ".join(places) + "}", ordered


def _encode(text: str) -> bytes:
    if "\0" in text:
        raise InvalidInput("text holds a NUL character, which PostgreSQL cannot store")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInput("text holds a lone surrogate, which UTF-8 cannot encode") from error


def _text(text: str) -> str:
    # Whether a text is ASCII is known without looking at it.
    if "\0" in text or not text.isascii():
        _encode(text)
    # What json.dumps(text, ensure_ascii=False) comes down to, without an encoder for each text.
    return encode_basestring(text)


def _integer(value: int) -> str:
    if value.bit_length() > INTEGER_BITS_MAX:
        raise InvalidInput(f"metadata holds a whole number of more than {INTEGER_BITS_MAX:,} bits")
    return int.__repr__(value)


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise InvalidInput(f"metadata holds {value!r}, which JSON cannot hold")
    # PostgreSQL's numeric has no negative zero.
    plain = format(Decimal(float.__repr__(value)), "f")
    return plain[1:] if value == 0.0 and plain.startswith("-") else plain


_SCALARS: Mapping[type, Callable[[Any], str]] = {
    str: _text,
    int: _integer,
    float: _number,
    bool: lambda value: "true" if value else "false",
    type(None): lambda _: "null",
}
