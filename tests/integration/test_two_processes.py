"""Two processes on one state directory: a flip by one reaches the other without a restart."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from shadow.core.phases import Phase, Wanted
from tests.fakes.running import Running, record_of, running, until
from tests.plugins.migrations import SmallMigration, record
from vectorstore.types import Query

ROOT = Path(__file__).resolve().parents[2]
FOLLOWED_WITHIN_S = 1.0


def events(path: Path) -> list[dict[str, Any]]:
    """What the other process has said so far."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def write_and_read(migration: Running, number: int) -> None:
    """A write of this process, read back at once."""
    seq = migration.router.upsert([record_of(number % 50, version=number)])
    assert migration.router.get([record_of(number % 50).id])[0].seq >= seq


def test_the_other_process_follows(tmp_path: Path, postgresql_dsn: str, fresh_table: str) -> None:
    """Each flip and each rollback is in force in the other process within a second; no read in either
    process misses a write that it acknowledged, nor does the other's stay hidden."""
    log = tmp_path / "other.jsonl"
    with running(tmp_path / "state", postgresql_dsn, fresh_table) as migration:
        migration.router.upsert([record_of(0)])
        migration.fill()
        settings = migration.settings.model_dump(mode="json")
        settings["postgresql"]["dsn"] = postgresql_dsn
        command = [sys.executable, "-m", "tests.integration.router_process", json.dumps(settings)]
        stop = tmp_path / "stop"
        with (tmp_path / "stderr").open("w") as stderr:
            other = subprocess.Popen(
                [*command, str(log), str(stop)], cwd=ROOT, stderr=stderr, stdin=subprocess.DEVNULL
            )
        try:
            until("the other process", lambda: bool(events(log)), 30.0)
            number = 0
            for wanted, phase in [(Wanted.POSTGRESQL, "postgresql"), (Wanted.FAISS, "shadow")] * 2:
                before, flipped_at = len(events(log)), time.time()
                migration.ask(wanted)
                assert migration.operator.routes.current().phase.value == phase
                while all(event["phase"] != phase for event in events(log)[before:]):
                    write_and_read(migration, number)
                    number += 1
                    assert time.time() - flipped_at < 10.0, (tmp_path / "stderr").read_text()
                heard = next(e for e in events(log)[before:] if e["phase"] == phase)
                assert heard["at"] - flipped_at < FOLLOWED_WITHIN_S
            seen = migration.router.upsert([record_of(7, version=-0)])
            until(
                "the other's sight of this write",
                lambda: events(log)[-1]["applied"] >= seen,
                FOLLOWED_WITHIN_S,
            )
        finally:
            stop.touch()
            code = other.wait(timeout=30)
        assert code == 0, (tmp_path / "stderr").read_text()[-3000:]
        assert migration.proves_equal() == migration.router.count()


def test_processes_that_name_different_tables_do_not_move_the_route_to_and_fro(
    small_migration: SmallMigration,
) -> None:
    """One was started without the settings of the others, so its table was never filled. The route stays
    where those with the copy put it, FAISS answers in the one without, and it is told what to mend."""
    small_migration.filled()
    table = small_migration.settings.postgresql.table
    mistaken = small_migration.with_settings(postgresql={"table": f"{table}_other"})
    with small_migration.opened() as right, mistaken.opened() as wrong:
        for _ in range(5):
            for migration in (right, wrong):
                migration.postgresql.look()
                waits = migration.cutover.step(who="test")
        assert any("give every process the same DATABASE_URL" in one for one in waits)
        route = right.routes.current()
        assert (route.version, route.phase) == (2, Phase.SHADOW)
    small_migration.flipped()
    with mistaken.routed() as router:
        query = Query(record("r-1").embedding, k=1, timeout_ms=10_000)
        assert router.search(query).store == "faiss"
        router.upsert([record("written")])
    with small_migration.routed() as router:
        until("PostgreSQL answers", lambda: router.search(query).store == "postgresql")
        assert router.get(["written"])
