"""Backfill by processes: a killed worker, a killed parent, another number of workers, a pace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from shadow.config import Settings
from shadow.load_clock import LoadClock
from shadow.process_lock import process_lock
from shadow.read_latency import asked_for, recent_reads
from shadow.status import status
from shadow.writes.parts import BLOCK_ROWS, parts_of
from shadow.writes.verify import Clean
from tests.plugins.migrations import DIMENSION, SmallMigration, until
from vectorstore.errors import StoreUnavailable
from vectorstore.postgres.loading import LoadProgress, finish_load, load_progress
from vectorstore.types import Query

ROWS = 6_000
# Slow enough to be killed in the middle, on a machine that is busy too.
SLOWLY = ("--rows-per-s", "500")
BEGUN_ROWS = 1_000


@pytest.fixture
def large(tmp_path: Path, postgresql_dsn: str, fresh_table: str) -> SmallMigration:
    """A migration whose FAISS index holds ``ROWS`` records and PostgreSQL none."""
    import faiss

    folder = tmp_path / "index"
    folder.mkdir()
    index = faiss.IndexFlatIP(DIMENSION)
    vectors = np.random.default_rng(3).normal(size=(ROWS, DIMENSION)).astype(np.float32)
    faiss.normalize_L2(vectors)
    index.add(vectors)
    faiss.write_index(index, str(folder / "index.faiss"))
    with (folder / "records.jsonl").open("w", encoding="utf-8") as lines:
        for n in range(ROWS):
            lines.write(json.dumps({"id": f"r{n}", "text": f"é{n}", "metadata": {"n": n}}) + "\n")
    return SmallMigration(
        Settings.model_validate(
            {
                "state_directory": tmp_path / "state",
                "faiss": {"path": folder, "metric": "cosine"},
                "postgresql": {"dsn": postgresql_dsn, "table": fresh_table},
                "gate": {"verify_every_s": 0},
            }
        )
    )


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that copy for this command."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                command = (entry / "cmdline").read_bytes()
            except (OSError, IndexError):
                continue
            if parent == process.pid and b"load_worker" in command:
                found.append(int(entry.name))
    return found


@contextmanager
def copying(
    large: SmallMigration, *words: str, rows: int = BEGUN_ROWS
) -> Iterator[subprocess.Popen[str]]:
    """A backfill that has copied at least ``rows``, with rows left in every part."""
    with large.command("backfill", *SLOWLY, *words) as process, large.opened() as migration:
        try:
            store = migration.link.open()

            def begun() -> bool:
                found = load_progress(store)
                return (
                    found is not None and min(found.positions) > 0 and sum(found.positions) >= rows
                )

            until("rows are copied", begun, seconds=60.0)
            yield process
        finally:
            process.kill()


def progress_of(large: SmallMigration) -> LoadProgress | None:
    with large.opened() as migration:
        return load_progress(migration.link.open())


def finish(large: SmallMigration, *words: str) -> dict[str, int]:
    """Run the command again to its end, and prove the copy."""
    with large.command("backfill", "--json", *words) as process:
        told, complaints = process.communicate(timeout=120.0)
    assert process.returncode == 0, complaints
    with large.opened() as migration:
        assert migration.link.open().count() == ROWS
        assert large.verified(migration) == Clean(ROWS, "crc32c")
    result: dict[str, int] = json.loads(told)
    return result


def test_a_killed_worker_ends_the_run_and_the_next_one_goes_on(large: SmallMigration) -> None:
    """The command says that a process was killed and what to do; no row is missed or copied twice,
    also when the next run has another number of workers."""
    with copying(large, "--workers", "2") as process:
        os.kill(workers_of(process)[0], signal.SIGKILL)
        _, complaints = process.communicate(timeout=60.0)
    assert process.returncode == 1
    assert "SIGKILL" in complaints
    assert "goes on there" in complaints
    assert "Traceback" not in complaints
    left = progress_of(large)
    assert left is not None
    assert len(left.positions) == 2
    assert BEGUN_ROWS <= sum(left.positions) < ROWS
    assert finish(large, "--workers", "3")["resumed_at"] == sum(left.positions)


def test_workers_end_with_their_parent(large: SmallMigration) -> None:
    """Nobody kills them: they end, long before their parts do, because leave no longer comes. Until
    then nobody else may copy."""
    lock = large.settings.state_directory / "backfill.lock"
    with copying(large, "--workers", "2") as process:
        workers = workers_of(process)
        assert len(workers) == 2
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            process.send_signal(signal.SIGKILL)
            process.wait()
            with process_lock(lock) as mine:
                assert not mine
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
    until("workers are gone", lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    with process_lock(lock) as mine:
        assert mine
    left = progress_of(large)
    assert left is not None
    assert BEGUN_ROWS <= sum(left.positions) < ROWS
    assert finish(large, "--workers", "1")["resumed_at"] == sum(left.positions)


@pytest.mark.slow
def test_the_next_run_waits_for_workers_that_are_left(large: SmallMigration) -> None:
    """Started at once after the parent was killed, it never copies beside them."""
    with copying(large, "--workers", "2") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert finish(large, "--workers", "2")["resumed_at"] >= BEGUN_ROWS


@pytest.mark.slow
def test_ctrl_c_ends_all_of_them_in_words(large: SmallMigration) -> None:
    """A terminal sends SIGINT to the whole group: one line, no traceback of any process."""
    with copying(large, "--workers", "2") as process:
        workers = workers_of(process)
        os.killpg(process.pid, signal.SIGINT)
        _, complaints = process.communicate(timeout=60.0)
    assert process.returncode == 130
    assert "Traceback" not in complaints
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    finish(large)


def test_ctrl_c_while_they_start_ends_them_in_words(large: SmallMigration) -> None:
    """Before they have run a line of their own: no traceback either."""
    with large.command("backfill", *SLOWLY, "--workers", "2") as process:
        until("a process that copies", lambda: bool(workers_of(process)), seconds=60.0)
        os.killpg(process.pid, signal.SIGINT)
        _, complaints = process.communicate(timeout=60.0)
    assert process.returncode == 130
    assert "shadow: interrupted" in complaints
    assert "Traceback" not in complaints


@pytest.mark.parametrize("told", ["", '{"snapshot": "'])
def test_a_process_that_was_not_told_what_to_copy_ends_in_silence(told: str) -> None:
    """Ctrl-C may end the command between the start of a process and its first line, or in that line."""
    ended = subprocess.run(
        [sys.executable, "-m", "shadow.writes.load_worker"],
        input=told,
        text=True,
        capture_output=True,
        timeout=60.0,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_status_tells_how_far_it_is_and_what_is_left(large: SmallMigration) -> None:
    """Rows of all rows at the first look, and the time left at the next one; the same in words."""
    clock = LoadClock()
    with copying(large, "--workers", "2"), large.opened() as migration:
        first = status(migration, clock=clock)["backfill"]
        assert first["doing"] == "copying rows"
        assert (first["total"], first["left_s"]) == (ROWS, None)

        def known() -> bool:
            found = status(migration, clock=clock)["backfill"]
            return found is not None and found["left_s"] is not None

        until("a rate is known", known)
        with large.command("status") as command:
            told, _ = command.communicate(timeout=60.0)
        assert "of 6,000; time left not yet known" in told


@pytest.mark.slow
def test_one_backfill_at_a_time(large: SmallMigration) -> None:
    """A second one is refused while the first one copies, and takes nothing away from it."""
    asking = ("--p99-ms-max", "1000")
    with copying(large, "--workers", "1", "--rows-per-s", "100", *asking, rows=1):
        with large.command("backfill", *asking) as second:
            _, complaints = second.communicate(timeout=60.0)
        assert second.returncode == 1
        assert "another backfill or repair is running" in complaints
        assert (large.settings.state_directory / "reads").is_dir()


@pytest.mark.slow
def test_the_rate_holds_for_all_workers_together(large: SmallMigration) -> None:
    """6,000 rows at 3,000 a second take two seconds, by however many processes."""
    result = finish(large, "--rows-per-s", "3000", "--workers", "3")
    assert result["seconds"] >= (ROWS - 3 * BLOCK_ROWS) / 3_000


def test_slow_reads_slow_it_down_to_a_trickle(large: SmallMigration) -> None:
    """A router that says that its reads are slow is heard while the copy runs; when it is heard no
    more, the rest is copied at full speed."""
    folder = large.settings.state_directory / "reads"
    began: float | None = None
    with (
        large.command("backfill", "--p99-ms-max", "5", "--workers", "1") as process,
        large.opened() as migration,
    ):
        store = migration.link.open()
        until("the backfill asks", folder.is_dir, seconds=60.0)
        while began is None or time.monotonic() - began < 1.0:
            # Replaced whole, as a router does: half a file says nothing.
            aside = folder / ".1"
            aside.write_text(json.dumps({"p99_ms": 50.0, "at": time.time()}))
            aside.replace(folder / "1")
            found = load_progress(store)
            if began is None and found is not None and sum(found.positions) > 0:
                began = time.monotonic()
            assert process.poll() is None, "it ended as if nobody had said anything"
        found = load_progress(store)
        assert found is not None
        assert sum(found.positions) < ROWS
        _, complaints = process.communicate(timeout=120.0)
    assert process.returncode == 0, complaints
    assert not folder.exists()
    with large.opened() as migration:
        assert large.verified(migration) == Clean(ROWS, "crc32c")


def test_parts_cover_every_row_once() -> None:
    """Nearly equal ranges in order, for any number of parts and of rows."""
    for rows in (0, 1, 2, 7, 1_000):
        for count in (1, 2, 3, 8):
            parts = parts_of(rows, [0] * count)
            covered = [n for part in parts for n in range(part.first, part.stop)]
            assert covered == list(range(rows))
            sizes = [part.left for part in parts]
            assert max(sizes) - min(sizes) <= 1


def test_a_table_that_lost_blocks_does_not_follow(large: SmallMigration) -> None:
    """Blocks are committed without waiting for the disk. If the server takes some back in a crash after
    the last one was reported, the load is not ended with rows missing; the next run copies them."""
    with copying(large, "--workers", "1") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with large.opened() as migration:
        store = migration.link.open()
        with pytest.raises(StoreUnavailable, match="goes on from there"):
            finish_load(store, rows=ROWS)
        assert load_progress(store) is not None
    finish(large)


def test_an_empty_index_needs_no_process(small_migration: SmallMigration) -> None:
    """Nothing to copy is done at once."""
    with small_migration.command("backfill", "--json") as process:
        told, complaints = process.communicate(timeout=60.0)
    assert process.returncode == 0, complaints
    assert json.loads(told)["rows"] == 0


def test_a_running_router_tells_what_its_reads_take(small_migration: SmallMigration) -> None:
    """A backfill that asks hears of live reads within a moment, and of none when nobody reads."""
    small_migration.filled()
    directory = small_migration.settings.state_directory
    with small_migration.routed() as router, asked_for(directory):
        query = Query(np.ones(DIMENSION, np.float32), 3)

        def told() -> bool:
            router.search(query)
            return recent_reads(directory) is not None

        until("a router tells", told)
        found = recent_reads(directory)
        assert found is not None
        assert 0.0 < found.p99_ms < 10_000.0
        until("nobody reads", lambda: recent_reads(directory) is None)
