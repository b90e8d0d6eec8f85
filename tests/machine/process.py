"""One router process, without its threads: the real composition, stepped by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from shadow.config import Settings
from shadow.core.phases import Phase, Route
from shadow.opening import open_migration
from shadow.router import Router
from shadow.steward import Steward
from shadow.writes.backfill import backfill
from shadow.writes.room import RoomMaker
from vectorstore.types import Answer, Query

__all__ = ["Process"]


class _Mirror:
    """Takes every offer and compares nothing."""

    def samples(self, route: Route) -> bool:
        return route.mirrors

    def offer(self, route: Route, query: Query, answer: Answer, latency_ms: float) -> None:
        """Never raises."""

    def offer_failure(self, route: Route, query: Query, failed: str) -> None:
        """Never raises."""

    def begin(self) -> None:
        """There is no thread to start."""


class Process:
    """A router and its steward. ``acknowledged``: the highest seq that it returned to its caller."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self.migration = migration = open_migration(settings, on_note=lambda _: None)
        self.acknowledged = 0
        try:
            migration.journal._appender.clock = clock
            # The same clock with simulated time, which stands still between steps: an old head would
            # never become too old, so it is always looked up.
            migration.lag.__init__(  # type: ignore[misc]
                migration.journal, head_age_ms_max=-1_000.0, wall=clock, clock=clock
            )
            self.faiss = migration.load_faiss()
            mirror: Any = _Mirror()
            room = RoomMaker(
                migration.directory,
                migration.journal,
                migration.snapshots,
                self.faiss,
                migration.postgresql,
            )
            self.router = Router(
                journal=migration.journal,
                faiss=self.faiss,
                postgresql=migration.postgresql,
                link=migration.link,
                mirror=mirror,
                lag=migration.lag,
                route=migration.routes.current(),
                settings=settings.router,
                fast_ms=settings.gate.latency_budget_ms,
                dimension=migration.dimension,
                metric=migration.metric,
                on_write=lambda: None,
                on_full=room.make_room,
                on_close=migration.close,
            )
            self.steward = Steward(migration, self.router, self.faiss, mirror)
        except BaseException:
            migration.close()
            raise

    @property
    def phase(self) -> Phase:
        """The phase that this process follows."""
        return self.router.route.phase

    def poll(self) -> None:
        """What the watcher thread does when something was committed."""
        self.steward._version = -1
        self.steward._watch()

    def apply(self) -> None:
        """One round of the applier thread, long enough after the last one for a look at the server."""
        self.migration.postgresql._looked_at = -math.inf
        self.steward._written.set()
        self.steward._apply()

    def step(self) -> None:
        """One step of the steward thread."""
        self.steward._step()

    def keep_house(self) -> None:
        """One round of the housekeeper, and the step of the steward that follows."""
        self.steward._keep_house()
        self.steward._step()

    def snapshot(self) -> None:
        """A snapshot of this process's copy."""
        self.migration.snapshots.make(self.faiss.store, reloads=self.faiss.reloads)

    def backfill(self, on_rows: Callable[[int, int], None]) -> None:
        """What the command does."""
        migration = self.migration
        backfill(
            directory=migration.settings.state_directory,
            journal=migration.journal,
            snapshots=migration.snapshots,
            store=migration.link.open(),
            current=lambda: migration.load_faiss().store,
            on_rows=on_rows,
        )

    def kill(self) -> None:
        """Let go of files as the kernel does; nothing is flushed or finished."""
        self.migration.close()
