"""The end of dual running: PostgreSQL takes writes itself, and FAISS is put into the archive.

Every part may be repeated, so that a finalize that was killed is completed by the next process that
looks. The seal on the journal comes first: from then on no write can be acknowledged that PostgreSQL
would not hold.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

from shadow.core.phases import Phase, Route
from shadow.errors import CutoverRefused, PoisonEntry
from shadow.opening import Migration
from shadow.process_lock import process_lock
from vectorstore.durable import sync_directory
from vectorstore.errors import StoreUnavailable

__all__ = ["FINALIZED", "complete", "finalize", "is_open"]

# The audit log's word for the end: from then on there is nothing to complete.
FINALIZED = "finalized"


def finalize(migration: Migration, *, who: str, why: str, expected: Route | None = None) -> Path:
    """End the migration and return the folder that holds the FAISS files from now on.

    Refused unless PostgreSQL answers, is level, and a clean verify is recent; RouteConflict if the route
    (``expected``, or the one in force at the call) is another one when the journal is sealed, as after a
    rollback. There is no way back by ``rollback`` after this; ``restore`` goes back to a backup.
    """
    route = expected or migration.routes.current()
    if route.phase is not Phase.POSTGRESQL or route.rehearsing_until is not None:
        raise CutoverRefused(
            f"the phase is {route.phase.value}: only a migration that PostgreSQL answers for can be "
            "final; `shadow cutover` first"
        )
    found = migration.verification()
    recent_s = migration.settings.gate.verify_age_s_max
    # One that is stamped ahead of now is of unknown age: the clock was set back since.
    if found is None or found.state != "clean" or not 0.0 <= time.time() - found.at <= recent_s:
        raise CutoverRefused("there is no recent clean verify: run `shadow verify` first")
    if (behind := migration.desk.behind()) is not None:
        raise CutoverRefused(f"{behind}: wait until it is level")
    migration.routes.seal(route, who=who, why=why)
    archive = complete(migration, who=who, why=why)
    if archive is None:
        raise StoreUnavailable(
            "another process is completing the finalize; `shadow status` shows when it is done"
        )
    return archive


def is_open(migration: Migration) -> bool:
    """Whether a finalize began and has not come to its end."""
    return migration.journal.sealed() and not migration.routes.noted(FINALIZED)


def complete(migration: Migration, *, who: str, why: str) -> Path | None:
    """Carry a sealed journal's finalize through; ``None`` if another process is at it.

    Harmless if it is done already. If PostgreSQL turns out not to hold everything the seal is taken off
    again, and the migration goes on as before (CutoverRefused).
    """
    with process_lock(migration.directory / "finalize.lock") as mine:
        if not mine:
            return None
        _end_following(migration)
        route = migration.routes.current()
        if route.phase is not Phase.FINAL:
            migration.routes.change(
                route, who=who, why=why, phase=Phase.FINAL, ramp_share=0.0, mirror_rate=0.0
            )
        archive = _archive(migration)
        if not migration.routes.noted(FINALIZED):
            migration.routes.note(who=who, what=FINALIZED, why=why)
        return archive


def _end_following(migration: Migration) -> None:
    """Bring the table level and let it take writes of its own."""
    journal = migration.journal
    standing = migration.postgresql.look()
    if standing.state == "unavailable":
        raise StoreUnavailable(
            f"the finalize waits for PostgreSQL, and so do all writes: {standing.error}"
        )
    if standing.state == "following":
        # A halted applier is told by how far it has come.
        with suppress(PoisonEntry):
            migration.postgresql.follow()
        standing = migration.postgresql.look()
    if standing.state == "final":
        return
    if standing.state != "following" or standing.applied_seq < journal.head():
        journal.unseal()
        raise CutoverRefused(
            f"PostgreSQL is {standing.state} at write {standing.applied_seq} of {journal.head()} "
            f"({standing.error or standing.halted}): it does not hold everything, so the migration is not "
            "final and writes go to the journal again"
        )
    migration.link.open().finalize()
    migration.postgresql.look()


def _archive(migration: Migration) -> Path:
    """Put the last snapshot, which reaches the seal, into the archive: the whole of FAISS."""
    archive = migration.directory / "archive"
    if archive.exists():
        return archive
    head = migration.journal.head()
    if migration.snapshots.newest_seq() < head:
        follower = migration.load_faiss()
        migration.snapshots.make(follower.store, reloads=follower.reloads, wait=True)
    aside = migration.directory / "archive.new"
    shutil.rmtree(aside, ignore_errors=True)
    if migration.snapshots.copy_newest(aside).seq < head:
        raise StoreUnavailable("the last snapshot does not reach the seal yet; it is made again")
    aside.rename(archive)
    sync_directory(migration.directory)
    return archive
