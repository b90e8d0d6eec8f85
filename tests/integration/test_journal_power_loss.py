"""What SIGKILL cannot see: whether the bytes had left the page cache when a write was acknowledged.

The processes run on a preloaded layer (lost_writes.c) that keeps, beside the real files, what a power
cut would have left at the worst: only what was synced. The layer itself is proven first, on writers
that do not sync.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from shadow.writes.snapshots import SnapshotKeeper
from tests.faults.kill_harness import ROOT, AckLog
from tests.integration.journal_writer import open_journal

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the layer needs LD_PRELOAD"),
    pytest.mark.skipif(COMPILER is None, reason="no C compiler to build the layer with"),
]

UNSYNCED_WRITER = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1] + "/journal.db", isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
connection.execute(f"PRAGMA synchronous = {sys.argv[2]}")
connection.execute("CREATE TABLE entry (seq INTEGER PRIMARY KEY)")
folder = os.open(sys.argv[1], os.O_RDONLY)
os.fsync(folder)
for seq in range(1, 21):
    connection.execute("INSERT INTO entry VALUES (?)", (seq,))
os.kill(os.getpid(), signal.SIGKILL)
"""


@dataclass(frozen=True)
class Machine:
    """A directory, and the disk under it that forgets what was not synced."""

    library: Path
    directory: Path
    disk: Path

    def run(self, *command: str, kill_at: int | None = None) -> int:
        """Run Python on the layer; the return code, which is -SIGKILL for every normal end here."""
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "LD_PRELOAD": str(self.library),
            "LOST_WRITES_WATCH": str(self.directory),
            "LOST_WRITES_DISK": str(self.disk),
        }
        if kill_at is not None:
            env["LOST_WRITES_KILL_AT"] = str(kill_at)
        done = subprocess.run([sys.executable, *command], env=env, cwd=ROOT, capture_output=True)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
        return done.returncode

    def worker(
        self, function: str, acks: Path, kill_at: int | None = None, **arguments: object
    ) -> None:
        """Run one of the journal's workers, which ends in SIGKILL."""
        code = self.run(
            "-m",
            "tests.faults.kill_harness",
            f"tests.integration.journal_writer:{function}",
            str(acks),
            "0",
            json.dumps({"directory": str(self.directory), **arguments}),
            kill_at=kill_at,
        )
        assert code == -signal.SIGKILL

    def after_power_loss(self, to: Path) -> Path:
        """A directory with what the disk held."""
        root = self.disk / "root"
        self._bring_back(root.read_text() if root.exists() else "never synced", to)
        return to

    def _bring_back(self, key: str, to: Path) -> None:
        """The directory of this key, with the names that it had at its last sync."""
        to.mkdir()
        names = self.disk / f"{key}.names"
        for line in names.read_text().splitlines() if names.exists() else []:
            inner, kind, name = line.split(" ", 2)
            data = self.disk / f"{inner}.data"
            if kind == "d":
                self._bring_back(inner, to / name)
            else:
                (to / name).write_bytes(data.read_bytes() if data.exists() else b"")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert COMPILER is not None
    target = tmp_path_factory.mktemp("layer") / "lost_writes.so"
    source = Path(__file__).with_name("lost_writes.c")
    subprocess.run(
        [COMPILER, "-shared", "-fPIC", "-O1", "-o", str(target), str(source), "-ldl", "-lpthread"],
        check=True,
    )
    return target


@pytest.fixture
def machine(library: Path, tmp_path: Path) -> Machine:
    directory, disk = tmp_path / "state", tmp_path / "disk"
    directory.mkdir()
    disk.mkdir()
    return Machine(library, directory.resolve(), disk.resolve())


def rows(directory: Path) -> int:
    """How many entries the plain writer's file holds."""
    connection = sqlite3.connect(directory / "journal.db")
    try:
        return int(connection.execute("SELECT count(*) FROM entry").fetchone()[0])
    except sqlite3.DatabaseError:
        return 0
    finally:
        connection.close()


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
def test_the_layer_loses_what_was_not_synced(
    machine: Machine, tmp_path: Path, synchronous: str
) -> None:
    """A writer that commits without syncing keeps its rows through SIGKILL and loses them to a power
    cut: the layer can tell the two apart."""
    machine.run("-c", UNSYNCED_WRITER, str(machine.directory), synchronous)
    after = machine.after_power_loss(tmp_path / "after")
    assert rows(after) < 20
    assert rows(machine.directory) == 20


def test_no_acknowledged_write_is_lost_to_a_power_cut(machine: Machine, tmp_path: Path) -> None:
    """Every acknowledged entry is on the disk at the moment of the cut, with its seq, over enough
    writes for checkpoints to have happened in between."""
    acks = tmp_path / "acks"
    machine.worker("write_then_die", acks, batches=600)
    acknowledged = [e for e in AckLog.read(acks) if e["kind"] == "acknowledge"]
    assert len(acknowledged) == 600

    journal = open_journal(machine.after_power_loss(tmp_path / "after"))
    found = {change.seq: change.id for change in journal.read(0)}
    assert {event["first"]: event["key"] for event in acknowledged}.items() <= found.items()
    assert sorted(found) == list(range(1, journal.head() + 1))
    journal.close()


@pytest.mark.parametrize("kill_at", range(1, 12))
def test_what_a_reader_has_seen_is_on_the_disk(
    machine: Machine, tmp_path: Path, kill_at: int
) -> None:
    """A process killed between writing the log and syncing it leaves an entry that the next process
    can read. Opening syncs it, so a power cut cannot take back what was read and perhaps applied."""
    acks = tmp_path / "acks"
    machine.worker("write_then_die", acks, kill_at=kill_at, batches=20)
    seen = tmp_path / "seen"
    machine.run(
        "-c",
        "import os, signal, sys; from tests.integration.journal_writer import open_journal\n"
        "head = open_journal(sys.argv[1]).head(); open(sys.argv[2], 'w').write(str(head))\n"
        "os.kill(os.getpid(), signal.SIGKILL)",
        str(machine.directory),
        str(seen),
    )
    journal = open_journal(machine.after_power_loss(tmp_path / "after"))
    assert journal.head() >= int(seen.read_text())
    journal.close()


@pytest.mark.parametrize("kill_at", [10, 16, 22, 28, 34, None])
def test_a_snapshot_outlives_a_power_cut(
    machine: Machine, tmp_path: Path, kill_at: int | None
) -> None:
    """Whenever the power goes, the newest snapshot that the disk holds loads, the journal goes on where
    it ends, and together they hold every acknowledged write: what is cut off the journal rests on a
    snapshot whose files and names are on the disk."""
    acks = tmp_path / "acks"
    machine.worker("snapshot_then_die", acks, kill_at=kill_at, rounds=4)
    after = machine.after_power_loss(tmp_path / "after")
    acknowledged = [e for e in AckLog.read(acks) if e["kind"] == "acknowledge"]
    journal = open_journal(after)
    keeper = SnapshotKeeper(after, journal, kept=1)
    if not keeper.exists():
        # Then nothing may rest on one.
        assert journal.base() == 0
        assert len(journal.read(0)) >= 5 * len(acknowledged)
    else:
        store = keeper.load()
        store.apply(journal.read(store.applied_seq()))
        for event in acknowledged:
            assert [row.id for row in store.get(event["keys"])] == event["keys"]
    journal.close()
