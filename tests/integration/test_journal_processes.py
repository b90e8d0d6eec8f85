"""Several real processes on one journal, killed at random; and a disk that runs full."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from shadow.errors import JournalUnavailable
from tests.faults.kill_harness import ROOT, KillHarness, KillReport, Worker
from tests.integration.journal_writer import change, open_journal

WRITER = "tests.integration.journal_writer:write"
TRUNCATER = "tests.integration.journal_writer:truncate"


def writers(directory: Path, count: int) -> list[Worker]:
    return [
        Worker(f"writer{n}", WRITER, {"directory": str(directory), "name": f"w{n}"})
        for n in range(count)
    ]


def check_nothing_lost(directory: Path, report: KillReport) -> None:
    """Every acknowledged batch is at its seq with its content, every entry was meant, no seq is
    missing or used twice, and a retry of what was cut off is the same write."""
    journal = open_journal(directory)
    base, head = journal.base(), journal.head()
    entries = {}
    place = base
    while changes := journal.read(place):
        for entry in changes:
            assert entry.seq == place + 1
            place = entry.seq
            entries[entry.seq] = entry
    assert place == head

    intended = {
        e["op_id"]: e["keys"] for events in report.intended.values() for e in events if "op_id" in e
    }
    meant = {key for keys in intended.values() for key in keys}
    used: set[int] = set()
    acknowledged: set[str] = set()
    for events in report.acknowledged.values():
        for event in events:
            if "op_id" not in event:
                continue
            acknowledged.add(event["op_id"])
            seqs = range(event["first"], event["first"] + len(event["keys"]))
            assert used.isdisjoint(seqs)
            used.update(seqs)
            assert seqs[-1] <= head
            for seq, key in zip(seqs, event["keys"], strict=True):
                if seq <= base:
                    continue
                _, expected = change(key)
                found = entries[seq]
                assert found.id == key
                assert found.record is not None
                assert np.array_equal(found.record.embedding, expected.embedding)
                assert (found.record.text, found.record.metadata) == (
                    expected.text,
                    expected.metadata,
                )
    assert acknowledged, "no write was acknowledged: the test showed nothing"
    assert {entry.id for entry in entries.values()} <= meant

    by_id = {entry.id: entry.seq for entry in entries.values()}
    for op_id in intended.keys() - acknowledged:
        keys = intended[op_id]
        again = journal.append([change(key) for key in keys], op_id=op_id)
        assert again.replayed or not by_id.keys() & set(keys), "a cut-off batch was half there"
        if again.replayed and again.first_seq > base:
            assert by_id[keys[0]] == again.first_seq
    journal.close()


def test_killed_writers_lose_nothing(tmp_path: Path) -> None:
    """Three processes of two threads each, killed 24 times: no acknowledged entry is lost or moved,
    the seq has no gap, every batch is whole or absent, and retries are the same writes."""
    seed = int.from_bytes(os.urandom(4), "big")
    report = KillHarness(tmp_path, writers(tmp_path / "state", 3), seed=seed).run(kills=24)
    assert sum(report.kills.values()) == 24
    check_nothing_lost(tmp_path / "state", report)


def test_killed_truncation_keeps_the_count(tmp_path: Path) -> None:
    """Two writers and a process that truncates, all killed at random: what is above the base is
    whole, and no seq is ever given twice."""
    seed = int.from_bytes(os.urandom(4), "big")
    state = tmp_path / "state"
    truncater = Worker("truncater", TRUNCATER, {"directory": str(state), "keep": 10})
    harness = KillHarness(tmp_path, [*writers(state, 2), truncater], seed=seed, alive_s_max=0.8)
    report = harness.run(kills=18)
    check_nothing_lost(state, report)
    journal = open_journal(state)
    assert journal.base() > 0, "nothing was truncated: the test showed nothing"
    journal.close()


def test_every_process_reads_what_another_acknowledged(tmp_path: Path) -> None:
    """A reader that polls the change signal sees a writer's entries without reopening anything."""
    journal = open_journal(tmp_path / "state")
    version = journal.data_version()
    harness = KillHarness(tmp_path, writers(tmp_path / "state", 1), seed=1, alive_s_max=2.0)
    report = harness.run(kills=4)
    assert journal.data_version() != version
    acknowledged = [e for events in report.acknowledged.values() for e in events]
    assert len(acknowledged) > 0
    assert journal.head() >= acknowledged[-1]["first"]
    journal.close()


# -- full disks ------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB of its own."""
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("a file system of its own needs root and mount; the quota test runs instead")
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True
    )
    if done.returncode != 0:
        pytest.skip(f"mounting a tmpfs is not allowed here: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_refuses_writes_and_heals_by_itself(small_disk: Path) -> None:
    """On a full file system appends fail with one clear error and no trace, reads go on, and the
    same handle writes again as soon as there is space."""
    journal = open_journal(small_disk / "state")
    acknowledged = [journal.append([change(f"before-{n}")]).first_seq for n in range(20)]
    ballast = small_disk / "ballast"
    fill(ballast)

    refusals: list[str] = []
    for n in range(400):
        try:
            acknowledged.append(
                journal.append([change(f"full-{n}-{i}") for i in range(20)]).first_seq
            )
        except JournalUnavailable as error:
            refusals.append(str(error))
        if len(refusals) == 5:
            break
    assert len(refusals) == 5
    assert all("is full" in refusal for refusal in refusals)
    head = journal.head()
    assert [c.seq for c in journal.read(0, 10_000)] == list(range(1, head + 1))
    assert head < acknowledged[-1] + 20

    ballast.unlink()
    after = journal.append([change("after")])
    assert after.first_seq == head + 1
    journal.close()
    reopened = open_journal(small_disk / "state")
    assert [c.seq for c in reopened.read(0, 10_000)] == list(range(1, head + 2))
    reopened.close()


def fill(ballast: Path) -> None:
    """Use up all the space that is left."""
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        endlessly(lambda: file.write(b"x" * 4096))


def endlessly(act: Callable[[], object]) -> None:
    while True:
        act()


QUOTA_WRITER = """
import json, resource, sys
from shadow.errors import JournalUnavailable
from tests.integration.journal_writer import change, open_journal

journal = open_journal(sys.argv[1])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
first = [journal.append([change(f"before-{n}")]).last_seq for n in range(5)]
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
refusals, last = [], first[-1]
for n in range(2000):
    try:
        last = journal.append([change(f"more-{n}")]).last_seq
    except JournalUnavailable as error:
        refusals.append(str(error))
        if len(refusals) == 3:
            break
read = len(journal.read(0, 10_000))
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
after = journal.append([change("after")]).last_seq
print(json.dumps({"refusals": refusals, "last": last, "read": read, "after": after}))
journal.close()
"""


def test_a_file_size_limit_refuses_writes_and_heals_by_itself(tmp_path: Path) -> None:
    """A process that may not let its files grow gets one clear error, reads on, and writes again
    when it may; nothing acknowledged is lost."""
    done = subprocess.run(
        [sys.executable, "-c", QUOTA_WRITER, str(tmp_path / "state")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr

    told = json.loads(done.stdout)
    assert len(told["refusals"]) == 3
    assert all("not acknowledged" in text and "space, quota" in text for text in told["refusals"])
    assert told["read"] == told["last"]
    assert told["after"] == told["last"] + 1
    journal = open_journal(tmp_path / "state")
    assert journal.head() == told["after"]
    journal.close()
