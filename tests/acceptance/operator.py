"""What the acceptance tests drive: real `shadow` commands and real application processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[2]
COMMAND_S_MAX = 120
# Nothing of the caller's own settings may reach the processes under test.
PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
)


class Operator:
    """Runs commands on one state directory, given by its environment."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = {
            **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
            "SHADOW_STATE_DIRECTORY": str(folder / "state"),
            "SHADOW_MIRROR__EVENTS": "off",
            "SHADOW_GATE__DURATION_S_MIN": "0",
            "SHADOW_GATE__LATENCY_BUDGET_MS": "400",
            **settings,
        }

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        """`shadow COMMAND`, with what it printed and its exit code."""
        return subprocess.run(
            [sys.executable, "-m", "shadow", *command],
            cwd=self.folder,
            env={**self.environment, **more},
            text=True,
            capture_output=True,
            timeout=COMMAND_S_MAX,
            check=False,
        )

    def done(self, *command: str) -> str:
        """Run a command that must succeed; what it printed."""
        result = self.run(*command)
        assert result.returncode == 0, (
            f"{command}: {result.returncode}\n{result.stdout}{result.stderr}"
        )
        return result.stdout

    def status(self) -> dict[str, Any]:
        """`shadow status --json`."""
        found: dict[str, Any] = json.loads(self.done("status", "--json"))
        return found

    def until(
        self, what: str, met: Callable[[dict[str, Any]], bool], seconds: float = 60.0
    ) -> dict[str, Any]:
        """Look at the status until it is as wanted."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.status()
            if met(found):
                return found
            assert time.monotonic() < deadline, f"{what} not within {seconds} s: {found}"

    @contextmanager
    def application(
        self, queries: npt.NDArray[np.float32], *, writes: bool = True, **more: str
    ) -> Iterator[Application]:
        """A running application process; stopped at the end of the block, and asked what it met."""
        np.save(self.folder / "queries.npy", queries)
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.acceptance.application",
                str(self.folder),
                *(["--write"] if writes else []),
            ],
            cwd=ROOT,
            env={**self.environment, **more},
            stdin=subprocess.PIPE,
            text=True,
        )
        application = Application(process, self.folder / f"told-{process.pid}.json")
        try:
            application.until("its first answers", lambda told: sum(told["answered"].values()) > 10)
            yield application
        finally:
            application.stop()


class Application:
    """One process of the application."""

    def __init__(self, process: subprocess.Popen[str], told: Path) -> None:
        self.process = process
        self._told = told

    def told(self) -> dict[str, Any]:
        """What it met so far."""
        if not self._told.exists():
            return {"answered": {}, "failed": [], "unseen": [], "written": {}, "phase": ""}
        found: dict[str, Any] = json.loads(self._told.read_text())
        return found

    def until(
        self, what: str, met: Callable[[dict[str, Any]], bool], seconds: float = 60.0
    ) -> dict[str, Any]:
        """Wait until the application has met what is wanted."""
        deadline = time.monotonic() + seconds
        while True:
            told = self.told()
            if met(told):
                return told
            assert self.process.poll() is None, (
                f"the application ended with {self.process.returncode}"
            )
            assert time.monotonic() < deadline, f"{what} not within {seconds} s: {told}"
            time.sleep(0.02)

    def stop(self) -> None:
        """Ask it to stop, and make sure that it did."""
        if self.process.poll() is None:
            self.process.communicate("\n", timeout=30)
        assert self.process.returncode == 0
