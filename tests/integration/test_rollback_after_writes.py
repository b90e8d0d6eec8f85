"""The way back after a long time on PostgreSQL loses nothing and takes no time."""

from __future__ import annotations

import time
from pathlib import Path

from shadow.core.phases import Phase, Wanted
from shadow.service import open_router
from tests.fakes.running import QUERY, record_of, running, until

WRITES = 10_000
BATCH = 25


def test_faiss_answers_with_all_of_them(
    tmp_path: Path, postgresql_dsn: str, fresh_table: str
) -> None:
    """After 10,000 writes on PostgreSQL as primary, a rollback makes FAISS answer with every one of
    them within a second of the command, in the process that wrote and in another router."""
    with running(tmp_path / "state", postgresql_dsn, fresh_table) as migration:
        migration.router.upsert([record_of(0)])
        migration.fill()
        migration.flip()
        other = open_router(migration.settings)
        try:
            for start in range(0, WRITES, BATCH):
                last = migration.router.upsert(
                    [record_of(number) for number in range(start, start + BATCH)]
                )
            assert migration.router.search(QUERY).store == "postgresql"
            commanded = time.monotonic()
            migration.ask(Wanted.FAISS)
            for router in (migration.router, other):
                until("FAISS", lambda r=router: r.search(QUERY).store == "faiss", 1.0)  # type: ignore[misc]
                answer = router.search(QUERY)
                assert (answer.store, answer.applied_seq) == ("faiss", last)
                assert router.count() == WRITES
            assert time.monotonic() - commanded < 1.0
            assert migration.router.route.phase is Phase.SHADOW
            texts = {row.id: row.text for row in migration.router.scan(limit=WRITES)}
            assert texts == {r.id: r.text for r in map(record_of, range(WRITES))}
        finally:
            other.close()
