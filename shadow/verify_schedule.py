"""Verify in the background: a process of its own, so that the application's never pays for it.

The child inherits a lock, so that there is one at a time on a machine, and it keeps the lock to its end
even if the process that started it dies. What it finds is kept with the evidence, where the gate looks.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from shadow.config import Settings
from shadow.config_sources import environment_of
from shadow.events import EventLog
from shadow.evidence_view import Verification
from shadow.process_lock import hold_lock

__all__ = ["VerifySchedule"]

# The first one comes this long after PostgreSQL was first seen to hold a copy.
FIRST_AFTER_S = 60.0
# A check that ends without a result, or could not be made, is not tried again before this.
AGAIN_AFTER_S = 300.0
CHILD_NICENESS = 10

log = EventLog()


class VerifySchedule:
    """Starts `shadow verify` when the last one is ``gate.verify_every_s`` old. Used by one thread."""

    def __init__(
        self,
        settings: Settings,
        verification: Callable[[], Verification | None],
        *,
        first_after_s: float = FIRST_AFTER_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``verification``: the last of the copy that PostgreSQL holds now."""
        self._settings = settings
        self._verification = verification
        self._first_after_s = first_after_s
        self._clock = clock
        self._lock_path = settings.state_directory.absolute() / "verify.lock"
        self._following_since: float | None = None
        self._started_at = float("-inf")
        self._child: subprocess.Popen[bytes] | None = None

    def step(self, *, following: bool) -> bool:
        """Start a verify if one is due; whether it did. ``following``: PostgreSQL holds a copy."""
        if self._child is not None and self._child.poll() is not None:
            log.info("verified_in_background", exit_code=self._child.returncode)
            self._child = None
        every_s = self._settings.gate.verify_every_s
        if every_s == 0 or not following or self._child is not None:
            return False
        now = self._clock()
        if self._following_since is None:
            self._following_since = now
        found = self._verification()
        if found is None:
            fresh = _within(min(self._first_after_s, every_s), self._following_since, now)
        else:
            fresh = _within(every_s, found.at, now)
        if fresh or _within(min(AGAIN_AFTER_S, every_s), self._started_at, now):
            return False
        return self._start(now)

    def stop(self) -> None:
        """End a verify that this process started; what it has not found is found by the next one."""
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            self._child.wait()
        self._child = None

    def _start(self, now: float) -> bool:
        held = hold_lock(self._lock_path)
        if held is None:
            return False
        with held:
            self._started_at = now
            self._child = subprocess.Popen(
                [sys.executable, "-m", "shadow", "verify", "--json"],
                env=environment_of(self._settings, os.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(held.fileno(),),
            )
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._child.pid, CHILD_NICENESS)
        return True


def _within(span_s: float, since: float, now: float) -> bool:
    """Whether less than ``span_s`` have passed. Of a time that is still to come nothing is known: the
    clock was set back."""
    return 0.0 <= now - since < span_s
