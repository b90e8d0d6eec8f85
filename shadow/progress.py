"""How far a backfill has come and how long it will take, and how fast a table grows: by what was seen
since one began to look."""

from __future__ import annotations

import time
from dataclasses import dataclass

from shadow.opening import Migration
from vectorstore.errors import VectorStoreError

__all__ = ["GrowthClock", "LoadClock", "LoadStanding"]

# Before that a rate says nothing.
GROWTH_S_MIN = 60.0


@dataclass(frozen=True, slots=True)
class LoadStanding:
    """Rows copied of all rows; ``left_s`` is ``None`` until a rate is known."""

    done: int
    total: int
    left_s: float | None


class LoadClock:
    """Remembers where a load stood when it was first seen."""

    def __init__(self) -> None:
        self._began: tuple[str, float, int] | None = None

    def look(self, migration: Migration) -> LoadStanding | None:
        """The open load, or None if there is none or the server does not say."""
        from vectorstore.postgres.loading import load_progress

        try:
            found = load_progress(migration.link.store())
        except VectorStoreError:
            return None
        if found is None:
            return None
        done, now = sum(found.positions), time.monotonic()
        if self._began is None or self._began[0] != found.snapshot_id:
            self._began = (found.snapshot_id, now, done)
        total = migration.snapshots.rows_of(found.snapshot_id) or done
        _, since, first = self._began
        rate = (done - first) / (now - since) if now > since else 0.0
        return LoadStanding(done, total, (total - done) / rate if rate > 0 else None)


class GrowthClock:
    """Remembers how large something was when it was first seen."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def look(self, size_bytes: int) -> float | None:
        """Bytes an hour since then; None for the first minute."""
        now = time.monotonic()
        if self._first is None:
            self._first = (now, size_bytes)
        since, first = self._first
        return None if now - since < GROWTH_S_MIN else (size_bytes - first) / (now - since) * 3600
