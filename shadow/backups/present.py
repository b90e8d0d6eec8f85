"""What is in a state directory before a restore changes it: the journal and the histories it knows."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from shadow.writes.ownership import left_histories

__all__ = ["Present", "known_histories", "present_of"]


@dataclass(frozen=True, slots=True)
class Present:
    """The journal that is there. ``last_at``: when its last write was made, if it still holds that."""

    incarnation: str
    head: int
    sealed: bool
    last_at: float | None


def present_of(directory: Path) -> Present | None:
    """The present journal, looked at without opening it for writing; ``None`` if there is none.

    Raises sqlite3.Error if it cannot be read.
    """
    path = directory / "journal.db"
    if not path.exists():
        return None
    with closing(sqlite3.connect(path)) as connection:
        incarnation, head, sealed = connection.execute(
            "SELECT incarnation, head, sealed FROM state"
        ).fetchone()
        found = connection.execute(
            "SELECT appended_at FROM entry WHERE seq = ?", (head,)
        ).fetchone()
    return Present(incarnation, head, bool(sealed), None if found is None else float(found[0]))


def known_histories(directory: Path) -> dict[str, bool]:
    """The incarnations that this directory has or had, and whether each was finalized.

    A present journal that cannot be read counts for nothing.
    """
    known = left_histories(directory)
    with suppress(sqlite3.Error):
        present = present_of(directory)
        if present is not None:
            known[present.incarnation] = present.sealed
    return known
