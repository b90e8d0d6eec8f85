"""Opens a router: what an application calls instead of opening a store."""

from __future__ import annotations

from shadow.config import Settings, load_settings
from shadow.core.phases import Wanted
from shadow.judging import QueryJudge, Stores
from shadow.mirror import Mirror
from shadow.opening import open_migration, who
from shadow.router import Router
from shadow.steward import Steward

__all__ = ["open_router"]


def open_router(settings: Settings | None = None) -> Router:
    """Open the migration of ``settings`` (default: file and environment) and route through it.

    Works with PostgreSQL away: FAISS answers, and PostgreSQL joins when it is there. ``close`` the
    router when done. Raises ConfigurationError, IntakeRefused or StoreCorrupt if it cannot start.
    """
    migration = open_migration(settings or load_settings())
    try:
        if migration.settings.primary is not None:
            migration.routes.ask_at_start(Wanted(migration.settings.primary), who=who("start"))
        faiss = migration.load_faiss()

        def era() -> int:
            return (migration.evidence.era() or migration.look_at_era(faiss.store)).number

        gate = migration.settings.gate
        judge = QueryJudge(
            stores=Stores(faiss=lambda: faiss.store, postgresql=migration.link.store),
            journal=migration.journal,
            metric=migration.metric,
            mirror=migration.settings.mirror,
            gate=gate,
        )
        mirror = Mirror(
            evidence=migration.evidence,
            judge=judge.judge,
            era=era,
            watch_means={
                "recall": gate.recall_min,
                "success": gate.success_min,
                "latency": gate.latency_share_min,
            },
            settings=migration.settings.mirror,
        )
        steward: Steward | None = None

        def stop() -> None:
            mirror.close()
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
            dimension=migration.dimension,
            metric=migration.metric,
            on_write=lambda: None if steward is None else steward.wrote(),
            on_close=stop,
        )
        steward = Steward(migration, router, faiss)
    except BaseException:
        migration.close()
        raise
    mirror.start()
    steward.start()
    return router
