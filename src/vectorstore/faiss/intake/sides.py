"""What the side files say of each row: id, text and metadata, by the label that FAISS gives the row."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from vectorstore.errors import IntakeRefused
from vectorstore.faiss.intake.layouts import BARE, BOT, LANGCHAIN, Layout
from vectorstore.faiss.intake.literals import dictionary_in
from vectorstore.faiss.intake.pickles import StandIn, read_pickle
from vectorstore.faiss.shared_values import SharedValues

__all__ = ["Side", "SideRow", "read_side"]

NODES_MEMORY_FACTOR = 4
"""How much memory a file of nodes takes when it is read, in sizes of the file: measured 3.6."""

ID_MAP_MEMORY_FACTOR = 7
"""The same for a map of ids in JSON, which is made of short texts."""


_WIDE = re.compile(rb"\d{19}")
"""Digits enough for an integer beyond 64 bits."""


class SideRow(NamedTuple):
    """One row's own words: unchecked as yet."""

    id: Any
    text: Any
    metadata: Any


class Side(NamedTuple):
    """The rows by label, and what the file says of the index (``None``: nothing)."""

    rows: Mapping[int, SideRow]
    dimension: int | None = None
    kind: str | None = None


def read_side(layout: Layout) -> Side:
    """Read the side files of a layout; IntakeRefused names what is wrong with them."""
    if layout.name == BOT:
        return _bot(layout.sides[0])
    if layout.name == LANGCHAIN:
        return Side(_langchain(layout.sides[0]))
    if layout.name == BARE:
        return Side(_bare(layout.sides[0]))
    return Side(_llamaindex({one.name: one for one in layout.sides}))


def _bot(path: Path) -> Side:
    """A dict of ``metadata`` (chunks in order), ``id_to_chunk``, ``dimension``, ``index_type``.

    The chunk's number in the list is its id: ``chunk_id`` restarts in every document.
    """
    saved = read_pickle(path)
    if not isinstance(saved, dict):
        raise _not_as_expected(path, "a dictionary")
    chunks = saved.get("metadata")
    by_position = saved.get("id_to_chunk")
    if not isinstance(chunks, list) or not isinstance(by_position, dict | None):
        raise _not_as_expected(path, "a list under 'metadata' and a dictionary under 'id_to_chunk'")
    if by_position and len(by_position) != len(chunks):
        raise IntakeRefused(
            f"{path}: 'metadata' lists {len(chunks):,} chunks and 'id_to_chunk' {len(by_position):,}; "
            "they were saved at different times: save both files again from the running bot"
        )
    # The dictionary goes by FAISS's labels, which differ from the order once an IDMap lost a row.
    labelled = by_position or dict(enumerate(chunks))
    rows: dict[int, SideRow] = {}
    for label, chunk in labelled.items():
        if not isinstance(label, int) or not isinstance(chunk, dict):
            raise _not_as_expected(path, "chunks that are dictionaries, by position")
        rows[label] = SideRow(str(label), chunk.get("text"), _flattened(chunk))
    dimension, kind = saved.get("dimension"), saved.get("index_type")
    return Side(
        rows,
        dimension if isinstance(dimension, int) else None,
        kind if isinstance(kind, str) else None,
    )


def _flattened(chunk: Mapping[Any, Any]) -> dict[Any, Any]:
    """One flat object from either chunk shape, so that ``source_document`` is a key of its own.

    The fields under ``metadata`` come up beside the chunk's. If one of them would hide a field of
    another value, the chunk's stays in place and the whole nested object is kept as ``metadata``.
    """
    flat = {key: value for key, value in chunk.items() if key not in ("text", "metadata")}
    if "metadata" not in chunk:
        return flat
    nested = chunk["metadata"]
    if not isinstance(nested, dict):
        return {**flat, "metadata": nested}
    hidden = any(key in flat and not _same(flat[key], nested[key]) for key in nested)
    # A nested "metadata" or "text" of its own would take the place of something else later.
    merged = {**nested, **flat}
    return {**merged, "metadata": nested} if hidden else merged


def _same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and bool(left == right)


def _langchain(path: Path) -> dict[int, SideRow]:
    """A pair: the docstore {id: document} and {position: id}."""
    saved = read_pickle(path)
    expected = "a pair of an in-memory docstore and {position: id}"
    if not isinstance(saved, tuple | list) or len(saved) != 2:
        raise _not_as_expected(path, expected)
    docstore, by_position = saved
    if not isinstance(docstore, StandIn) or not isinstance(by_position, dict):
        raise _not_as_expected(path, expected)
    documents = docstore.fields().get("_dict")
    if docstore.kind != "docstore" or not isinstance(documents, dict):
        raise _not_as_expected(path, expected)
    rows: dict[int, SideRow] = {}
    for position, record_id in by_position.items():
        document = documents.get(record_id) if isinstance(record_id, str) else None
        if not isinstance(position, int) or not isinstance(document, StandIn):
            raise IntakeRefused(
                f"{path}: position {position!r} names the document {record_id!r}, which is not in "
                "the docstore; save the store again from the running application"
            )
        fields = document.fields()
        rows[position] = SideRow(record_id, fields.get("page_content"), fields.get("metadata"))
    return rows


def _llamaindex(sides: Mapping[str, Path]) -> dict[int, SideRow]:
    """Nodes of ``docstore.json``, placed by ``id_map.json`` or else by the index store's nodes."""
    path = sides["docstore.json"]
    nodes = _json(path).get("docstore/data", {})
    if "id_map.json" in sides:
        placed = _id_map(sides["id_map.json"])
    else:
        placed = _nodes_of_index_store(sides["index_store.json"])
    rows: dict[int, SideRow] = {}
    for label, node_id in placed.items():
        node = nodes.get(node_id) if isinstance(node_id, str) else None
        data = node.get("__data__") if isinstance(node, dict) else None
        if isinstance(data, str):
            data = _parsed(path, data.encode())
        if not isinstance(data, dict):
            raise IntakeRefused(
                f"{path}: vector {label} belongs to node {node_id!r}, which is not in the docstore; "
                "persist the whole storage context again"
            )
        resource = data.get("text_resource")
        text = resource.get("text") if isinstance(resource, dict) else data.get("text")
        rows[label] = SideRow(node_id, text, data.get("metadata", data.get("extra_info")))
    return rows


def _nodes_of_index_store(path: Path) -> dict[int, Any]:
    indexes = _json(path).get("index_store/data", {})
    placed: dict[int, Any] = {}
    for stored in indexes.values() if isinstance(indexes, dict) else ():
        data = stored.get("__data__") if isinstance(stored, dict) else None
        if isinstance(data, str):
            data = _parsed(path, data.encode())
        nodes = data.get("nodes_dict") if isinstance(data, dict) else None
        if not isinstance(nodes, dict):
            continue
        if placed and nodes:
            raise IntakeRefused(
                f"{path} describes several indexes over one vector store; persist the one to "
                "migrate into a folder of its own"
            )
        placed = _labelled(path, nodes)
    return placed


def _id_map(path: Path) -> dict[int, Any]:
    """JSON, or in older versions the text of a Python dictionary: parsed as a literal, never run."""
    name = "faiss_id_to_node_id_map"
    try:
        saved = _id_map_in_json(path)
    except ValueError:
        try:
            saved = {name: dictionary_in(path, name)}
        except ValueError as error:
            raise _not_as_expected(path, "JSON or a plain dictionary") from error
    labels = saved.get(name) if isinstance(saved, dict) else None
    if not isinstance(labels, dict):
        raise _not_as_expected(path, f"'{name}'")
    return _labelled(path, labels)


def _id_map_in_json(path: Path) -> Any:
    with path.open("rb") as file:
        begins = b"".join(file.read(64).split())
    if begins.startswith(b"{'"):
        raise ValueError("no JSON: its texts stand in single quotes")
    _require_memory(path, ID_MAP_MEMORY_FACTOR)
    return orjson.loads(path.read_bytes())


def _labelled(path: Path, names: Mapping[Any, Any]) -> dict[int, Any]:
    try:
        return {int(label): node_id for label, node_id in names.items()}
    except (TypeError, ValueError) as error:
        raise _not_as_expected(path, "vector numbers as keys") from error


def _bare(path: Path) -> dict[int, SideRow]:
    if path.suffix == ".npy":
        try:
            ids = np.load(path, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise _not_as_expected(path, "an array of texts or integers") from error
        if ids.ndim != 1 or ids.dtype.kind not in "iuU":
            raise _not_as_expected(path, "one dimension of texts or integers")
        return {at: SideRow(str(one), "", {}) for at, one in enumerate(ids.tolist())}
    rows: dict[int, SideRow] = {}
    values = SharedValues()
    with path.open("rb") as lines:
        for at, line in enumerate(lines):
            record = _parsed_line(path, line)
            if not isinstance(record, dict):
                raise _not_as_expected(path, "one JSON object a line")
            metadata = record.get("metadata", {})
            if isinstance(metadata, dict):
                metadata = values.shared(metadata)
            rows[at] = SideRow(record.get("id"), record.get("text", ""), metadata)
    return rows


def _json(path: Path) -> dict[Any, Any]:
    _require_memory(path, NODES_MEMORY_FACTOR)
    saved = _parsed(path, path.read_bytes())
    if not isinstance(saved, dict):
        raise _not_as_expected(path, "a JSON object")
    return saved


def _require_memory(path: Path, factor: int) -> None:
    """Refuse a file that this machine cannot hold once it is read, before the machine runs out."""
    size = path.stat().st_size
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size * factor > memory:
        raise IntakeRefused(
            f"{path} is {size:,} bytes: to read it takes about {size * factor / 2**30:,.0f} GiB of memory, "
            f"and this machine has {memory / 2**30:,.0f} GiB. Take it in on a machine with more, or write a "
            "records.jsonl (id, text, metadata) beside the index, which is read line by line"
        )


def _parsed_line(path: Path, raw: bytes) -> Any:
    """As :func:`_parsed`, for one of millions: three times as fast, and the names of keys are held once."""
    if _WIDE.search(raw) is not None:
        return _parsed(path, raw)
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        # What the faster reader does not take (NaN, half a surrogate), the other one judges.
        return _parsed(path, raw)


def _parsed(path: Path, raw: bytes) -> Any:
    try:
        # Python's reader: the faster one turns integers beyond 64 bits into floats.
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _not_as_expected(path, "whole JSON") from error


def _not_as_expected(path: Path, expected: str) -> IntakeRefused:
    return IntakeRefused(
        f"{path} does not hold {expected}; it was damaged or belongs to another program: save it "
        "again, or write a records.jsonl (id, text, metadata) beside the index instead"
    )
