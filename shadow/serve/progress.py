"""How far a backfill has come, and how long it will take at the rate seen so far."""

from __future__ import annotations

import time
from dataclasses import dataclass

from shadow.opening import Migration
from vectorstore.errors import VectorStoreError

__all__ = ["LoadClock", "LoadStanding"]


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
