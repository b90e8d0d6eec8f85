"""LangChain's filters as ours: equality and any-of; whatever else is asked is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vectorstore.errors import InvalidInput, Unsupported
from vectorstore.filters import Filter

__all__ = ["filter_from_langchain"]


def filter_from_langchain(given: object) -> Filter | None:
    """The filter that a caller of LangChain's interface means.

    Takes ``{key: value}``, ``{key: [value, ...]}``, ``{key: {"$eq": value}}``,
    ``{key: {"$in": [value, ...]}}``, a ``Filter``, or ``None``. Raises Unsupported for a function and
    for other operators, InvalidInput for other shapes.
    """
    if given is None or isinstance(given, Filter):
        return given
    if callable(given):
        name = getattr(given, "__name__", type(given).__name__)
        raise Unsupported(
            f"the filter is the function {name!r}: a store cannot run it inside its search; "
            'say it as data, {"key": value} or {"key": [value, ...]}'
        )
    if not isinstance(given, Mapping):
        raise InvalidInput(f"the filter must be a dict of metadata, not {type(given).__name__}")
    clauses: dict[str, Any] = {}
    for key, condition in given.items():
        if isinstance(key, str) and key.startswith("$"):
            raise _refusal(key)
        clauses[key] = _values(key, condition) if isinstance(condition, Mapping) else condition
    return Filter.of(clauses)


def _values(key: str, condition: Mapping[Any, Any]) -> Any:
    if len(condition) != 1:
        raise Unsupported(
            f"the filter on {key!r} has {len(condition)} operators; say exactly one, $eq or $in"
        )
    ((operator, value),) = condition.items()
    if operator == "$eq":
        if isinstance(value, list | tuple):
            raise Unsupported(f"the filter on {key!r} asks $eq of a list; $in takes any of several")
        return value
    if operator == "$in":
        if not isinstance(value, list | tuple | set | frozenset):
            raise InvalidInput(f"the filter on {key!r}: $in takes a list, not {value!r}")
        return list(value)
    raise _refusal(str(operator))


def _refusal(operator: str) -> Unsupported:
    return Unsupported(
        f"the filter uses the operator {operator!r}; stores answer $eq and $in, all clauses together: "
        "filter the rest in the application, or store what is asked for as its own metadata key"
    )
