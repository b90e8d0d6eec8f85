"""Taking a foreign index apart: the index itself, and the label of every position in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vectorstore.errors import IntakeRefused, Unsupported
from vectorstore.faiss.engine import faiss
from vectorstore.faiss.index import RowIndex, wrapped_index
from vectorstore.faiss.intake.outside_lists import has_outside_lists, outside_lists_refused

__all__ = ["ForeignIndex", "open_index", "read_any"]


@dataclass(frozen=True, slots=True)
class ForeignIndex:
    """The index without its wrappers, and the label that FAISS answers with for each position (n,)."""

    index: RowIndex
    labels: npt.NDArray[np.int64]


def open_index(path: Path) -> ForeignIndex:
    """Read an index whose header has been checked; IntakeRefused if its parts do not fit together."""
    found = read_any(path)
    owner, labels = found, None
    if isinstance(found, faiss.IndexIDMap):
        labels = faiss.vector_to_array(found.id_map).copy()
        found = faiss.downcast_index(found.index)
        if labels.size != found.ntotal:
            raise _inconsistent(path, "the IDMap does not name every row")
    if isinstance(found, faiss.IndexHNSWFlat):
        _check_graph(path, found)
    elif isinstance(found, faiss.IndexIVFFlat):
        inner = _dense_labels(path, found)
        labels = inner if labels is None else labels
    try:
        index = wrapped_index(found, owner=owner)
    except Unsupported as error:
        raise IntakeRefused(f"{path}: {error}; rebuild it as a flat index") from error
    return ForeignIndex(index, np.arange(index.size) if labels is None else labels)


def read_any(path: Path) -> Any:
    """FAISS's own index of any kind; IntakeRefused if it cannot be read to its end."""
    try:
        return faiss.read_index(str(path))
    except (RuntimeError, MemoryError) as error:
        if "OnDiskInvertedLists" in str(error):
            raise outside_lists_refused(path) from error
        raise IntakeRefused(
            f"{path} is damaged or cut off: FAISS cannot read it to its end; fetch it again from "
            "its source"
        ) from error


def _dense_labels(path: Path, index: Any) -> npt.NDArray[np.int64]:
    """Number the rows of an IVF index 0, 1, 2 .. in order of their ids, and return those ids.

    FAISS lets IVF rows have any id; the direct map that gives vectors back needs their positions.
    """
    if has_outside_lists(index):
        # Before anything is numbered anew, which would be written into that file.
        raise outside_lists_refused(path)
    lists = index.invlists
    views: list[npt.NDArray[np.int64]] = []
    if lists.nlist != index.nlist or lists.code_size != index.d * 4:
        raise _inconsistent(path, "its lists are not those of its header")
    quantizer = faiss.downcast_index(index.quantizer)
    if quantizer.d != index.d or quantizer.ntotal != index.nlist:
        raise _inconsistent(path, "its quantizer is not that of its lists")
    if isinstance(quantizer, faiss.IndexHNSW):
        _check_graph(path, quantizer)
    for number in range(index.nlist):
        size = lists.list_size(number)
        if size:
            views.append(faiss.rev_swig_ptr(lists.get_ids(number), size))
    ids = np.concatenate(views) if views else np.empty(0, dtype=np.int64)
    labels, dense = np.unique(ids, return_inverse=True)
    if ids.size != index.ntotal or labels.size != ids.size:
        raise _inconsistent(path, "rows are missing from its lists or in them twice")
    index.set_direct_map_type(faiss.DirectMap.NoMap)
    start = 0
    for view in views:
        view[:] = dense[start : start + view.size]
        start += view.size
    return labels.astype(np.int64)


def _check_graph(path: Path, index: Any) -> None:
    """Search follows these numbers as addresses without a look, so they must be within bounds."""
    hnsw, rows = index.hnsw, int(index.ntotal)
    storage = faiss.downcast_index(index.storage)
    if storage.ntotal != rows or storage.d != index.d:
        raise _inconsistent(path, "its vectors are not those of its graph")
    neighbours = faiss.vector_to_array(hnsw.neighbors)
    levels = faiss.vector_to_array(hnsw.levels)
    offsets = faiss.vector_to_array(hnsw.offsets).astype(np.int64)
    widths = faiss.vector_to_array(hnsw.cum_nneighbor_per_level).astype(np.int64)
    sound = (
        levels.size == rows
        and offsets.size == rows + 1
        and neighbours.min(initial=-1) >= -1
        and neighbours.max(initial=-1) < rows
        and levels.min(initial=1) >= 1
        and levels.max(initial=1) < widths.size
        and (np.diff(widths) >= 0).all()
        and (np.diff(offsets) == widths[np.minimum(levels, widths.size - 1)]).all()
        and int(offsets[0]) == 0
        and int(offsets[-1]) == neighbours.size
        and (0 <= hnsw.entry_point < rows if rows else True)
        and (hnsw.max_level == int(levels.max(initial=0)) - 1 if rows else True)
        and (levels[hnsw.entry_point] == hnsw.max_level + 1 if rows else True)
    )
    if not sound:
        raise _inconsistent(path, "its graph points outside itself")


def _inconsistent(path: Path, what: str) -> IntakeRefused:
    return IntakeRefused(
        f"{path} is damaged: {what}; fetch it again from its source, or rebuild it"
    )
