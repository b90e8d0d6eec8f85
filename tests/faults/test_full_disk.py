"""The disk of the state directory runs full while a router works: nothing is lost, and it heals."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.kill_harness import ROOT

DISK = "24m"


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A file system of its own at ``place``."""
    place.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip(
            "a file system of its own needs root and mount; the same run under a limit follows"
        )
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)], capture_output=True
    )
    if done.returncode != 0:
        pytest.skip(
            f"mounting is not allowed here ({done.stderr.decode().strip()}); the same run under a "
            "limit follows"
        )
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def lived_through(directory: Path, dsn: str, table: str, how: str) -> dict[str, object]:
    """What the process says that had its disk run full."""
    told = {"directory": str(directory), "dsn": dsn, "table": table, "how": how}
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.full_disk", json.dumps(told)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def check(told: dict[str, object]) -> None:
    """Every promise of docs/durability.md about a full disk."""
    refusals = told["refusals"]
    assert isinstance(refusals, list)
    print({**told, "refusals": set(refusals)})
    assert len(refusals) == 20
    assert len(set(refusals)) <= 2, "one clear error"
    assert all("not acknowledged" in text or "is full" in text for text in refusals)
    # Both stores answered all the while, and no answer was older than the read rule allows.
    stores = told["reads_while_full"]
    assert isinstance(stores, dict)
    assert stores.keys() == {"faiss", "postgresql"}
    assert told["faults"] == []
    # What else could not be written harmed nothing.
    assert "snapshot" in str(told["snapshot_error"])
    assert told["snapshot_in_force"]
    assert "backup" in str(told["backup_error"])
    assert told["backfill_error"]
    assert told["unfinished"] == []
    assert told["holds"] == []
    assert told["postgresql_state"] == "following"
    # And nothing needed to be done by hand.
    assert told["first_write_after"] == "acknowledged"
    assert told["missing"] == []
    assert told["rows"] == told["acknowledged"]
    before, full, after = (
        int(str(told[f"compared_{when}"])) for when in ("before", "while_full", "after")
    )
    assert 10 <= before <= full < after


def test_a_full_disk_stops_writes_alone(
    tmp_path: Path, postgresql_dsn: str, fresh_table: str
) -> None:
    """On a full file system writes are refused with one clear error, reads go on from both stores,
    snapshots, backups, evidence and logs that cannot be written harm nothing; with space the next write
    succeeds, PostgreSQL catches up and both stores hold exactly what was acknowledged."""
    place = tmp_path / "disk"
    with small_disk(place):
        check(lived_through(place / "state", postgresql_dsn, fresh_table, "ballast"))


def test_a_limit_on_files_stops_writes_alone(
    tmp_path: Path, postgresql_dsn: str, fresh_table: str
) -> None:
    """The same where no file system may be mounted: the process may not let its files grow."""
    check(lived_through(tmp_path / "state", postgresql_dsn, fresh_table, "limit"))
