"""The kill harness sees a lost write when there is one, and none when there is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.kill_harness import AckLog, KillHarness, KillReport, Worker

WORKERS = "tests.faults.kill_workers"


def run(directory: Path, function: str, kills: int) -> tuple[KillReport, Path]:
    path = directory / "written"
    workers = [
        Worker(name, f"{WORKERS}:{function}", {"path": f"{path}-{name}"}) for name in ("a", "b")
    ]
    return KillHarness(directory, workers, seed=11, alive_s_max=0.1).run(kills=kills), path


def lost(report: KillReport, path: Path) -> int:
    """Acknowledged values that no file holds."""
    missing = 0
    for name, events in report.acknowledged.items():
        file = Path(f"{path}-{name}")
        written = set(file.read_text().split("\n")) if file.exists() else set()
        missing += sum(event["value"] not in written for event in events)
    return missing


def test_a_durable_worker_loses_nothing(tmp_path: Path) -> None:
    """Both workers are killed and restarted, go on with new keys, and every acknowledged value is
    there and had been intended."""
    report, path = run(tmp_path, "write_through", kills=6)
    assert sum(report.kills.values()) == 6
    lives = {e["value"].split("-")[0] for events in report.acknowledged.values() for e in events}
    assert len(lives) >= 2
    assert lost(report, path) == 0
    for name, events in report.acknowledged.items():
        intended = [event["value"] for event in report.intended[name]]
        assert {event["value"] for event in events} <= set(intended)


def test_a_worker_that_acknowledges_too_early_is_found_out(tmp_path: Path) -> None:
    """Writes that were still in the process when it was killed show as lost."""
    report, path = run(tmp_path, "write_late", kills=2)
    assert lost(report, path) > 0


def test_a_worker_that_ends_with_an_error_fails_the_run(tmp_path: Path) -> None:
    """A defect of the worker is not mistaken for a kill; its stderr is shown."""
    harness = KillHarness(tmp_path, [Worker("w", f"{WORKERS}:fail", {})], seed=1)
    with pytest.raises(AssertionError, match="the worker is broken"):
        harness.run(kills=1)


def test_a_torn_line_hides_no_other(tmp_path: Path) -> None:
    """A line that a kill cut short is left out, and the next life's first line is read."""
    path = tmp_path / "acks"
    AckLog(path, life=0).acknowledge(value=1)
    with path.open("ab") as file:
        file.write(b'\n{"kind": "acknow')
    AckLog(path, life=1).acknowledge(value=2)
    assert [event["value"] for event in AckLog.read(path)] == [1, 2]
