"""The main job, as the README says it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from farming_guide.demo.story import at_least

DEMO_S_MAX = 230


def test_a_bound_just_below_its_threshold_is_not_told_as_reached() -> None:
    """It is cut as in the report, not rounded."""
    assert [at_least(bound) for bound in (0.94996, 0.95, 1.0)] == ["0.9499", "0.9500", "1.0000"]


def servers_under(folder: Path) -> list[int]:
    """PostgreSQL servers whose data is under ``folder``, or where it says that its data is."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if "postgres" in line and " -D " in f"{line} " and str(folder) in line:
            found.append(process.info["pid"])
    return found


@pytest.fixture
def start(tmp_path: Path) -> object:
    def run() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "shadow", "demo"],
            cwd=tmp_path,
            env={
                name: v
                for name, v in os.environ.items()
                if not name.startswith(("SHADOW_", "PRIMARY"))
            },
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    return run


def test_the_demo_ends_on_postgresql_with_a_pass(start: object, tmp_path: Path) -> None:
    """Exit code 0, a PASS, a report, nothing failed, and no server left running."""
    process = start()  # type: ignore[operator]
    said, _ = process.communicate(timeout=DEMO_S_MAX)
    assert process.returncode == 0, said[-3000:]
    assert "\nPASS" in said
    report = json.loads((tmp_path / "demo-output" / "parity-report.json").read_text())
    assert report["verdict"] == "pass"
    assert report["primary"] == "postgresql"
    assert report["verification"]["state"] == "clean"
    assert servers_under(tmp_path) == []


def test_an_interrupted_demo_leaves_nothing_running(start: object, tmp_path: Path) -> None:
    """Ctrl-C while PostgreSQL runs: an exit code that says so, and no server."""
    process = start()  # type: ignore[operator]
    deadline = time.monotonic() + DEMO_S_MAX
    assert process.stdout is not None
    for line in process.stdout:
        assert time.monotonic() < deadline
        if line.startswith("5."):
            break
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said[-3000:]
    assert "Traceback" not in said
    assert servers_under(tmp_path) == []
