"""Writes of the main thread under handlers of signals that raise: Ctrl-C, the time limit of a task."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import numpy as np
import pytest

from shadow.router import Router
from tests.fakes.interrupts import struck_at
from tests.plugins.migrations import SmallMigration, record, until
from vectorstore.faiss.collection import Collection
from vectorstore.types import Metric, Query
from vectorstore.validation import normalised_record

WAIT_S_MAX = 30.0

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def held(router: Router) -> set[str]:
    """The ids that the router holds, each with its own vector."""
    found = router.scan()
    for one in found:
        expected = normalised_record(record(one.id), dimension=8, metric=Metric.COSINE)
        np.testing.assert_array_equal(one.embedding, expected.embedding)
    return {one.id for one in found}


def test_only_the_wait_is_broken_off(small_migration: SmallMigration) -> None:
    """Wherever it strikes, the batch is there whole or not at all, and others write on."""
    with small_migration.routed() as router, ThreadPoolExecutor(1) as another:
        for number in count(1):
            batch = [record(f"{name}-{number}") for name in "ab"]
            reached = struck_at(number, lambda batch=batch: router.upsert(batch))  # type: ignore[misc]
            another.submit(router.upsert, [record(f"c-{number}")]).result(WAIT_S_MAX)
            if not reached:
                break
        # What was broken off last may still be under way in the writer's own thread.
        router.upsert([record("last")])
        known = held(router)
        assert {f"c-{n}" for n in range(1, number + 1)} | {"last"} <= known
        assert all((f"a-{n}" in known) == (f"b-{n}" in known) for n in range(1, number + 1))
        assert number > 10
    with small_migration.routed() as router:
        assert held(router) == known


def test_a_copy_in_which_a_change_broke_off_is_loaded_anew(
    small_migration: SmallMigration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when there is no memory: the write is acknowledged all the same, and soon FAISS answers with it."""
    write = Collection.write
    failures = count(1)

    def fails_once(collection: Collection, changes: Any) -> None:
        write(collection, changes)
        if next(failures) == 1:
            raise MemoryError

    with small_migration.routed() as router:
        router.upsert([record("a")])
        monkeypatch.setattr(Collection, "write", fails_once)
        assert router.upsert([record("b"), record("c")]) == 3
        until("the copy loaded anew", lambda: not router._faiss.store.broken)
        answer = router.search(Query(record("c").embedding, 3))
        assert (answer.store, answer.hits[0].id, answer.applied_seq) == ("faiss", "c", 3)
        assert router.upsert([record("d")]) == 4
        assert held(router) == {"a", "b", "c", "d"}


def test_a_snapshot_that_does_not_load_is_passed_over(small_migration: SmallMigration) -> None:
    """Its sums may be right and what it holds not: an older one and the journal after it are there."""
    with small_migration.routed() as router:
        router.upsert([record("a"), record("b")])
    with small_migration.opened() as migration:
        migration.snapshots.make(migration.load_faiss().store)
        damaged = migration.load_faiss().store
        with damaged.frozen() as (collection, _):
            collection.index.overwrite(0, 2 * record("a").embedding)
        migration.journal.append([("c", record("c"))])
        damaged.apply(migration.journal.read(2))
        migration.snapshots.make(damaged)
    with small_migration.routed() as router:
        assert held(router) == {"a", "b", "c"}
