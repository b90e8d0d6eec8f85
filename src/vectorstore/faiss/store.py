"""The FAISS store: searches beside one writer, exact filters, in-memory tombstones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vectorstore.columns import RecordColumns
from vectorstore.digests import DigestMethod, row_digests
from vectorstore.errors import InvalidInput, StoreCorrupt, Unsupported
from vectorstore.faiss.bitmap import Bitmap
from vectorstore.faiss.collection import Collection, Pending
from vectorstore.faiss.exact_scan import ExactScan
from vectorstore.faiss.guarded import APPLY_BLOCK, Guarded
from vectorstore.faiss.index import FLAT, IVF, IVF_TRAINING_ROWS, Rows2D, empty_index
from vectorstore.faiss.rows import Rows
from vectorstore.faiss.settings import NAME, described
from vectorstore.filters import Filter, check_filter
from vectorstore.types import Answer, Change, Metric, Query, Record, check_ms
from vectorstore.validation import (
    check_batch,
    check_id,
    check_ids,
    check_page,
    normalised_record,
    query_vector,
)

__all__ = ["FaissStore"]

DIGEST_BLOCK = 64
"""Records digested under one hold, so that writers get in between."""


class FaissStore(Guarded):
    """A Replica over one FAISS index.

    Cosine is served by inner product over unit vectors, or by an L2 index over unit
    vectors (score 1 - d/2).
    """

    def __init__(
        self, collection: Collection, *, applied_seq: int = 0, kind: str | None = None
    ) -> None:
        """Serve a collection, which is the store's own from now on.

        ``kind`` is ``ivf`` for a collection that is still flat because it has too few rows to train.
        """
        super().__init__(collection, applied_seq)
        self._kind = kind or collection.index.kind
        self._dimension = collection.index.dimension
        self._metric = collection.metric

    @classmethod
    def empty(cls, *, dimension: int, metric: Metric, kind: str = FLAT) -> FaissStore:
        """A store without records. ``kind``: ``flat``, ``hnsw`` or ``ivf``.

        ``ivf`` holds its rows in a flat index, exactly searched, until there are enough to train on.
        """
        if dimension < 1:
            raise InvalidInput(f"dimension is {dimension}; it must be at least 1")
        index = empty_index(dimension=dimension, inner_product=metric is not Metric.L2, kind=kind)
        return cls(Collection(index, Rows([], [], [], []), metric), kind=kind)

    @property
    def name(self) -> str:
        return NAME

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def metric(self) -> Metric:
        return self._metric

    @property
    def kind(self) -> str:
        """``flat``, ``hnsw`` or ``ivf``."""
        return self._kind

    def search(self, query: Query) -> Answer:
        vector = query_vector(query, dimension=self._dimension, metric=self._metric)

        def nearest(collection: Collection, only: Bitmap | None) -> Answer:
            ranking = collection.nearest(vector, query.k, only)
            return Answer(collection.hits(ranking), NAME, self._seq)

        return self._matching(query.filter, nearest)

    def search_exact(self, query: Query) -> Answer:
        """The exact answer, see :class:`ExactScan`; ``applied_seq`` is that from before the scan."""
        vector = query_vector(query, dimension=self._dimension, metric=self._metric)
        scan = self._matching(
            query.filter,
            lambda collection, only: ExactScan(collection, vector, query.k, only, self._seq),
        )
        while self._read(scan.step):
            pass
        return Answer(self._read(scan.hits), NAME, scan.seq)

    def search_many(self, queries: Sequence[Query]) -> list[Answer]:
        """Queries of equal k and filter are answered by one FAISS call, on all OpenMP threads."""
        vectors = [query_vector(q, dimension=self._dimension, metric=self._metric) for q in queries]
        alike: dict[tuple[int, Filter | None], list[int]] = {}
        for at, query in enumerate(queries):
            alike.setdefault((query.k, query.filter), []).append(at)
        answers: dict[int, Answer] = {}
        for (k, allowed), group in alike.items():
            block = np.stack([vectors[at] for at in group])
            answers |= zip(group, self._answers(block, k, allowed), strict=True)
        return [answers[at] for at in range(len(queries))]

    def _answers(self, vectors: Rows2D, k: int, allowed: Filter | None) -> list[Answer]:
        def nearest(collection: Collection, only: Bitmap | None) -> list[Answer]:
            return [
                Answer(collection.hits(ranking), NAME, self._seq)
                for ranking in collection.nearest_of_each(vectors, k, only)
            ]

        return self._matching(allowed, nearest)

    def get(self, ids: Sequence[str], *, timeout_ms: float | None = None) -> list[Record]:
        check_ids(ids)
        check_ms("timeout_ms", timeout_ms)

        def found(collection: Collection) -> list[Record]:
            position = collection.rows.position
            return collection.records([position[one] for one in ids if one in position])

        return self._read(found)

    def scan(
        self, *, after: str = "", limit: int = 1000, timeout_ms: float | None = None
    ) -> list[Record]:
        check_page(after, limit)
        check_ms("timeout_ms", timeout_ms)

        def page(collection: Collection, ids: list[str]) -> list[Record]:
            position = collection.rows.position
            return collection.records([position[one] for one in ids])

        return self._page(after, limit, page)

    def ids(self, *, after: str = "", limit: int = 1000) -> list[str]:
        """Up to ``limit`` ids that follow ``after`` in byte order."""
        return self._page(after, limit, lambda _, ids: ids)

    def digests(self, ids: Sequence[str], method: DigestMethod) -> list[tuple[str, int, int]]:
        """(id, seq, digest) of the records that exist among ``ids``, in the order asked.

        Writers get in between blocks of them, so the digests need not be of one moment.
        """
        found: list[tuple[str, int, int]] = []
        for start in range(0, len(ids), DIGEST_BLOCK):
            columns = self._columns(ids[start : start + DIGEST_BLOCK])
            found += zip(columns.ids, columns.seqs, row_digests(columns, method), strict=True)
        return found

    def _columns(self, ids: Sequence[str]) -> RecordColumns:
        def found(collection: Collection) -> RecordColumns:
            position = collection.rows.position
            return collection.columns([position[one] for one in ids if one in position])

        return self._read(found)

    def count(self, filter: Filter | None = None, *, timeout_ms: float | None = None) -> int:
        check_filter(filter)
        check_ms("timeout_ms", timeout_ms)
        return self._matching(
            filter, lambda collection, only: len(collection.rows.live if only is None else only)
        )

    def vectors(self, start: int, stop: int) -> Rows2D:
        """The vectors of records number ``start`` to ``stop`` in order of position, bit for bit."""
        return self._read(
            lambda collection: collection.index.vectors(
                collection.rows.live.positions()[start:stop]
            )
        )

    def records(self, start: int, stop: int) -> list[Record]:
        """The records number ``start`` to ``stop`` in order of position."""
        return self._read(
            lambda collection: collection.records(
                collection.rows.live.positions()[start:stop].tolist()
            )
        )

    def describe(self, *, timeout_ms: float | None = None) -> Mapping[str, Any]:
        check_ms("timeout_ms", timeout_ms)
        tombstones, breadth = self._read(
            lambda collection: (collection.rows.tombstones, collection.index.breadth)
        )
        return described(
            kind=self._kind,
            metric=self._metric,
            dimension=self._dimension,
            tombstones=tombstones,
            breadth=breadth,
        )

    def upsert(self, records: Sequence[Record]) -> int:
        check_batch(records)
        ready = [
            normalised_record(r, dimension=self._dimension, metric=self._metric) for r in records
        ]
        with self._writing:
            self._commit([(r.id, r, self._seq + n) for n, r in enumerate(ready, 1)])
            return self._seq

    def delete(self, ids: Sequence[str]) -> int:
        check_batch(ids)
        for record_id in ids:
            check_id(record_id)
        with self._writing:
            self._commit([(one, None, self._seq + n) for n, one in enumerate(ids, 1)])
            return self._seq

    def apply(self, changes: Sequence[Change]) -> int:
        """Apply journal entries in blocks, so that searches never wait for all of them."""
        with self._writing:
            pending = self._following(changes)
            for start in range(0, max(1, len(pending)), APPLY_BLOCK):
                self._commit(pending[start : start + APPLY_BLOCK])
            return self._seq

    def set_breadth(self, breadth: int) -> None:
        """Set nprobe (IVF) or efSearch (HNSW) for the queries to come; Unsupported on flat."""
        if breadth < 1:
            raise InvalidInput(f"breadth is {breadth}; it must be at least 1")
        with self._writing:
            index = self._usable().index
            if index.dense:
                raise Unsupported("this index is searched exactly: there is no breadth to set")
            self._gate.alone(lambda: setattr(index, "breadth", breadth))

    def repair(
        self,
        record_id: str,
        record: Record | None,
        *,
        expected_seq: int | None,
        unchanged: Callable[[int], bool],
    ) -> bool:
        """Put a record back at its own seq (None: remove it), outside the journal's order.

        Does nothing and returns False if the record's seq here is no longer ``expected_seq`` (None:
        not here), if the store has not reached ``record``'s seq, or if ``unchanged``, which is told
        the applied seq with writes held off, says no.
        """
        with self._rebuilding, self._writing:
            found = self.get([record_id])
            if (found[0].seq if found else None) != expected_seq or not unchanged(self._seq):
                return False
            if record is not None and record.seq > self._seq:
                return False
            self._write([(record_id, record, 0 if record is None else record.seq)], self._seq)
            return True

    def close(self) -> None:
        index = empty_index(
            dimension=self._dimension, inner_product=self._metric is not Metric.L2, kind=FLAT
        )
        self._retire(Collection(index, Rows([], [], [], []), self._metric))

    def _following(self, changes: Sequence[Change]) -> list[Pending]:
        pending: list[Pending] = []
        expected = self._seq + 1
        for change in changes:
            if change.seq < expected:
                continue
            if change.seq > expected:
                raise StoreCorrupt(
                    f"journal gap: entry {change.seq} follows {expected - 1}; "
                    "load a snapshot that reaches farther"
                )
            record = change.record
            if record is not None and record.embedding.shape != (self._dimension,):
                raise StoreCorrupt(
                    f"journal entry {change.seq} has a vector of shape {record.embedding.shape}; "
                    f"this store holds {self._dimension} dimensions"
                )
            pending.append((change.id, record, change.seq))
            expected += 1
        return pending

    def _commit(self, changes: list[Pending]) -> None:
        self._write(changes, self._seq + len(changes))
        collection = self._collection
        waiting = self._kind == IVF and collection.index.kind == FLAT
        if waiting and len(collection.rows.ids) >= IVF_TRAINING_ROWS:
            self._exchange(collection.retrained())
