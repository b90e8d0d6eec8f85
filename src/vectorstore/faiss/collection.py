"""One FAISS index and its rows, kept in step. Not locked: that is the store's part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from vectorstore.columns import RecordColumns
from vectorstore.errors import StoreCorrupt, Unsupported
from vectorstore.faiss.bitmap import Bitmap
from vectorstore.faiss.index import RowIndex, Rows2D
from vectorstore.faiss.ranking import Ranking, ranked_rows, scores_float32, scores_of_distances
from vectorstore.faiss.rows import Rows
from vectorstore.faiss.untracked import untracked
from vectorstore.types import Hit, Metric, Record, Vector

__all__ = ["UNIT_TOLERANCE", "Collection", "Pending"]

EXACT_ROWS_MAX = 2_000
"""A filter that matches at most this many rows is answered by scoring them all."""

FLAT_SHARE_MIN = 32
"""A flat index does so only if the filter leaves less than one row in this many."""

WIDEN_MAX = 16.0
"""How many times farther an approximate index looks, at most, because of a filter or tombstones; and as
many times farther once more where that found too little, before all rows are scored."""

UNIT_TOLERANCE = 1e-4
"""How far from 1 the length of a vector taken in may be for it to count as normalised."""

CORRECTED_TOLERANCE = 1e-6
"""Beyond this, scores under cosine are divided by the length, so that they agree with every store."""

NORM_BLOCK_ROWS = 1_024

Pending: TypeAlias = tuple[str, Record | None, int]
"""An id, the record that it now has (``None``: deleted), and the seq of the change."""


class Collection:
    """Index and rows, position for position, with the scores of one metric."""

    def __init__(self, index: RowIndex, rows: Rows, metric: Metric) -> None:
        """Raises StoreCorrupt if the two differ in length, Unsupported if the index cannot rank so.

        L2 and inner product need an index of that kind. Cosine needs unit vectors, in either kind.
        """
        self.index = index
        self.rows = rows
        self.metric = metric
        self.require_in_step()
        self._norms = self._checked_norms()

    def require_in_step(self) -> None:
        """Raise StoreCorrupt unless there is a record for each vector of the index."""
        if self.index.size != len(self.rows.ids):
            raise StoreCorrupt(
                f"the index holds {self.index.size:,} vectors and there are {len(self.rows.ids):,} "
                "records"
            )

    def nearest(self, vector: Vector, k: int, only: Bitmap | None) -> Ranking:
        """The nearest k live rows among ``only``: always min(k, how many there are)."""
        rows = self.rows
        among = rows.live if only is None else only
        available = among.count
        wanted = k if k < available else available
        if not wanted:
            return [], []
        if only is not None and self._few(only):
            return self._scored(vector, wanted, only)
        selected, widen = None, 1.0
        if only is not None or available != len(rows.ids):
            selected, widen = among, min(WIDEN_MAX, self.index.size / available)
        fetched = wanted if self._norms is None else min(2 * wanted + 8, available)
        distances, positions = self.index.search(
            vector.reshape(1, -1), fetched, only=selected, widen=widen
        )
        found: list[int] = positions[0].tolist()
        if found[-1] < 0:
            # An approximate index may stop before it has met enough rows.
            distances, positions = self.index.search(
                vector.reshape(1, -1), fetched, only=selected, widen=WIDEN_MAX * widen
            )
            found = positions[0].tolist()
            if found[-1] < 0:
                return self._scored(vector, wanted, among)
        return self._ranking(distances[0], found, wanted)

    def nearest_of_each(self, vectors: Rows2D, k: int, only: Bitmap | None) -> list[Ranking]:
        """``nearest`` for each row of ``vectors``, in one FAISS call where nothing is in the way."""
        plain = only is None and len(self.rows.live) == len(self.rows.ids)
        wanted = min(k, len(self.rows.live))
        if not plain or not wanted or self._norms is not None or len(vectors) == 1:
            return [self.nearest(vector, k, only) for vector in vectors]
        distances, positions = self.index.search(vectors, wanted)
        return [
            self._ranking(near, found, wanted) if found[-1] >= 0 else self.nearest(vector, k, only)
            for vector, near, found in zip(vectors, distances, positions.tolist(), strict=True)
        ]

    def hits(self, ranking: Ranking) -> list[Hit]:
        """The records behind a ranking, with metadata of the caller's own."""
        rows = self.rows
        ids, texts, metadata, seqs = rows.ids, rows.texts, rows.metadata, rows.seqs
        # The tuple's own constructor: a third less than Hit(...) on the path of every query.
        new = tuple.__new__
        return [
            new(Hit, (ids[at], score, texts[at], metadata[at].copy(), seqs[at]))
            for score, at in zip(*ranking, strict=True)
        ]

    def records(self, positions: Sequence[int]) -> list[Record]:
        """Whole records, with copies of their vectors and metadata."""
        rows = self.rows
        vectors = self.index.vectors(np.asarray(positions, dtype=np.int64))
        return [
            Record(rows.ids[at], vector, rows.texts[at], rows.metadata[at].copy(), rows.seqs[at])
            for at, vector in zip(positions, vectors, strict=True)
        ]

    def columns(self, positions: Sequence[int]) -> RecordColumns:
        """The same as columns, for those who do not need records."""
        rows = self.rows
        return RecordColumns(
            [rows.ids[at] for at in positions],
            self.index.vectors(np.asarray(positions, dtype=np.int64)),
            [rows.texts[at] for at in positions],
            [rows.metadata[at] for at in positions],
            [rows.seqs[at] for at in positions],
        )

    def write(self, changes: Sequence[Pending]) -> None:
        """Bring each id to the last state that ``changes``, in seq order, gives it."""
        rows = self.rows
        appended: list[tuple[Record, int]] = []
        for record_id, record, seq in {change[0]: change for change in changes}.values():
            at = rows.position.get(record_id)
            if record is not None and at is not None and self.index.dense:
                self.index.overwrite(at, record.embedding)
                rows.put(at, record_id, record.text, record.metadata, seq)
                if self._norms is not None:
                    self._norms[at] = 1.0
                continue
            if at is not None:
                self._remove(at)
            if record is not None:
                appended.append((record, seq))
        if not appended:
            return
        self.index.append(np.stack([record.embedding for record, _ in appended]))
        for record, seq in appended:
            rows.put(len(rows.ids), record.id, record.text, record.metadata, seq)
            if self._norms is not None:
                self._norms.append(1.0)

    def retrained(self) -> Collection:
        """The same records in an IVF index trained on them; this one must be flat."""
        return Collection(self.index.trained(), self.rows, self.metric)

    def _remove(self, at: int) -> None:
        if not self.index.dense:
            self.rows.bury(at)
            return
        self.index.drop_last(at)
        self.rows.move_last_to(at)
        if self._norms is not None:
            last = self._norms.pop()
            if at < len(self._norms):
                self._norms[at] = last

    def _few(self, only: Bitmap) -> bool:
        # A flat index skips what is not selected for less than copying the rows would cost, unless
        # it would skip nearly all.
        shares = FLAT_SHARE_MIN if self.index.dense else 1
        return len(only) <= EXACT_ROWS_MAX and len(only) * shares <= self.index.size

    def _scored(self, vector: Vector, k: int, among: Bitmap) -> Ranking:
        unit = self.metric is Metric.COSINE and self._norms is None
        metric = Metric.INNER_PRODUCT if unit else self.metric
        return ranked_rows(
            self.index, among.positions(), k, lambda rows: scores_float32(vector, rows, metric)
        )

    def _ranking(
        self, distances: npt.NDArray[np.float32], found: list[int], wanted: int
    ) -> Ranking:
        scores = scores_of_distances(
            distances, metric=self.metric, inner_product=self.index.inner_product
        )
        norms = self._norms
        if norms is None:
            return scores.tolist(), found
        corrected = scores.astype(np.float64) / np.array([norms[at] for at in found])
        order = np.argsort(-corrected, kind="stable")[:wanted].tolist()
        return corrected[order].tolist(), [found[at] for at in order]

    def _checked_norms(self) -> list[float] | None:
        if self.metric is not Metric.COSINE:
            if self.index.inner_product != (self.metric is Metric.INNER_PRODUCT):
                inside = "inner product" if self.index.inner_product else "L2"
                raise Unsupported(
                    f"the index ranks by {inside}, which cannot answer for {self.metric.value}; "
                    f"use the metric that it was built for"
                )
            return None
        positions = self.rows.live.positions()
        norms = np.ones(self.index.size, dtype=np.float64)
        for start in range(0, positions.size, NORM_BLOCK_ROWS):
            block = positions[start : start + NORM_BLOCK_ROWS]
            rows = self.index.vectors(block)
            norms[block] = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
        worst = float(np.abs(norms - 1.0).max(initial=0.0))
        if not worst <= UNIT_TOLERANCE:
            raise Unsupported(
                f"the index holds vectors whose length is off 1 by up to {worst:.3g}, so it cannot "
                "rank by cosine; use the metric that it was built for, or normalise and rebuild it"
            )
        return untracked(norms.tolist()) if worst > CORRECTED_TOLERANCE else None
