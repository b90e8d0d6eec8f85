"""Where a migration stands, as plain data: for the terminal, for scripts and for the dashboard."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from shadow.core.phases import POSTGRESQL
from shadow.load_clock import LoadClock
from shadow.opening import Migration
from shadow.verdict import verdict_facts
from vectorstore.errors import VectorStoreError

__all__ = ["status"]


def status(
    migration: Migration, *, look: bool = True, clock: LoadClock | None = None
) -> dict[str, Any]:
    """Phase, wish and what it waits for, verdict, stores, lag, journal, evidence and the last verify.

    Asks PostgreSQL for its cursor; when it cannot be reached, says so in ``stores``. A process whose
    router follows PostgreSQL anyway need not: with ``look`` false nothing is waited for. ``clock``
    knows a backfill's rate if it was given to an earlier look.
    """
    now = time.time()
    standing = migration.postgresql.look() if look else migration.postgresql.standing
    snapshot = migration.snapshots.newest_made()
    route, request = migration.routes.current(), migration.routes.request()
    era = migration.evidence.era()
    number = 0 if era is None else era.number
    tally = migration.evidence.total(number, POSTGRESQL)
    found = migration.verification()
    head, usage = migration.lag.refresh(), migration.journal.usage()
    age_ms = migration.lag.oldest_unapplied_ms(standing.applied_seq)
    return {
        "phase": route.phase.value,
        "primary": route.primary,
        "rehearsing": route.rehearsing_until is not None,
        "postgresql_share": route.postgresql_share,
        "mirror_rate": route.mirror_rate,
        "route_version": route.version,
        "wanted": request.wanted.value,
        "wanted_by": request.who,
        "waiting_for": list(migration.cutover.waiting_for()),
        "latch": migration.routes.latch(),
        **verdict_facts(migration.desk.ready()),
        "era": number,
        "stores": {
            "faiss": {
                "dimension": migration.dimension,
                "snapshot_seq": None if snapshot is None else snapshot[0],
                "snapshot_age_s": None if snapshot is None else round(now - snapshot[1], 1),
            },
            "postgresql": {
                "state": standing.state,
                "applied_seq": standing.applied_seq,
                "lag_entries": max(0, head - standing.applied_seq) if standing.counts else None,
                "lag_oldest_ms": age_ms if standing.counts else None,
                "halted": standing.halted,
                "trouble": standing.halted or standing.error,
            },
        },
        "server": _server(migration) if look else None,
        "backfill": _backfill(migration, clock or LoadClock())
        if look and standing.state == "loading"
        else None,
        "journal": {
            "head": head,
            "entries": usage.entries,
            "bytes": usage.bytes,
            "bytes_max": usage.bytes_max,
            "near_limit": usage.warning,
        },
        "evidence": {
            "offered": tally.offered,
            "sampled": tally.sampled,
            "compared": tally.resolved,
            "dropped": tally.dropped,
            "lost": tally.lost,
            "distinct_queries": migration.evidence.distinct_queries(number),
            "eras": migration.evidence.eras_count(),
        },
        "verify": None
        if found is None
        else {
            "state": found.state,
            "age_s": round(now - found.at, 1),
            "rows": found.rows,
            "differing": found.differing,
        },
    }


def _backfill(migration: Migration, clock: LoadClock) -> dict[str, Any] | None:
    found = clock.look(migration)
    return None if found is None else asdict(found)


def _server(migration: Migration) -> dict[str, Any] | None:
    """PostgreSQL's own figures with what they suggest; ``None`` while it does not answer."""
    from vectorstore.postgres.monitoring import hints, monitor

    try:
        seen = monitor(migration.link.store())
    except VectorStoreError:
        return None
    return {**asdict(seen), "hints": list(hints(seen))}
