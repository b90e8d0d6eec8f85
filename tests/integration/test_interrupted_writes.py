"""Writes of the main thread under handlers of signals that raise: Ctrl-C, the time limit of a task."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import count

import numpy as np
import pytest

from shadow.router import Router
from tests.fakes.interrupts import struck_at
from tests.plugins.migrations import SmallMigration, record
from vectorstore.types import Metric
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
