"""Opens a router: what an application calls instead of opening a store."""

from __future__ import annotations

from shadow.asking_process import AskingProcess
from shadow.captures import CaptureBook
from shadow.config import Settings
from shadow.config_sources import load_settings
from shadow.core.phases import Wanted
from shadow.eras import open_era
from shadow.exact_scans import Stores
from shadow.judging import QueryJudge
from shadow.mirror import Mirror
from shadow.opening import Migration, open_migration, who
from shadow.read_latency import ReadLatencies
from shadow.router import Router
from shadow.steward import Steward
from shadow.writes.faiss_follower import FaissFollower
from shadow.writes.room import RoomMaker
from vectorstore.errors import VectorStoreError

__all__ = ["open_router", "route_through"]


class _EraClock:
    """The era that evidence belongs to. Looked at anew when a process begins to mirror, so that a
    setting that changed while it was down counts from the first query; the steward does so later."""

    def __init__(self, migration: Migration, faiss: FaissFollower) -> None:
        self._migration = migration
        self._faiss = faiss
        self._looked = False

    def number(self) -> int:
        """The number of the era in force."""
        known = self._migration.evidence.era()
        if not self._looked:
            try:
                known = self._migration.look_at_era(self._faiss.store)
                self._looked = True
            except VectorStoreError:
                # Before there ever was an era: what fails now must be counted somewhere. The first
                # look that succeeds opens another.
                known = known or open_era(self._migration.evidence, {"postgresql": "never seen"})
        assert known is not None
        return known.number


def open_router(settings: Settings | None = None) -> Router:
    """Open the migration of ``settings`` (default: file and environment) and route through it.

    Works with PostgreSQL away: FAISS answers, and PostgreSQL joins when it is there. ``close`` the
    router when done. Raises ConfigurationError, IntakeRefused or StoreCorrupt if it cannot start.
    """
    return route_through(open_migration(settings or load_settings()))


def route_through(migration: Migration) -> Router:
    """A router over a migration that was opened, which it closes when it is closed.

    For a process that also looks at the migration and decides about it. Raises as
    :func:`open_router`; then the migration is closed.
    """
    try:
        if migration.settings.primary is not None:
            migration.routes.ask_at_start(Wanted(migration.settings.primary), who=who("start"))
        faiss = migration.load_faiss()

        era = _EraClock(migration, faiss)

        gate = migration.settings.gate
        asking: AskingProcess | None = None
        if migration.settings.mirror.own_process:
            asking = AskingProcess(lambda: migration.link.store().settings)
        judge = QueryJudge(
            stores=Stores(faiss=lambda: faiss.store, postgresql=migration.link.store),
            journal=migration.journal,
            metric=migration.metric,
            mirror=migration.settings.mirror,
            gate=gate,
            asking=asking,
        )
        captures = CaptureBook(
            migration.settings.state_directory.absolute(), migration.settings.evidence
        )
        mirror = Mirror(
            evidence=migration.evidence,
            judge=judge.judge_batch,
            era=era.number,
            watch_means={
                "recall": gate.recall_min,
                "success": gate.success_min,
                "latency": gate.latency_share_min,
            },
            settings=migration.settings.mirror,
            keep=captures.add,
            asking=asking,
        )
        reads = ReadLatencies(migration.directory)
        steward: Steward | None = None

        def stop() -> None:
            mirror.close()
            if asking is not None:
                asking.close()
            captures.close()
            if steward is not None:
                steward.stop()
            migration.close()

        router = Router(
            journal=migration.journal,
            faiss=faiss,
            postgresql=migration.postgresql,
            link=migration.link,
            mirror=mirror,
            lag=migration.lag,
            route=migration.routes.current(),
            settings=migration.settings.router,
            fast_ms=gate.latency_budget_ms,
            dimension=migration.dimension,
            metric=migration.metric,
            on_write=lambda: None if steward is None else steward.wrote(),
            on_full=RoomMaker(
                migration.directory,
                migration.journal,
                migration.snapshots,
                faiss,
                migration.postgresql,
            ).make_room,
            on_close=stop,
            on_read=reads.add,
        )
        steward = Steward(migration, router, faiss, mirror, tell_reads=reads.publish)
    except BaseException:
        migration.close()
        raise
    mirror.start()
    steward.start()
    return router
