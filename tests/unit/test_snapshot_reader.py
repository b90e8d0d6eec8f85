"""Ranges of a snapshot are the records that loading it whole would give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.test_faiss_snapshot import filled
from vectorstore import Metric, Record, StoreCorrupt
from vectorstore.faiss.snapshot import load_snapshot, write_snapshot
from vectorstore.faiss.snapshot_reader import SnapshotReader
from vectorstore.faiss.store import FaissStore

ROWS = 78


def fields(records: list[Record]) -> list[Any]:
    return [(r.id, r.embedding.tobytes(), r.text, r.metadata, r.seq) for r in records]


@pytest.fixture(scope="module", params=["flat", "hnsw", "ivf"])
def snapshot(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = filled(request.param, Metric.L2)
    return write_snapshot(store, tmp_path_factory.mktemp("snapshots"), incarnation="one")


@given(st.lists(st.tuples(st.integers(0, ROWS), st.integers(0, 30)), min_size=1, max_size=8))
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_ranges_in_any_order(snapshot: Path, ranges: list[tuple[int, int]]) -> None:
    """Forwards, backwards, overlapping or empty, over tombstones or not."""
    whole = load_snapshot(snapshot)
    reader = SnapshotReader(snapshot)
    assert reader.rows == ROWS
    for start, length in ranges:
        stop = min(start + length, ROWS)
        assert fields(reader.records(start, stop)) == fields(whole.records(start, stop))
    reader.close()


def test_all_of_it_block_by_block(snapshot: Path) -> None:
    """As a load goes through it."""
    reader = SnapshotReader(snapshot)
    found = [r for start in range(0, ROWS, 7) for r in reader.records(start, min(start + 7, ROWS))]
    assert fields(found) == fields(load_snapshot(snapshot).records(0, ROWS))
    reader.close()


def test_lines_longer_than_what_is_read_at_once(tmp_path: Path) -> None:
    """A record of more than a megabyte, before and after the one that is looked for."""
    store = FaissStore.empty(dimension=2, metric=Metric.L2)
    for n, size in enumerate((10, 999_000, 20, 700_000, 700_000, 30)):
        vector = np.full(2, n + 1, np.float32)
        metadata = {"wide": 2**80, "note": "y" * min(size, 60_000)}
        store.upsert([Record(f"r{n}", vector, "x" * size, metadata)])
    path = write_snapshot(store, tmp_path, incarnation="one")
    reader = SnapshotReader(path)
    for number in (5, 2, 4, 0, 3, 1):
        assert fields(reader.records(number, number + 1)) == fields(
            store.records(number, number + 1)
        )
    reader.close()


def test_an_empty_snapshot_has_no_records(tmp_path: Path) -> None:
    """Nothing to load is no error."""
    store = FaissStore.empty(dimension=2, metric=Metric.L2)
    reader = SnapshotReader(write_snapshot(store, tmp_path, incarnation="one"))
    assert reader.rows == 0
    assert list(reader.records(0, 0)) == []
    reader.close()


def test_more_than_there_is_ends_in_an_error(snapshot: Path) -> None:
    """Beyond the end there are no rows, and half an answer would be taken for a whole one."""
    reader = SnapshotReader(snapshot)
    with pytest.raises(StoreCorrupt, match="ends before"):
        reader.records(ROWS + 1, ROWS + 3)
    reader.close()
