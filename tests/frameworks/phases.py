"""A router brought into a phase, and kept there by what is asked of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shadow.config import Settings
from shadow.core.phases import Phase, Request, Wanted
from shadow.opening import open_migration
from shadow.router import Router
from shadow.service import open_router
from shadow.writes.backfill import backfill
from vectorstore import Metric, VectorStore

__all__ = ["emptied", "router_in"]

REACHED_WITHIN_S = 20.0


@contextmanager
def router_in(
    phase: str, *, directory: Path, dsn: str, table: str, dimension: int, metric: Metric
) -> Iterator[Router]:
    """A router over empty stores that has reached ``phase``; closed at the end."""
    settings = Settings.model_validate(
        {
            "state_directory": directory,
            "faiss": {"dimension": dimension, "metric": metric},
            "postgresql": {"dsn": dsn, "table": table},
        }
    )
    router = open_router(settings)
    try:
        if phase != Phase.FAISS:
            _bring(router, settings, Phase(phase))
        yield router
    finally:
        router.close()


def emptied(store: VectorStore) -> VectorStore:
    """The store, without records."""
    while records := store.scan():
        store.delete([record.id for record in records])
    return store


def _bring(router: Router, settings: Settings, phase: Phase) -> None:
    migration = open_migration(settings)
    try:
        backfill(
            directory=settings.state_directory,
            journal=migration.journal,
            snapshots=migration.snapshots,
            store=migration.link.open(),
            current=lambda: migration.load_faiss().store,
        )
        _await(router, Phase.SHADOW)
        if phase is Phase.RAMP:
            # Without a verdict the request waits, and a router that waits stays in the ramp.
            migration.routes.ask(Request(Wanted.POSTGRESQL, "test", "to ramp"))
            migration.routes.change(
                migration.routes.current(), who="test", why="ramp", phase=phase, ramp_share=0.5
            )
        elif phase is Phase.POSTGRESQL:
            request = Request(Wanted.POSTGRESQL, "test", "to flip", force_reason="conformance")
            migration.routes.ask(request)
        _await(router, phase)
    finally:
        migration.close()


def _await(router: Router, phase: Phase) -> None:
    deadline = time.monotonic() + REACHED_WITHIN_S
    while router.route.phase is not phase:
        assert time.monotonic() < deadline, f"the router is in {router.route}, not in {phase}"
        time.sleep(0.02)
