"""Haystack's filter language as ours, for the part of it that every store answers exactly.

``==``, ``in`` and ``AND`` over top-level metadata keys are pushed into the store's search. The rest
of the language is refused by name there; over all documents, without a vector,
:meth:`vectorstore.integrations.haystack.HaystackStore.filter_documents` answers it in full.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from haystack.dataclasses import Document
from haystack.errors import FilterError

from vectorstore.errors import InvalidInput, Unsupported
from vectorstore.filters import Filter, Scalar

__all__ = ["FilterMalformed", "FilterUnsupported", "filter_from_haystack"]


class FilterMalformed(InvalidInput, FilterError):
    """The filter is not in Haystack's language."""


class FilterUnsupported(Unsupported, FilterError):
    """The filter is in Haystack's language, and a store cannot run it inside its search."""


def filter_from_haystack(filters: Mapping[str, Any] | None) -> Filter | None:
    """The filter of a store's search that means the same as ``filters``.

    Raises FilterUnsupported for other operators, nested keys and fields that are not metadata, and
    FilterMalformed for what Haystack does not know; both are Haystack's ``FilterError`` too.
    """
    if not filters:
        return None
    clauses: dict[str, tuple[Scalar, ...]] = {}
    _collect(filters, clauses)
    return Filter.of(clauses)


def _collect(condition: Mapping[str, Any], clauses: dict[str, tuple[Scalar, ...]]) -> None:
    if "field" not in condition:
        _collect_logic(condition, clauses)
        return
    operator, value = _part(condition, "operator"), _part(condition, "value")
    key = _metadata_key(condition["field"])
    if operator == "in":
        if not isinstance(value, list):
            raise FilterMalformed(f"the operator 'in' takes a list, not {type(value).__name__}")
        wanted = tuple(value)
    elif operator == "==":
        wanted = (value,)
    else:
        raise _unsupported(f"the operator {operator!r} on {key!r}")
    for item in wanted:
        if item is None:
            # Haystack's None also means "the key is not there"; the store's null does not.
            raise _unsupported(f"the value None for {key!r}")
        if not isinstance(item, str | int | float):
            raise _unsupported(f"a {type(item).__name__} as value for {key!r}")
    if key in clauses:
        before = Filter(((key, clauses[key]),))
        # Both as they would be stored.
        ((_, wanted),) = Filter(((key, wanted),)).clauses
        wanted = tuple(item for item in wanted if before.matches({key: item}))
    clauses[key] = wanted


def _collect_logic(condition: Mapping[str, Any], clauses: dict[str, tuple[Scalar, ...]]) -> None:
    operator, conditions = _part(condition, "operator"), _part(condition, "conditions")
    if operator != "AND":
        raise _unsupported(f"the operator {operator!r}")
    for part in conditions:
        _collect(part, clauses)


def _part(condition: Mapping[str, Any], key: str) -> Any:
    if key not in condition:
        raise FilterMalformed(f"{key!r} is missing in the filter {dict(condition)!r}")
    return condition[key]


def _metadata_key(field: str) -> str:
    key = field.removeprefix("meta.")
    if "." in key:
        raise _unsupported(f"the nested field {field!r}")
    # Haystack reads a bare name that is no field of a document as a key of its metadata.
    if key == field and key in {document_field.name for document_field in fields(Document)}:
        raise _unsupported(f"the document's own field {field!r}")
    return key


def _unsupported(what: str) -> FilterUnsupported:
    return FilterUnsupported(
        f"the filter uses {what}; a store's search answers ==, in and AND over top-level metadata. "
        "Store what is asked for under its own key, or use filter_documents, which reads every "
        "document and knows the whole language"
    )
