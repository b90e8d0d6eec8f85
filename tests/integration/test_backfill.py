"""What a backfill begins from, and what it takes to do so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shadow.writes.backfill import backfill
from shadow.writes.snapshot_settings import SnapshotSettings
from shadow.writes.verify import Clean
from tests.plugins.migrations import SmallMigration, record
from vectorstore.faiss.index import FLAT, HNSW, IVF, IVF_TRAINING_ROWS
from vectorstore.faiss.manifest import MANIFEST_NAME, Manifest
from vectorstore.faiss.snapshot import load_snapshot, write_snapshot
from vectorstore.faiss.store import FaissStore
from vectorstore.types import Metric, Record


def never() -> FaissStore:
    pytest.fail("the whole index was loaded")


def test_a_snapshot_that_is_little_behind_is_loaded_as_it_is(
    small_migration: SmallMigration,
) -> None:
    """For a few writes the index is not loaded and written anew: the journal brings them."""
    with small_migration.routed() as router:
        router.upsert([record(f"r-{n}") for n in range(100)])
    with small_migration.opened() as migration:
        assert migration.snapshots.make(migration.load_faiss().store)
    with small_migration.routed() as router:
        router.upsert([record("r-1", "new"), record("r-100")])
        router.delete(["r-2"])
    with small_migration.opened() as migration:
        done = backfill(
            directory=migration.directory,
            journal=migration.journal,
            snapshots=migration.snapshots,
            store=migration.link.open(),
            current=never,
        )
        assert (done.rows, done.seq) == (100, 100)
        found = small_migration.verified(migration)
        assert isinstance(found, Clean)
        assert found.rows == 100
        assert not migration.journal.holds()


@pytest.mark.parametrize("kind", [FLAT, HNSW, IVF])
def test_a_snapshot_tells_its_settings_as_the_store_does(tmp_path: Path, kind: str) -> None:
    """So that a command which does not load the store opens no era of its own."""
    vectors = np.random.default_rng(1).standard_normal((IVF_TRAINING_ROWS, 4)).astype(np.float32)
    store = FaissStore.empty(dimension=4, metric=Metric.L2, kind=kind)
    store.upsert([Record(f"r-{n}", vector, "", {}) for n, vector in enumerate(vectors)])
    store.delete(["r-7"])
    if kind != FLAT:
        store.set_breadth(23)
    path = write_snapshot(store, tmp_path, incarnation="one")
    told = SnapshotSettings(path, Manifest.read(path / MANIFEST_NAME)).describe()
    assert told == load_snapshot(path).describe() == store.describe()
