"""The end of dual running: PostgreSQL takes writes itself, and FAISS is put into the archive.

Every part may be repeated, so that a finalize that was killed is completed by the next process that
looks. The seal on the journal comes first: from then on no write can be acknowledged that PostgreSQL
would not hold.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from shadow.core.phases import Phase
from shadow.errors import CutoverRefused
from shadow.opening import Migration
from vectorstore.faiss.durable import sync_directory

__all__ = ["complete", "finalize"]


def finalize(migration: Migration, *, who: str, why: str) -> Path:
    """End the migration and return the folder that holds the FAISS files from now on.

    Refused unless PostgreSQL answers, is level, and a clean verify is recent. There is no way back by
    ``rollback`` after this; ``restore`` goes back to a backup.
    """
    route = migration.routes.current()
    if route.phase is not Phase.POSTGRESQL or route.rehearsing_until is not None:
        raise CutoverRefused(
            f"the phase is {route.phase.value}: only a migration that PostgreSQL answers for can be "
            "final; `shadow cutover` first"
        )
    found = migration.evidence.verification()
    recent_s = migration.settings.gate.verify_age_s_max
    if found is None or found.state != "clean" or time.time() - found.at > recent_s:
        raise CutoverRefused("there is no recent clean verify: run `shadow verify` first")
    if (behind := migration.desk.behind()) is not None:
        raise CutoverRefused(f"{behind}: wait until it is level")
    migration.routes.note(who=who, what="began to finalize", why=why)
    migration.journal.seal()
    return complete(migration, who=who, why=why)


def complete(migration: Migration, *, who: str, why: str) -> Path:
    """Carry a sealed journal's finalize through; harmless if it is done already."""
    store = migration.link.open()
    if store.cursor().state == "following":
        store.bind(migration.journal.incarnation)
        migration.postgresql.follow()
        store.finalize()
    directory = migration.settings.state_directory.absolute()
    archive = directory / "archive"
    source = directory / "snapshots"
    if not archive.exists():
        # The last snapshot reaches the seal, so that the archive is the whole of FAISS.
        migration.snapshots.make(migration.load_faiss().store)
        shutil.copytree(source, directory / "archive.new", dirs_exist_ok=True)
        (directory / "archive.new").rename(archive)
        sync_directory(directory)
    route = migration.routes.current()
    if route.phase is not Phase.FINAL:
        migration.routes.change(route, who=who, why=why, phase=Phase.FINAL, mirror_rate=0.0)
    return archive
