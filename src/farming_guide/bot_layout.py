"""Writes a knowledge base as the FAISS-only bot laid it out on disk.

Two files a kind: ``faiss_index_<kind>.index`` and ``faiss_index_<kind>.metadata``, the latter a pickle
(protocol 4) of ``{metadata: [chunk, ..], id_to_chunk: {position: chunk}, dimension, index_type}``.

======  ==================================================  =======  ==========
kind    index                                               metric   vectors
======  ==================================================  =======  ==========
flat    IndexFlatIP                                         product  normalised
ivf     IndexIVFFlat over an inner-product quantizer        L2       raw
hnsw    IndexHNSWFlat(d, 16)                                L2       raw
======  ==================================================  =======  ==========

The odd pair of metrics in ``ivf`` is what that bot wrote, and therefore what a migration meets. Files
are only written here; reading them, without running the pickle, is the business of ``vectorstore``.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from vectorstore.errors import ConfigurationError, InvalidInput
from vectorstore.types import Vector

__all__ = ["Kind", "index_paths", "write"]

Kind = Literal["flat", "ivf", "hnsw"]

PICKLE_PROTOCOL = 4
HNSW_LINKS = 16
LISTS_MAX = 100
# FAISS asks for at least this many training vectors a list.
VECTORS_PER_LIST_MIN = 39


def index_paths(directory: Path, kind: Kind) -> tuple[Path, Path]:
    """Where the index and its side file lie."""
    if kind not in get_args(Kind):
        raise ConfigurationError(
            f"index kind {kind!r}; it must be one of {', '.join(get_args(Kind))}"
        )
    stem = f"faiss_index_{kind}"
    return directory / f"{stem}.index", directory / f"{stem}.metadata"


def write(
    directory: Path, chunks: Sequence[Mapping[str, Any]], vectors: Vector, *, kind: Kind = "flat"
) -> tuple[Path, Path]:
    """Write both files, each aside and then renamed, and return their paths.

    ``vectors``: shape (len(chunks), d), position by position. Raises InvalidInput for other shapes.
    """
    index_path, metadata_path = index_paths(directory, kind)
    if vectors.ndim != 2 or len(vectors) != len(chunks) or not len(chunks):
        raise InvalidInput(
            f"{len(chunks)} chunks and vectors of shape {vectors.shape}: one vector a chunk is needed"
        )
    from vectorstore.faiss.engine import write_index

    index = _index(kind, np.ascontiguousarray(vectors, dtype=np.float32))
    positions = dict(enumerate(dict(chunk) for chunk in chunks))
    side = {
        "metadata": list(positions.values()),
        "id_to_chunk": positions,
        "dimension": int(vectors.shape[1]),
        "index_type": kind,
    }
    directory.mkdir(parents=True, exist_ok=True)
    index_aside = index_path.with_suffix(".index.part")
    write_index(index, index_aside)
    metadata_aside = metadata_path.with_suffix(".metadata.part")
    metadata_aside.write_bytes(pickle.dumps(side, protocol=PICKLE_PROTOCOL))
    index_aside.replace(index_path)
    metadata_aside.replace(metadata_path)
    return index_path, metadata_path


def _index(kind: Kind, vectors: Vector) -> Any:
    import faiss

    count, dimension = vectors.shape
    index: Any
    if kind == "flat":
        unit = vectors.copy()
        faiss.normalize_L2(unit)
        index = faiss.IndexFlatIP(dimension)
        index.add(unit)
        return index
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dimension, HNSW_LINKS)
    else:
        lists = max(1, min(LISTS_MAX, count // VECTORS_PER_LIST_MIN))
        quantizer = faiss.IndexFlatIP(dimension)
        index = faiss.IndexIVFFlat(quantizer, dimension, lists)
        index.train(vectors)
    index.add(vectors)
    return index
