"""The FAISS store: searches beside one writer, exact filters, in-memory tombstones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np

from vectorstore.columns import RecordColumns
from vectorstore.digests import DigestMethod, row_digests
from vectorstore.errors import InvalidInput, StoreCorrupt, StoreUnavailable, Unsupported
from vectorstore.faiss.bitmap import Bitmap
from vectorstore.faiss.collection import Collection, Pending
from vectorstore.faiss.compaction import changes_of, compacted
from vectorstore.faiss.exact_scan import ExactScan
from vectorstore.faiss.gate import Gate
from vectorstore.faiss.index import FLAT, IVF, IVF_TRAINING_ROWS, Rows2D, empty_index
from vectorstore.faiss.rows import Rows
from vectorstore.filters import Filter, check_filter
from vectorstore.types import Answer, Change, Metric, Query, Record
from vectorstore.validation import (
    check_batch,
    check_id,
    check_ids,
    check_page,
    normalised_record,
    query_vector,
)

__all__ = ["FaissStore"]

NAME = "faiss"

T = TypeVar("T")

APPLY_BLOCK = 64
"""Changes applied under one exclusive hold: searches get in between the blocks."""

DIGEST_BLOCK = 64
"""Records digested under one hold, for the same reason."""

CATCHING_UP_MAX = 8
"""How many times a rebuild brings over what was written, before it holds writes off for the rest."""

CLOSED = "is closed"
BROKEN = "was broken off in the middle of a change, and is of no use any more: load it anew"


class FaissStore:
    """A Replica over one FAISS index.

    Searches run beside each other and beside the preparation of a write; only the mutation itself
    holds them off. Cosine is served by inner product over unit vectors, or by an L2 index over unit
    vectors (score 1 - d/2).
    """

    def __init__(
        self, collection: Collection, *, applied_seq: int = 0, kind: str | None = None
    ) -> None:
        """Serve a collection, which is the store's own from now on.

        ``kind`` is ``ivf`` for a collection that is still flat because it has too few rows to train.
        """
        self._collection = collection
        self._kind = kind or collection.index.kind
        self._dimension = collection.index.dimension
        self._metric = collection.metric
        self._seq = applied_seq
        self._unusable: str | None = None
        self._gate = Gate()
        self._writing = threading.RLock()
        # Taken before the lock above: a rebuild goes on while writes do.
        self._rebuilding = threading.Lock()
        self._ordering = threading.Lock()
        # Ids that were written since a rebuild began, if one is under way.
        self._changed: set[str] | None = None

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

    def get(self, ids: Sequence[str]) -> list[Record]:
        check_ids(ids)

        def found(collection: Collection) -> list[Record]:
            position = collection.rows.position
            return collection.records([position[one] for one in ids if one in position])

        return self._read(found)

    def scan(self, *, after: str = "", limit: int = 1000) -> list[Record]:
        check_page(after, limit)

        def page(collection: Collection, ids: list[str]) -> list[Record]:
            position = collection.rows.position
            return collection.records([position[one] for one in ids])

        return self._page(after, limit, page)

    def ids(self, *, after: str = "", limit: int = 1000) -> list[str]:
        """Up to ``limit`` ids that follow ``after`` in byte order."""
        return self._page(after, limit, lambda _, ids: ids)

    def _page(self, after: str, limit: int, ask: Callable[[Collection, list[str]], T]) -> T:
        """What ``ask`` makes of the collection and the ids that follow ``after``."""

        def page(collection: Collection) -> tuple[T] | None:
            ids = collection.rows.following(after, limit)
            return None if ids is None else (ask(collection, ids),)

        while (found := self._read(page)) is None:
            # Block by block, for the same reason as an exact scan. A rebuild begins anew.
            with self._ordering:
                while self._read(lambda collection: collection.rows.order_more()):
                    pass
        return found[0]

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

    def count(self, filter: Filter | None = None) -> int:
        check_filter(filter)
        return self._matching(
            filter, lambda collection, only: len(collection.rows.live if only is None else only)
        )

    def contains(self, record_id: str) -> bool:
        """Whether a record with this id is in the store."""
        return self._read(lambda collection: record_id in collection.rows.position)

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

    def applied_seq(self) -> int:
        # No need to enter: it changes last, once what it tells of is in place.
        self._usable()
        return self._seq

    @property
    def broken(self) -> bool:
        """Whether a change was broken off halfway: the copy answers no more and must be loaded anew."""
        return self._unusable == BROKEN

    def describe(self) -> Mapping[str, Any]:
        tombstones, breadth = self._read(
            lambda collection: (collection.rows.tombstones, collection.index.breadth)
        )
        settings: dict[str, Any] = {
            "store": NAME,
            "kind": self._kind,
            "metric": self._metric.value,
            "dimension": self._dimension,
            "tombstones": tombstones,
        }
        if breadth:
            settings["nprobe" if self._kind == IVF else "ef_search"] = breadth
        return settings

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

    def compact(self) -> int:
        """Rebuild without tombstones and return how many there were.

        Searches and writes go on meanwhile. What was written is brought over block by block, and only
        the last of it holds writes off: a block, if the rebuild is the faster of the two.
        """
        with self._rebuilding:
            with self._writing:
                dead = self._usable().rows.tombstones
                if not dead:
                    return 0
                self._changed = set()
            try:
                fresh = compacted(self._read)
                for _ in range(CATCHING_UP_MAX):
                    if len(self._changed) <= APPLY_BLOCK:
                        break
                    self._bring_over(fresh)
                with self._writing:
                    self._bring_over(fresh)
                    self._exchange(fresh)
            finally:
                self._changed = None
            return dead

    def _bring_over(self, fresh: Collection) -> None:
        """Write to ``fresh`` what was changed since the last call, as it is now."""
        changed = self._read(lambda _: self._take_changed())
        for start in range(0, len(changed), APPLY_BLOCK):
            block = changed[start : start + APPLY_BLOCK]
            fresh.write(self._read(partial(changes_of, block)))

    def _take_changed(self) -> list[str]:
        changed, self._changed = self._changed, set()
        return list(changed or ())

    @contextmanager
    def frozen(self) -> Iterator[tuple[Collection, int]]:
        """The collection and its seq with writes held off; searches go on."""
        with self._writing:
            yield self._usable(), self._seq

    def close(self) -> None:
        with self._writing:
            self._unusable = CLOSED
            index = empty_index(
                dimension=self._dimension, inner_product=self._metric is not Metric.L2, kind=FLAT
            )
            self._exchange(Collection(index, Rows([], [], [], []), self._metric))

    def _read(self, ask: Callable[[Collection], T]) -> T:
        """What ``ask`` makes of the collection, with writes held off."""
        return self._gate.read(lambda: ask(self._usable()))

    def _matching(self, filter: Filter | None, ask: Callable[[Collection, Bitmap | None], T]) -> T:
        """What ``ask`` makes of the collection and the rows that the filter allows."""
        if filter is None:
            return self._gate.read(lambda: ask(self._usable(), None))

        def known(collection: Collection) -> tuple[T] | None:
            only = collection.rows.mask(filter)
            return None if only is None else (ask(collection, only),)

        found = self._read(known)
        if found is not None:
            return found[0]
        # Matching every row takes long, and a reader inside would hold off the writer and, behind
        # it, all readers. So it is done with writes held off instead.
        with self._writing:
            only = self._usable().rows.remember(filter)
            return self._read(lambda collection: ask(collection, only))

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

    def _write(self, changes: Sequence[Pending], seq: int) -> None:
        """Change the rows; the seq applied is then ``seq``."""

        def change() -> None:
            collection = self._usable()
            try:
                if self._changed is not None:
                    self._changed.update(change[0] for change in changes)
                collection.write(changes)
                self._seq = seq
            except BaseException:
                # No memory, or a signal's handler: index and rows may be out of step, and each vector
                # after that would be another record's. Not before: who asks how far it is, does not wait.
                self._unusable = BROKEN
                raise

        self._gate.alone(change)

    def _exchange(self, collection: Collection) -> None:
        self._gate.alone(lambda: setattr(self, "_collection", collection))

    def _usable(self) -> Collection:
        if self._unusable is not None:
            raise StoreUnavailable(f"the faiss store {self._unusable}")
        return self._collection
