"""The threads that keep a router true: other processes' writes and flips, the journal, the phases.

The **watcher** looks for what other processes wrote and decided. The **applier** brings the journal to
PostgreSQL. The **steward** takes the steps of the cutover. The **housekeeper**, in one process of the
machine at a time, makes snapshots and truncates the journal: with millions of rows a snapshot takes
minutes, and no step may wait for it, least of all one back to FAISS.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from shadow.core.phases import Phase
from shadow.errors import JournalGap
from shadow.events import EventLog
from shadow.finalize import complete, is_open
from shadow.mirror import Mirror
from shadow.opening import Migration, who
from shadow.router import Router
from shadow.verify_schedule import VerifySchedule
from shadow.writes.backfill import POSTGRESQL_CURSOR, release_left_hold
from shadow.writes.faiss_follower import FaissFollower
from shadow.writes.snapshots import SNAPSHOTS_CURSOR
from vectorstore.errors import StoreUnavailable, VectorStoreError

__all__ = ["Steward"]

STEP_S = 0.25
HOUSEKEEPING_S = 5.0
SNAPSHOT_SHARE = 0.05
APPLY_IDLE_S = 1.0
APPLY_GATHER_S = 0.05
BACKOFF_S_MIN, BACKOFF_S_MAX = 0.1, 5.0

log = EventLog()


class Steward:
    """Runs the background threads of one router."""

    def __init__(
        self,
        migration: Migration,
        router: Router,
        faiss: FaissFollower,
        mirror: Mirror,
        *,
        tell_reads: Callable[[], None] = lambda: None,
    ) -> None:
        """``tell_reads`` is called at every look: it says what reads take to a backfill that asks."""
        self._migration = migration
        self._router = router
        self._faiss = faiss
        self._mirror = mirror
        self._tell_reads = tell_reads
        self._stopping = threading.Event()
        self._written = threading.Event()
        self._threads = [
            threading.Thread(target=self._forever, args=(name, work), name=name, daemon=True)
            for name, work in (
                ("shadow-watcher", self._watch),
                ("shadow-applier", self._apply),
                ("shadow-steward", self._step),
                ("shadow-housekeeper", self._keep_house),
            )
        ]
        self._version = -1
        self._backoff_s = BACKOFF_S_MIN
        self._verifying = VerifySchedule(migration.settings, migration.verification)

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def wrote(self) -> None:
        """Tell the applier that this process wrote."""
        self._written.set()

    def stop(self) -> None:
        """Stop the threads; a step under way is finished."""
        self._stopping.set()
        self._written.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=10.0)
        self._verifying.stop()

    def _forever(self, name: str, work: Callable[[], float]) -> None:
        while not self._stopping.is_set():
            try:
                pause_s = work()
            except StoreUnavailable as error:
                log.debug("store_unavailable", thread=name, why=str(error))
                pause_s = STEP_S
            except Exception as error:  # noqa: BLE001 - the thread must outlive any one failure
                log.error(
                    "background_failed", thread=name, error=f"{type(error).__name__}: {error}"
                )
                pause_s = BACKOFF_S_MAX / 5
            if pause_s > 0:
                self._stopping.wait(pause_s)

    def _watch(self) -> float:
        self._tell_reads()
        migration = self._migration
        version = migration.journal.data_version()
        if version != self._version:
            self._router.follow_route(migration.routes.current())
            migration.lag.refresh()
            self._faiss.follow()
            self._router.progressed()
            self._written.set()
            self._version = version
        return migration.settings.router.poll_ms / 1e3

    def _apply(self) -> float:
        """One round of the applier: waits for a write, or looks anew after a while."""
        self._written.wait(APPLY_IDLE_S)
        if self._router.route.postgresql_share == 0:
            # Nobody reads there yet: one commit for the writes of a moment, instead of one that
            # competes with the journal's for the disk at each write.
            self._stopping.wait(APPLY_GATHER_S)
        self._written.clear()
        follower = self._migration.postgresql
        if follower.standing.halted is not None and follower.look().halted is not None:
            return BACKOFF_S_MAX
        try:
            return self._apply_once()
        finally:
            self._mirror.begin()

    def _apply_once(self) -> float:
        follower = self._migration.postgresql
        try:
            # A writer that brought its own writes leaves nothing to do.
            if not follower.is_level(self._migration.lag.head()):
                follower.follow()
        except VectorStoreError as error:
            follower.lost(str(error))
            log.warning("applier_waits", store="postgresql", why=str(error))
            pause_s = self._backoff_s
            self._backoff_s = min(self._backoff_s * 2, BACKOFF_S_MAX)
            self._written.set()
            return pause_s
        self._backoff_s = BACKOFF_S_MIN
        self._router.progressed()
        return 0.0

    def _step(self) -> float:
        migration = self._migration
        following = migration.postgresql.standing.state == "following"
        if is_open(migration):
            # Whoever began it may have been killed, and until it is done nobody can write.
            complete(migration, who=who("router"), why="a finalize was begun")
        migration.cutover.step(who=who("router"))
        self._router.follow_route(migration.routes.current())
        self._verifying.step(following=following)
        return STEP_S

    def _keep_house(self) -> float:
        """Make a snapshot when the journal has grown enough, and truncate what nobody needs."""
        migration = self._migration
        if migration.routes.current().phase is Phase.FINAL:
            return HOUSEKEEPING_S
        journal, settings = migration.journal, migration.settings.journal
        if migration.postgresql.standing.state == "following":
            migration.look_at_era(self._faiss.store)
            # It may have been let go of since it was last seen.
            with suppress(JournalGap):
                journal.set_cursor(POSTGRESQL_CURSOR, migration.postgresql.standing.applied_seq)
        usage = journal.usage()
        holder = journal.oldest_holder()
        entries = journal.head() - migration.snapshots.newest_seq()
        crowded = usage.warning and holder is not None and holder[0] == SNAPSHOTS_CURSOR
        # To write a large index anew for a few entries would keep the disk busy for ever.
        due = max(settings.snapshot_entries, SNAPSHOT_SHARE * migration.snapshots.newest_rows())
        if entries >= due or (crowded and entries):
            # One that the disk has no room for is in the log, and is made later.
            with suppress(StoreUnavailable):
                migration.snapshots.make(self._faiss.store, reloads=self._faiss.reloads)
        release_left_hold(
            migration.directory,
            journal,
            following=lambda: migration.postgresql.look().state not in ("loading", "unavailable"),
        )
        journal.truncate(journal.head())
        if usage.warning:
            log.warning(
                "journal_near_limit",
                bytes=usage.bytes,
                bytes_max=usage.bytes_max,
                holder=holder,
                next="at the limit the holder is let go of; PostgreSQL then needs `shadow backfill`",
            )
        return HOUSEKEEPING_S
