"""How far a backfill has come, and how long it will take at the rate seen so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shadow.opening import Migration
from shadow.progress import PaceClock
from vectorstore.errors import VectorStoreError

__all__ = ["COPYING", "LoadClock", "LoadStanding", "in_words"]

COPYING = "copying rows"


@dataclass(frozen=True, slots=True)
class LoadStanding:
    """``done`` of ``total`` rows copied, or blocks or tuples of an index build; ``doing`` says which.

    ``left_s`` is ``None`` until a rate is known.
    """

    doing: str
    done: int
    total: int
    left_s: float | None


def in_words(load: Mapping[str, Any]) -> str:
    """A standing, given as a mapping, on one line."""
    left_s = load["left_s"]
    left = "time left not yet known" if left_s is None else f"{left_s:,.0f} s left"
    return f"{load['doing']}: {load['done']:,} of {load['total']:,}; {left}"


class LoadClock:
    """The open load of a migration, with the time that the stage it is in has left."""

    def __init__(self) -> None:
        self._pace = PaceClock()

    def look(self, migration: Migration) -> LoadStanding | None:
        """The open load, or None if there is none or the server does not say."""
        from vectorstore.postgres.building import build_progress
        from vectorstore.postgres.loading import load_progress

        try:
            store = migration.link.store()
            found = load_progress(store)
            if found is None:
                return None
            done = sum(found.positions)
            total = migration.snapshots.rows_of(found.snapshot_id) or done
            build = build_progress(store) if done >= total else None
        except VectorStoreError:
            return None
        if build is None:
            return self._standing(found.snapshot_id, COPYING, done, total)
        return self._standing(found.snapshot_id, build.phase, build.done, build.total)

    def _standing(self, load: str, doing: str, done: int, total: int) -> LoadStanding:
        left_s = self._pace.left_s(f"{load} {doing} {total}", done, total)
        return LoadStanding(doing, done, total, left_s)
