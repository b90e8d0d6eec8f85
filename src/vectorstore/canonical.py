"""Canonical JSON: one text for one JSON object, on either side of the wire.

The form is the one that PostgreSQL prints for ``jsonb``, so that a digest made here equals a digest
made on the server: keys ordered by (length in bytes, bytes), ``", "`` and ``": "`` as separators,
numbers in plain decimal notation with their written scale (PostgreSQL documentation, 8.14 JSON Types).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any

from vectorstore.errors import InvalidInput

__all__ = ["DEPTH_MAX", "canonical_json"]

DEPTH_MAX = 64


def canonical_json(value: Any) -> str:
    """The canonical text of a JSON value.

    Raises InvalidInput for NaN, infinities, NUL or lone surrogates in text, keys that are not text,
    nesting beyond ``DEPTH_MAX``, and types that JSON does not know.
    """
    parts: list[str] = []
    _write(value, parts, 0)
    return "".join(parts)


def _write(value: Any, parts: list[str], depth: int) -> None:
    if depth > DEPTH_MAX:
        raise InvalidInput(f"metadata is nested more than {DEPTH_MAX} levels deep")
    if value is None:
        parts.append("null")
    elif value is True:
        parts.append("true")
    elif value is False:
        parts.append("false")
    elif isinstance(value, str):
        parts.append(_text(value))
    elif isinstance(value, int):
        parts.append(int.__repr__(value))
    elif isinstance(value, float):
        parts.append(_number(value))
    elif isinstance(value, Mapping):
        _write_object(value, parts, depth)
    elif isinstance(value, list | tuple):
        parts.append("[")
        for position, item in enumerate(value):
            if position:
                parts.append(", ")
            _write(item, parts, depth + 1)
        parts.append("]")
    else:
        raise InvalidInput(f"metadata holds a {type(value).__name__}, which JSON does not know")


def _write_object(value: Mapping[Any, Any], parts: list[str], depth: int) -> None:
    parts.append("{")
    for position, (key, written) in enumerate(_ordered(tuple(value))):
        if position:
            parts.append(", ")
        parts.append(written)
        _write(value[key], parts, depth + 1)
    parts.append("}")


# The objects of one collection have the same few sets of keys, millions of times.
@lru_cache(maxsize=1024)
def _ordered(keys: tuple[Any, ...]) -> tuple[tuple[str, str], ...]:
    """The keys in canonical order, each with its text and the colon after it."""
    encoded: list[tuple[int, bytes, str]] = []
    for key in keys:
        if not isinstance(key, str):
            raise InvalidInput(f"metadata has the key {key!r}; JSON keys are text")
        data = _encode(key)
        encoded.append((len(data), data, key))
    return tuple((key, f"{_text(key)}: ") for _, _, key in sorted(encoded))


def _encode(text: str) -> bytes:
    if "\0" in text:
        raise InvalidInput("text holds a NUL character, which PostgreSQL cannot store")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInput("text holds a lone surrogate, which UTF-8 cannot encode") from error


def _text(text: str) -> str:
    _encode(text)
    # What json.dumps(text, ensure_ascii=False) comes down to, without an encoder for each text.
    return encode_basestring(text)


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise InvalidInput(f"metadata holds {value!r}, which JSON cannot hold")
    # PostgreSQL's numeric has no negative zero.
    plain = format(Decimal(repr(value)), "f")
    return plain[1:] if value == 0.0 and plain.startswith("-") else plain
