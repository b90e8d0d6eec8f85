"""What a data directory's ``postmaster.pid`` says, and whether it is still true.

Layout of the file: PostgreSQL source, ``src/include/utils/pidfile.h`` (pid, data directory, start
time, port, socket directory, listen address, shared memory key, status: one a line).
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Postmaster", "command_of", "mark_dead", "read_postmaster"]


@dataclass(frozen=True, slots=True)
class Postmaster:
    """The server that the file names. ``port`` is 0 until it has got that far."""

    pid: int
    port: int

    @property
    def alive(self) -> bool:
        """Whether a process of that id exists; it may be another program by now."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def read_postmaster(data: Path) -> Postmaster | None:
    """The postmaster of a data directory, or None if none was left running."""
    try:
        lines = (data / "postmaster.pid").read_text(errors="replace").splitlines()
        # Negative: a standalone backend.
        pid = abs(int(lines[0]))
    except (OSError, ValueError, IndexError):
        return None
    with suppress(ValueError, IndexError):
        return Postmaster(pid, int(lines[3]))
    return Postmaster(pid, 0)


def command_of(pid: int) -> str | None:
    """The command line of a process, or None if this machine has no way to tell."""
    with suppress(OSError, subprocess.SubprocessError):
        shown = subprocess.run(  # noqa: S603 - a fixed command
            # Unlimited width: with COLUMNS set, ps would cut the line before the data directory.
            ["ps", "-ww", "-o", "command=", "-p", str(pid)],  # noqa: S607 - wherever PATH says
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        return shown.stdout
    # Slim containers have no ps, but those are Linux.
    with suppress(OSError):
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        return raw.replace(b"\0", b" ").decode(errors="replace")
    return None


def mark_dead(data: Path) -> None:
    """Make the pid file name a process that is surely gone.

    The file is not removed: the shared memory key in it lets PostgreSQL wait for backends that
    outlive their killed postmaster, which is what keeps two servers off the same data.
    """
    path = data / "postmaster.pid"
    gone = subprocess.Popen(["/bin/sh", "-c", ":"])
    gone.wait()
    lines = path.read_text(errors="replace").splitlines(keepends=True)
    path.write_text("".join([f"{gone.pid}\n", *lines[1:]]))
