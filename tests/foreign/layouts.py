"""Makers of the folders that other programs leave behind, byte for byte as those programs write them.

None of those programs is needed: the pickles name their classes by way of stand-ins.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

__all__ = [
    "flat_chunk",
    "nested_chunk",
    "write_bare_layout",
    "write_bot_layout",
    "write_langchain_layout",
    "write_llamaindex_layout",
]

Vectors = npt.NDArray[np.float32]


def flat_chunk(position: int, *, document: str = "maize.pdf") -> dict[str, Any]:
    """A chunk in the bot's flat shape; ``chunk_id`` restarts in every document, as it does there."""
    text = f"passage {position}"
    return {
        "text": text,
        "chunk_id": position % 7,
        "source_document": document,
        "char_count": len(text),
    }


def nested_chunk(position: int, *, document: str = "beans.pdf") -> dict[str, Any]:
    """A chunk in the bot's nested shape."""
    return {
        "text": f"passage {position}",
        "chunk_id": position % 5,
        "start_token": position * 10,
        "end_token": position * 10 + 10,
        "token_count": 10,
        "metadata": {
            "source_document": document,
            "file_path": f"guides/{document}",
            "document_type": "pdf",
        },
    }


def write_bot_layout(
    directory: Path, kind: str, vectors: Vectors, chunks: Sequence[Mapping[str, Any]]
) -> Path:
    """``faiss_index_<kind>.index`` and ``.metadata``; returns the index's path.

    ``flat``: inner product over normalised vectors. ``ivf``: L2 lists over an inner-product
    quantizer, raw vectors. ``hnsw``: L2, 16 links, raw vectors.
    """
    dimension = vectors.shape[1]
    if kind == "flat":
        index = faiss.IndexFlatIP(dimension)
        index.add(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    elif kind == "ivf":
        lists = max(1, min(100, len(vectors) // 39))
        quantizer = faiss.IndexFlatIP(dimension)
        index = faiss.IndexIVFFlat(quantizer, dimension, lists)
        index.train(vectors)
        index.add(vectors)
    else:
        index = faiss.IndexHNSWFlat(dimension, 16)
        index.add(vectors)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"faiss_index_{kind}.index"
    faiss.write_index(index, str(path))
    side = {
        "metadata": list(chunks),
        "id_to_chunk": dict(enumerate(chunks)),
        "dimension": dimension,
        "index_type": kind,
    }
    path.with_suffix(".metadata").write_bytes(pickle.dumps(side, protocol=4))
    return path


def write_langchain_layout(
    directory: Path,
    vectors: Vectors,
    ids: Sequence[str],
    texts: Sequence[str],
    metadata: Sequence[Mapping[str, Any]],
) -> Path:
    """``index.faiss`` (flat L2) and ``index.pkl``: the docstore and {position: id}."""
    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    directory.mkdir(parents=True, exist_ok=True)
    faiss.write_index(index, str(directory / "index.faiss"))
    with (
        _class("langchain_core.documents.base", "Document") as document_class,
        _class("langchain_community.docstore.in_memory", "InMemoryDocstore") as docstore_class,
    ):
        documents = {}
        for record_id, text, fields in zip(ids, texts, metadata, strict=True):
            attributes = {"id": record_id, "metadata": dict(fields)}
            attributes |= {"page_content": text, "type": "Document"}
            # The state that a pydantic model hands to pickle.
            documents[record_id] = document_class(
                {
                    "__dict__": attributes,
                    "__pydantic_extra__": None,
                    "__pydantic_fields_set__": {"page_content", "metadata", "id"},
                    "__pydantic_private__": None,
                }
            )
        saved = (docstore_class({"_dict": documents}), dict(enumerate(ids)))
        (directory / "index.pkl").write_bytes(pickle.dumps(saved))
    return directory / "index.faiss"


def write_llamaindex_layout(
    directory: Path,
    vectors: Vectors,
    ids: Sequence[str],
    texts: Sequence[str],
    metadata: Sequence[Mapping[str, Any]],
    *,
    mapped: bool = False,
) -> Path:
    """A persisted storage context; ``mapped``: FaissMapVectorStore, with ``id_map.json``."""
    directory.mkdir(parents=True, exist_ok=True)
    index = faiss.IndexFlatL2(vectors.shape[1])
    labels = np.arange(len(ids), dtype=np.int64)
    if mapped:
        # A node that was deleted leaves a hole in the labels.
        labels[len(ids) // 2 :] += 1
        index = faiss.IndexIDMap2(index)
        index.add_with_ids(vectors, labels)
        by_label = {str(label): one for label, one in zip(labels.tolist(), ids, strict=True)}
        by_id = {one: int(label) for label, one in by_label.items()}
        (directory / "id_map.json").write_text(
            str({"node_id_to_faiss_id_map": by_id, "faiss_id_to_node_id_map": by_label})
        )
    else:
        index.add(vectors)
    path = directory / "default__vector_store.json"
    faiss.write_index(index, str(path))
    nodes = {
        one: {"__data__": {"id_": one, "text": text, "metadata": dict(fields)}, "__type__": "1"}
        for one, text, fields in zip(ids, texts, metadata, strict=True)
    }
    (directory / "docstore.json").write_text(json.dumps({"docstore/data": nodes}))
    names = {one if mapped else str(at): one for at, one in enumerate(ids)}
    stored = {"index_id": "i", "summary": None, "nodes_dict": names, "doc_id_dict": {}}
    entry = {"__type__": "vector_store", "__data__": json.dumps(stored)}
    (directory / "index_store.json").write_text(json.dumps({"index_store/data": {"i": entry}}))
    (directory / "graph_store.json").write_text('{"graph_dict": {}}')
    (directory / "image__vector_store.json").write_text('{"embedding_dict": {}}')
    return path


def write_bare_layout(
    directory: Path,
    index: Any,
    ids: Sequence[Any],
    texts: Sequence[str] | None = None,
    metadata: Sequence[Mapping[str, Any]] | None = None,
) -> Path:
    """Any FAISS index with ``records.jsonl``, or with ``ids.npy`` if there are no texts."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "vectors.faiss"
    faiss.write_index(index, str(path))
    if texts is None:
        np.save(directory / "ids.npy", np.asarray(ids))
        return path
    fields = metadata or [{} for _ in ids]
    lines = [
        json.dumps({"id": one, "text": text, "metadata": dict(more)})
        for one, text, more in zip(ids, texts, fields, strict=True)
    ]
    (directory / "records.jsonl").write_text("\n".join(lines) + "\n")
    return path


@contextlib.contextmanager
def _class(module: str, name: str) -> Iterator[Any]:
    """A class that pickles under a name of another program's, while the block lasts."""

    def build(self: Any, state: Any) -> None:
        self.state = state

    stand_in = type(
        name, (), {"__init__": build, "__getstate__": lambda self: self.state, "__module__": module}
    )
    parts = module.split(".")
    names = [".".join(parts[: end + 1]) for end in range(len(parts))]
    before = {one: sys.modules.get(one) for one in names}
    for one in names:
        sys.modules[one] = types.ModuleType(one)
    setattr(sys.modules[module], name, stand_in)
    try:
        yield stand_in
    finally:
        for one, real in before.items():
            if real is None:
                del sys.modules[one]
            else:
                sys.modules[one] = real
