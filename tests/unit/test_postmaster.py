"""What is told of the process that a pid file names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vectorstore.postgres.postmaster import command_of


def test_a_narrow_terminal_cuts_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data directory at the end of a long command line is seen whatever COLUMNS says; a server that
    was not recognised by it would be taken for dead while it runs."""
    monkeypatch.setenv("COLUMNS", "20")
    directory = tmp_path / ("long" * 20) / "data"
    sleeper = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", str(directory)], env=dict(os.environ)
    )
    try:
        assert str(directory) in (command_of(sleeper.pid) or "")
    finally:
        sleeper.kill()
        sleeper.wait()
