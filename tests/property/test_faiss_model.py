"""The FAISS store against the reference store, over any sequence of writes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from vectorstore import Change, Filter, Metric, Query, Record
from vectorstore.faiss.snapshot import load_snapshot, write_snapshot
from vectorstore.faiss.store import FaissStore
from vectorstore.memory import MemoryStore

DIMENSION = 3
NAMES = st.sampled_from([f"id{number}" for number in range(12)])
VECTORS = st.lists(st.integers(-9, 9), min_size=DIMENSION, max_size=DIMENSION).filter(any)
CROPS = st.sampled_from(["maize", "beans", None])


class FaissAgainstMemory(RuleBasedStateMachine):
    """Both stores take the same writes; they must hold the same and answer the same."""

    @initialize(kind=st.sampled_from(["flat", "hnsw", "ivf"]), metric=st.sampled_from(list(Metric)))
    def begin(self, kind: str, metric: Metric) -> None:
        self.store = FaissStore.empty(dimension=DIMENSION, metric=metric, kind=kind)
        self.oracle = MemoryStore(dimension=DIMENSION, metric=metric)

    @rule(batch=st.lists(st.tuples(NAMES, VECTORS, CROPS), min_size=1, max_size=6))
    def upsert(self, batch: list[Any]) -> None:
        records = [
            Record(name, np.array(vector, dtype=np.float32), f"{vector}", {"crop": crop})
            for name, vector, crop in batch
        ]
        assert self.store.upsert(records) == self.oracle.upsert(records)

    @rule(names=st.lists(NAMES, min_size=1, max_size=4))
    def delete(self, names: list[str]) -> None:
        assert self.store.delete(names) == self.oracle.delete(names)

    @rule(name=NAMES, vector=VECTORS, gone=st.booleans())
    def apply(self, name: str, vector: list[int], gone: bool) -> None:
        seq = self.oracle.applied_seq() + 1
        unit = np.array(vector, dtype=np.float32)
        unit /= np.linalg.norm(unit)
        change = Change(seq, name, None if gone else Record(name, unit, "applied", {}, seq))
        assert self.store.apply([change]) == self.oracle.apply([change])

    @rule()
    def compact(self) -> None:
        self.store.compact()

    @rule()
    def restart(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = write_snapshot(self.store, Path(folder), incarnation="model")
            self.store = load_snapshot(path)

    @rule(
        vector=VECTORS, k=st.integers(1, 15), crop=st.sampled_from(["any", "maize", "beans", None])
    )
    def search(self, vector: list[int], k: int, crop: str | None) -> None:
        wanted = None if crop == "any" else Filter.of({"crop": crop})
        query = Query(np.array(vector, dtype=np.float32), k=k, filter=wanted)
        expected = self.oracle.search(query)
        for answer in (self.store.search(query), self.store.search_exact(query)):
            assert answer.applied_seq == expected.applied_seq
            scores = [hit.score for hit in answer.hits]
            # Ties may come in another order: the scores must agree, and each hit with its own row.
            assert scores == pytest.approx([hit.score for hit in expected.hits], abs=2e-4)
            assert len({hit.id for hit in answer.hits}) == len(answer.hits)
            for hit in answer.hits:
                held = self.oracle.get([hit.id])[0]
                assert (hit.text, hit.metadata, hit.seq) == (held.text, held.metadata, held.seq)
                assert wanted is None or wanted.matches(hit.metadata)

    @invariant()
    def same_records(self) -> None:
        if not hasattr(self, "store"):
            return
        mine, theirs = self.store.scan(), self.oracle.scan()
        assert [(r.id, r.text, r.metadata, r.seq) for r in mine] == [
            (r.id, r.text, r.metadata, r.seq) for r in theirs
        ]
        for one, other in zip(mine, theirs, strict=True):
            assert one.embedding.tobytes() == other.embedding.tobytes()
        assert self.store.count() == self.oracle.count()


FaissAgainstMemory.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestFaissAgainstMemory = FaissAgainstMemory.TestCase
