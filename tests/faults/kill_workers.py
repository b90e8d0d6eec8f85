"""Workers for the kill harness's own tests: one that is durable enough for SIGKILL, one that is not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.faults.kill_harness import AckLog

__all__ = ["fail", "write_late", "write_through"]


def write_through(acks: AckLog, *, path: str) -> None:
    """Append numbers straight to the file, and acknowledge each afterwards."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for number in range(1_000_000):
        value = f"{acks.life}-{number}"
        acks.intend(value=value)
        os.write(file, f"{value}\n".encode())
        acks.acknowledge(value=value)


def write_late(acks: AckLog, *, path: str) -> None:
    """Acknowledge first and write from a buffer of the process: the bug that the harness must see."""
    with Path(path).open("a", buffering=1 << 16) as file:
        for number in range(1_000_000):
            value = f"{acks.life}-{number}"
            file.write(f"{value}\n")
            acks.acknowledge(value=value)


def fail(acks: AckLog) -> None:
    """End with an error of its own."""
    sys.exit("the worker is broken")
