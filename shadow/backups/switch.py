"""Who may be inside a state directory, and the change from one whole state to another.

Every process that has a migration open shares a lock; a restore needs it alone. The change itself is a
few renames, announced by a marker: until the marker is there the old state is untouched, and from then on
whoever comes next carries the renames through. So a kill at any moment leaves the one or the other.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import IO

import orjson

from shadow.errors import RestoreRefused
from shadow.process_lock import hold_lock
from vectorstore.durable import sync_directory, write_durably

__all__ = ["aside_of", "complete_switch", "enter", "enter_alone", "switch"]

ENTER_S_MAX = 10.0
ENTER_PAUSE_S = 0.05

_LOCK = "running.lock"
_MARKER = "restore.json"
_ASIDE = "restore.new"
_REPLACED = "replaced"
_DATABASES = ("journal.db", "evidence.db")
_STATE = (
    *(f"{name}{part}" for name in _DATABASES for part in ("", "-wal", "-shm")),
    "snapshots",
    "archive",
)


def enter(directory: Path) -> IO[str]:
    """Share the state directory until what is returned is closed.

    Carries a restore through that was killed in the middle. Raises RestoreRefused while one is running.
    """
    deadline = time.monotonic() + ENTER_S_MAX
    while True:
        held = hold_lock(directory / _LOCK, shared=True)
        if held is not None:
            if not (directory / _MARKER).exists():
                return held
            held.close()
            alone = hold_lock(directory / _LOCK)
            if alone is not None:
                with alone:
                    complete_switch(directory)
                continue
        if time.monotonic() > deadline:
            raise RestoreRefused(
                f"a restore of {directory} is running: start again when it is done"
            )
        time.sleep(ENTER_PAUSE_S)


def enter_alone(directory: Path) -> IO[str]:
    """Have the state directory alone until what is returned is closed; RestoreRefused if it is in use."""
    held = hold_lock(directory / _LOCK)
    if held is None:
        raise RestoreRefused(
            f"processes are running on {directory} (a router or a command), and a restore would take "
            "the ground from under them: stop them first. Nothing was changed"
        )
    return held


def aside_of(directory: Path) -> Path:
    """Where the state to change to is made ready."""
    return directory / _ASIDE


def switch(directory: Path, *, stamp: str) -> Path:
    """Change to the state that is ready aside; the old one is kept in the folder returned.

    Needs the directory alone. What is ready must be synced.
    """
    _mark(directory, {"stage": "set aside", "stamp": stamp})
    complete_switch(directory)
    return directory / _REPLACED / stamp


def complete_switch(directory: Path) -> None:
    """Carry a change through from wherever it was when its process ended; harmless if there is none."""
    marker = directory / _MARKER
    if not marker.exists():
        return
    told = orjson.loads(marker.read_bytes())
    aside = directory / _ASIDE
    if told["stage"] == "set aside":
        replaced = directory / _REPLACED / told["stamp"]
        replaced.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in _STATE:
            if (directory / name).exists():
                (directory / name).rename(replaced / name)
        for folder in (replaced, replaced.parent, directory):
            sync_directory(folder)
        _mark(directory, {"stage": "put in place", "stamp": told["stamp"]})
    for path in sorted(aside.iterdir()) if aside.exists() else []:
        path.rename(directory / path.name)
    sync_directory(directory)
    if aside.exists():
        aside.rmdir()
    marker.unlink()
    sync_directory(directory)


def _mark(directory: Path, told: dict[str, str]) -> None:
    new = directory / f"{_MARKER}.new"
    write_durably(new, orjson.dumps(told))
    new.rename(directory / _MARKER)
    sync_directory(directory)
