"""The exact reference store: a dictionary and float64 arithmetic. The tests' oracle."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np

from vectorstore.errors import StoreCorrupt, StoreUnavailable
from vectorstore.filters import Filter, check_filter
from vectorstore.types import Answer, Change, Hit, Metric, Query, Record, check_ms
from vectorstore.validation import (
    check_batch,
    check_id,
    check_ids,
    check_page,
    normalised_record,
    query_vector,
)

__all__ = ["MemoryStore"]


class MemoryStore:
    """Holds records in a dictionary and answers by scoring all of them. Ties go to the lower id."""

    def __init__(
        self, *, dimension: int, metric: Metric = Metric.COSINE, name: str = "memory"
    ) -> None:
        self._dimension = dimension
        self._metric = metric
        self._name = name
        self._records: dict[str, Record] = {}
        self._seq = 0
        self._open = True
        self._lock = threading.RLock()

    @property
    def name(self) -> str:
        return self._name

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def metric(self) -> Metric:
        return self._metric

    def search(self, query: Query) -> Answer:
        vector = query_vector(query, dimension=self._dimension, metric=self._metric)
        with self._lock:
            self._require_open()
            rows = [
                r
                for r in self._records.values()
                if query.filter is None or query.filter.matches(r.metadata)
            ]
            applied_seq = self._seq
        if not rows:
            return Answer([], self._name, applied_seq)
        scores = self._metric.scores(vector, np.stack([row.embedding for row in rows]))
        ranked = sorted(
            zip(scores.tolist(), rows, strict=True), key=lambda pair: (-pair[0], pair[1].id)
        )
        hits = [
            Hit(r.id, score, r.text, deepcopy(r.metadata), r.seq) for score, r in ranked[: query.k]
        ]
        return Answer(hits, self._name, applied_seq)

    def search_many(self, queries: Sequence[Query]) -> list[Answer]:
        return [self.search(query) for query in queries]

    def upsert(self, records: Sequence[Record]) -> int:
        check_batch(records)
        ready = [
            normalised_record(r, dimension=self._dimension, metric=self._metric) for r in records
        ]
        with self._lock:
            self._require_open()
            for record in ready:
                self._seq += 1
                self._records[record.id] = _own(replace(record, seq=self._seq))
            return self._seq

    def delete(self, ids: Sequence[str]) -> int:
        check_batch(ids)
        for record_id in ids:
            check_id(record_id)
        with self._lock:
            self._require_open()
            for record_id in ids:
                self._seq += 1
                self._records.pop(record_id, None)
            return self._seq

    def get(self, ids: Sequence[str], *, timeout_ms: float | None = None) -> list[Record]:
        check_ids(ids)
        check_ms("timeout_ms", timeout_ms)
        with self._lock:
            self._require_open()
            found = [self._records[record_id] for record_id in ids if record_id in self._records]
            return [_own(record) for record in found]

    def scan(
        self, *, after: str = "", limit: int = 1000, timeout_ms: float | None = None
    ) -> list[Record]:
        check_page(after, limit)
        check_ms("timeout_ms", timeout_ms)
        with self._lock:
            self._require_open()
            start = after.encode()
            later = sorted(
                (r.id.encode(), r) for r in self._records.values() if r.id.encode() > start
            )
            return [_own(record) for _, record in later[:limit]]

    def count(self, filter: Filter | None = None, *, timeout_ms: float | None = None) -> int:
        check_filter(filter)
        check_ms("timeout_ms", timeout_ms)
        with self._lock:
            self._require_open()
            if filter is None:
                return len(self._records)
            return sum(filter.matches(record.metadata) for record in self._records.values())

    def describe(self, *, timeout_ms: float | None = None) -> Mapping[str, Any]:
        check_ms("timeout_ms", timeout_ms)
        return {"store": "memory", "dimension": self._dimension, "metric": self._metric.value}

    def apply(self, changes: Sequence[Change]) -> int:
        with self._lock:
            self._require_open()
            for change in changes:
                if change.seq <= self._seq:
                    continue
                if change.seq != self._seq + 1:
                    raise StoreCorrupt(f"journal gap: entry {change.seq} follows {self._seq}")
                if change.record is None:
                    self._records.pop(change.id, None)
                else:
                    self._records[change.id] = _own(replace(change.record, seq=change.seq))
                self._seq = change.seq
            return self._seq

    def applied_seq(self, *, timeout_ms: float | None = None) -> int:
        check_ms("timeout_ms", timeout_ms)
        with self._lock:
            return self._seq

    def close(self) -> None:
        with self._lock:
            self._open = False
            self._records.clear()

    def _require_open(self) -> None:
        if not self._open:
            raise StoreUnavailable(f"the {self._name} store is closed")


def _own(record: Record) -> Record:
    """A record that shares nothing that can change."""
    return replace(record, embedding=record.embedding.copy(), metadata=deepcopy(record.metadata))
