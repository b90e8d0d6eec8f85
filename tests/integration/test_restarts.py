"""A process that starts is no trouble of PostgreSQL's: it decides nothing by what it has not seen yet."""

from __future__ import annotations

import time

import pytest

from shadow.core.phases import Phase
from tests.plugins.migrations import SmallMigration, record, until
from vectorstore.types import Query

QUERY = Query(record("r-3").embedding, k=3)
READING_S = 1.5


def test_a_restart_after_the_flip_does_not_roll_back(small_migration: SmallMigration) -> None:
    """A process that is asked before it has reached PostgreSQL answers from FAISS; that is no failure of
    PostgreSQL's, which answers as soon as it was seen, and the flip stays."""
    small_migration.filled()
    small_migration.flipped()
    for _ in range(2):
        with small_migration.routed() as router:
            stores = []
            began = time.monotonic()
            while time.monotonic() < began + READING_S:
                stores.append(router.search(QUERY).store)
            until("its answer", lambda: router.search(QUERY).store == "postgresql")
            assert router.route.phase is Phase.POSTGRESQL
    with small_migration.opened() as migration:
        assert migration.routes.current().phase is Phase.POSTGRESQL
        assert migration.routes.latch() is None


@pytest.mark.parametrize("ends_in_s", [-1.0, 3_600.0])
def test_a_rehearsal_whose_process_died_is_taken_back(
    small_migration: SmallMigration, ends_in_s: float
) -> None:
    """By the next router, once its time is up; and when the clock was set back it is not held for as
    long as that."""
    small_migration.filled()
    with small_migration.opened() as migration:
        migration.routes.change(
            migration.routes.current(),
            who="rehearse",
            why="rehearsal",
            phase=Phase.POSTGRESQL,
            rehearsing_until=time.time() + ends_in_s,
        )
    with small_migration.routed() as router:
        until("the way back", lambda: router.route.phase is Phase.SHADOW)
    with small_migration.opened() as migration:
        assert migration.routes.current().rehearsing_until is None
