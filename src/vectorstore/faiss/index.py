"""FAISS indexes that keep whole vectors, behind one face: flat, IVF and HNSW.

A *position* is the number that FAISS gives a row: 0, 1, 2 .. in the order of adding. A flat index can
overwrite a row in its own memory and give up its last one, so it never holds a dead row. The others
can do neither without damage: a changed row is added again and its old position becomes a tombstone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vectorstore.errors import Unsupported
from vectorstore.faiss.bitmap import Bitmap
from vectorstore.faiss.engine import faiss
from vectorstore.types import Vector

__all__ = [
    "FLAT",
    "HNSW",
    "IVF",
    "KINDS",
    "RowIndex",
    "Rows2D",
    "empty_index",
    "wrapped_index",
]

FLAT = "flat"
IVF = "ivf"
HNSW = "hnsw"
KINDS = (FLAT, HNSW, IVF)

HNSW_LINKS = 16
HNSW_EF_SEARCH = 64
IVF_LISTS = 100
IVF_PROBES = 8
IVF_TRAINING_ROWS = 39 * IVF_LISTS
"""FAISS asks for 39 training rows a list; below that a flat index is faster anyway."""

GROWTH_SHARE = 0.1
"""Room that is held ready, as a share of the rows."""

Rows2D = npt.NDArray[np.float32]


class RowIndex:
    """One FAISS index with the operations that the store needs; locking is the store's."""

    def __init__(self, index: Any, *, owner: Any = None) -> None:
        """Take a concrete IndexFlat, IndexIVFFlat or IndexHNSWFlat whose ids are its positions.

        ``owner`` is what owns the index's memory, if not the index itself: an IDMap around it.
        """
        self.faiss_index = index
        self._owner = owner
        self.dimension = int(index.d)
        self.inner_product = index.metric_type == faiss.METRIC_INNER_PRODUCT
        self._flat: Any = None
        if isinstance(index, faiss.IndexIVFFlat):
            self.kind = IVF
            if index.direct_map.type == faiss.DirectMap.NoMap:
                index.make_direct_map(True)
        elif isinstance(index, faiss.IndexHNSWFlat):
            self.kind = HNSW
            self._flat = faiss.downcast_index(index.storage)
        else:
            self.kind = FLAT
            self._flat = index
        self.dense = self.kind == FLAT
        """Whether rows can be overwritten and dropped in place."""
        self._view: Rows2D = np.empty((0, self.dimension), dtype=np.float32)
        # Positions that were written to, while somebody watches.
        self._changed: set[int] | None = None
        self._refresh()

    @property
    def size(self) -> int:
        """Positions in use, dead ones included."""
        return int(self.faiss_index.ntotal)

    @property
    def breadth(self) -> int:
        """How far an approximate index looks: efSearch of HNSW, nprobe of IVF, 0 of flat."""
        if self.kind == IVF:
            return int(self.faiss_index.nprobe)
        return int(self.faiss_index.hnsw.efSearch) if self.kind == HNSW else 0

    @breadth.setter
    def breadth(self, breadth: int) -> None:
        if self.kind == IVF:
            self.faiss_index.nprobe = min(breadth, int(self.faiss_index.nlist))
        elif self.kind == HNSW:
            self.faiss_index.hnsw.efSearch = breadth

    def search(
        self, queries: Rows2D, k: int, *, only: Bitmap | None = None, widen: float = 1.0
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """FAISS distances and positions, both (n, k), padded with position -1.

        ``widen`` multiplies the breadth of an approximate index. A single query runs on one OpenMP
        thread, whatever the application set: more threads cost more than they save there.
        """
        if len(queries) > 1:
            return self._search(queries, k, only, widen)
        threads = faiss.omp_get_max_threads()
        if threads == 1:
            return self._search(queries, k, only, widen)
        faiss.omp_set_num_threads(1)
        try:
            return self._search(queries, k, only, widen)
        finally:
            faiss.omp_set_num_threads(threads)

    def _search(
        self, queries: Rows2D, k: int, only: Bitmap | None, widen: float
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        if only is not None or widen != 1.0:
            parameters = self._parameters(only, widen)
            return self.faiss_index.search(queries, k, params=parameters)  # type: ignore[no-any-return]
        # What FAISS's own wrapper ends in, without its checks: a microsecond of every query.
        distances = np.empty((len(queries), k), dtype=np.float32)
        positions = np.empty((len(queries), k), dtype=np.int64)
        pointer = faiss.swig_ptr
        self.faiss_index.search_c(
            len(queries), pointer(queries), k, pointer(distances), pointer(positions)
        )
        return distances, positions

    def reserve(self, rows: int) -> None:
        """Have memory for this many rows in all and a tenth more: up to there no row is moved.

        Beyond, FAISS moves all of them once to a place for twice as many, readers kept out meanwhile.
        Does nothing for IVF, whose lists are many and grow one at a time, nor for the links of an HNSW
        index that has no row yet.
        """
        if self._flat is None:
            return
        room = rows + int(rows * GROWTH_SHARE)
        _reserve(self._flat.codes, room * self.dimension * 4)
        if self.kind == HNSW and self.size:
            graph = self.faiss_index.hnsw
            for vector in (graph.neighbors, graph.levels, graph.offsets):
                _reserve(vector, vector.size() * room // self.size)
        self._refresh()

    def append(self, block: Rows2D) -> None:
        """Add rows (n, d) after the last position."""
        if self._changed is not None:
            self._changed.update(range(self.size, self.size + len(block)))
        self.faiss_index.add(block)
        self._refresh()

    def overwrite(self, position: int, vector: Vector) -> None:
        """Replace one row of a flat index where it lies."""
        if self._changed is not None:
            self._changed.add(position)
        self._view[position] = vector

    def drop_last(self, position: int) -> None:
        """Move the last row of a flat index to ``position`` and give up the last place."""
        last = self.size - 1
        if position != last:
            self.overwrite(position, self._view[last])
        self._view = self._view[:0]
        self.faiss_index.codes.resize(last * self.dimension * 4)
        self.faiss_index.ntotal = last
        self._refresh()

    def watch(self) -> None:
        """Remember from now on which positions are written to, for one who copies the rows meanwhile."""
        self._changed = set()

    def take_changed(self) -> list[int]:
        """Those since the last call, in ascending order; only while they are watched."""
        changed, self._changed = self._changed, set()
        return sorted(changed or ())

    def unwatch(self) -> None:
        """Remember no more of them."""
        self._changed = None

    def vectors(self, positions: npt.NDArray[np.int64]) -> Rows2D:
        """Copies of the rows at ``positions``, bit for bit, shape (len, d)."""
        if self.kind != IVF:
            return np.take(self._view, positions, axis=0)
        if not positions.size:
            return np.empty((0, self.dimension), dtype=np.float32)
        return self.faiss_index.reconstruct_batch(positions)  # type: ignore[no-any-return]

    def block(self, start: int, stop: int) -> Rows2D:
        """The rows from ``start`` up to ``stop``, bit for bit; not copied unless the kind asks for it.

        Valid while the index is there and does not change. The one way for an index that is mapped
        from its file: there rows lie at any address, and :meth:`vectors` would first copy all of them.
        """
        if self.kind != IVF:
            return self._view[start:stop]
        # Not reconstruct_n, which walks through all lists for each block.
        return self.vectors(np.arange(start, stop))

    def emptied(self) -> RowIndex:
        """A new index of the same kind and settings that holds no rows."""
        old = self.faiss_index
        if self.kind == IVF:
            # Not a clone of all of it, emptied then: that would copy every row first.
            quantizer = faiss.clone_index(old.quantizer)
            fresh = faiss.IndexIVFFlat(quantizer, self.dimension, old.nlist, old.metric_type)
            fresh.nprobe, fresh.parallel_mode = old.nprobe, old.parallel_mode
        elif self.kind == HNSW:
            links = old.hnsw.nb_neighbors(1)
            fresh = faiss.IndexHNSWFlat(self.dimension, links, old.metric_type)
            fresh.hnsw.efConstruction = old.hnsw.efConstruction
            fresh.hnsw.efSearch = old.hnsw.efSearch
        else:
            fresh = faiss.IndexFlat(self.dimension, old.metric_type)
        return RowIndex(fresh)

    def rebuilt(self, positions: npt.NDArray[np.int64]) -> RowIndex:
        """A new index of the same kind and settings that holds these rows alone, in this order."""
        rebuilt = self.emptied()
        if positions.size:
            rebuilt.append(self.vectors(positions))
        return rebuilt

    def trained(self) -> RowIndex:
        """An IVF index over the rows of this flat one, positions unchanged."""
        rows = self._view
        quantizer = faiss.IndexFlat(self.dimension, self.faiss_index.metric_type)
        fresh = faiss.IndexIVFFlat(
            quantizer, self.dimension, IVF_LISTS, self.faiss_index.metric_type
        )
        fresh.train(rows)
        fresh.nprobe = IVF_PROBES
        trained = RowIndex(fresh)
        trained.append(rows)
        return trained

    def _parameters(self, only: Bitmap | None, widen: float) -> Any:
        selector = None if only is None else only.selector()
        if self.dense:
            return faiss.SearchParameters(sel=selector)
        breadth = max(1, int(self.breadth * widen))
        if self.kind == IVF:
            return faiss.SearchParametersIVF(
                sel=selector, nprobe=min(breadth, int(self.faiss_index.nlist))
            )
        return faiss.SearchParametersHNSW(sel=selector, efSearch=breadth)

    def _refresh(self) -> None:
        # A view of FAISS's own memory: it moves when the index grows, so it is taken anew.
        if self._flat is None or not self.size:
            self._view = np.empty((0, self.dimension), dtype=np.float32)
        else:
            memory = faiss.rev_swig_ptr(self._flat.get_xb(), self.size * self.dimension)
            self._view = memory.reshape(self.size, self.dimension)


def _reserve(vector: Any, size: int) -> None:
    # FAISS's vectors have no reserve of their own; what one was long enough for, it keeps room for.
    used = vector.size()
    if size > used:
        vector.resize(size)
        vector.resize(used)


def empty_index(*, dimension: int, inner_product: bool, kind: str) -> RowIndex:
    """A new index; ``ivf`` begins as a flat one, because it must be trained on rows."""
    metric = faiss.METRIC_INNER_PRODUCT if inner_product else faiss.METRIC_L2
    if kind not in KINDS:
        raise Unsupported(f"index kind {kind!r} is not known; choose one of {', '.join(KINDS)}")
    if kind == HNSW:
        index = faiss.IndexHNSWFlat(dimension, HNSW_LINKS, metric)
        index.hnsw.efSearch = HNSW_EF_SEARCH
        return RowIndex(index)
    return RowIndex(faiss.IndexFlat(dimension, metric))


def wrapped_index(index: Any, *, owner: Any = None) -> RowIndex:
    """Take an index as FAISS gives it, or raise Unsupported with the reason.

    Only indexes that hold every vector whole, under inner product or L2, and whose ids are positions.
    """
    # By exact type: the subclasses lay their rows out differently (Panorama, Dedup).
    flat = (faiss.IndexFlat, faiss.IndexFlatIP, faiss.IndexFlatL2)
    whole = type(index) in (*flat, faiss.IndexIVFFlat)
    if type(index) is faiss.IndexHNSWFlat:
        whole = type(faiss.downcast_index(index.storage)) in flat
    if not whole:
        raise Unsupported(
            f"a FAISS {type(index).__name__} cannot be served: only flat, IVFFlat and HNSWFlat "
            "indexes keep each vector whole"
        )
    if index.metric_type not in (faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2):
        raise Unsupported(
            f"the index uses FAISS metric {index.metric_type}; only inner product and L2 are known"
        )
    if not index.is_trained:
        raise Unsupported("the IVF index was never trained, so it holds nothing")
    return RowIndex(index, owner=owner)
