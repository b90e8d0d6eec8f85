"""Going back to a backup: what came after it is lost, and a new history begins.

Not to be mistaken for a rollback, which makes FAISS answer again and loses nothing. The new state is made
ready aside and changed to in one step (:mod:`shadow.backups.switch`); PostgreSQL's rows are replaced in one
transaction after that. Until they are, the table belongs to the old history and is refused. So a restore
that was killed leaves a whole state, and may be run again.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from shadow.backups.loss import Loss, loss_of, moment
from shadow.backups.manifest import BackupManifest
from shadow.backups.present import known_histories
from shadow.backups.shelf import TIMESTAMP, BackupShelf
from shadow.backups.switch import aside_of, complete_switch, enter_alone, switch
from shadow.backups.taking import JOURNAL_NAME, ROWS_NAME, SNAPSHOTS_NAME
from shadow.config import Settings
from shadow.events import EventLog
from shadow.linking import open_link
from shadow.routes import RouteBook
from shadow.writes.backfill import POSTGRESQL_CURSOR
from shadow.writes.journal import Journal
from shadow.writes.ownership import keep_histories
from shadow.writes.postgresql_follower import PostgresqlLink
from shadow.writes.snapshots import SNAPSHOTS_CURSOR
from vectorstore.durable import copy_durably, sync_directory, write_durably
from vectorstore.errors import StoreUnavailable, Unsupported, VectorStoreError
from vectorstore.faiss.manifest import MANIFEST_NAME, Manifest
from vectorstore.faiss.snapshot import verify_snapshot
from vectorstore.postgres.copies import let_go, replace_rows
from vectorstore.postgres.cursor import Cursor

__all__ = ["Restored", "restore"]

log = EventLog()


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did. ``replaced``: the folder that keeps the state from before it.

    ``postgresql`` says in words how PostgreSQL stands now.
    """

    timestamp: str
    head: int
    incarnation: str
    replaced: Path
    postgresql: str


def restore(
    settings: Settings, timestamp: str, *, who: str, consent: Callable[[Loss], bool]
) -> Restored | None:
    """Go back to the backup ``timestamp``; ``None`` if ``consent``, told what is lost, says no.

    Raises RestoreRefused, with nothing changed, if the backup is not whole or a process is running on
    the state directory, and InvalidInput if there is no such backup.
    """
    directory = settings.state_directory.absolute()
    with enter_alone(directory):
        complete_switch(directory)
        backup, manifest = BackupShelf(directory).verified(timestamp)
        with closing(open_link(settings, manifest.dimension, manifest.metric)) as link:
            asked = _asked(link)
            table = settings.postgresql.table
            if not consent(loss_of(directory, manifest, table=table, asked=asked)):
                return None
            why = f"went back to the backup {timestamp} of {moment(manifest.made_at)}"
            incarnation = _make_ready(directory, backup, manifest, asked, who=who, why=why)
            # Two restores within a second must not keep what they replace in one folder.
            stamp = f"{datetime.now(UTC):{TIMESTAMP}}-{secrets.token_hex(4)}"
            replaced = switch(directory, stamp=stamp)
            postgresql = _restore_postgresql(link, backup, manifest, incarnation, asked)
    log.warning("restored", timestamp=timestamp, head=manifest.head, postgresql=postgresql)
    return Restored(timestamp, manifest.head, incarnation, replaced, postgresql)


def _asked(link: PostgresqlLink) -> Cursor | VectorStoreError:
    """How the table stands, or why it could not be asked: then it is left alone."""
    try:
        return link.open().cursor()
    except VectorStoreError as error:
        return error


def _make_ready(
    directory: Path,
    backup: Path,
    manifest: BackupManifest,
    asked: Cursor | VectorStoreError,
    *,
    who: str,
    why: str,
) -> str:
    """The state of the backup under a new incarnation, whole and synced, in the folder aside."""
    aside = aside_of(directory)
    if aside.exists():
        shutil.rmtree(aside)
    aside.mkdir(mode=0o700)
    copy_durably(backup / JOURNAL_NAME, aside / JOURNAL_NAME)
    cursors = {SNAPSHOTS_CURSOR: manifest.snapshot_seq}
    if manifest.postgresql is not None:
        cursors[POSTGRESQL_CURSOR] = manifest.postgresql.seq
    # A backup may be restored on another machine than the one that it was made on.
    with closing(Journal.open(aside, adopt_host=True)) as journal:
        incarnation = journal.restart_incarnation(cursors=cursors)
        with closing(RouteBook(journal)) as routes:
            routes.restored(who=who, why=why, primary_seen=_primary_seen(directory, routes))
    left = known_histories(directory)
    if isinstance(asked, Cursor) and asked.state != "empty":
        # That its rows may be replaced was agreed to, whoever comes to do it: this run or a backfill.
        left.setdefault(asked.incarnation, False)
    keep_histories(aside, left)
    _adopt_snapshot(
        backup / SNAPSHOTS_NAME / manifest.snapshot, aside / SNAPSHOTS_NAME, incarnation
    )
    sync_directory(aside)
    return incarnation


def _primary_seen(directory: Path, restored: RouteBook) -> str | None:
    """The last ``PRIMARY`` seen in the present state, which the machine's environment still brings."""
    if not (directory / JOURNAL_NAME).exists():
        return restored.primary_seen()
    try:
        with (
            closing(Journal.open(directory, adopt_host=True)) as journal,
            closing(RouteBook(journal)) as routes,
        ):
            return routes.primary_seen()
    except VectorStoreError:
        return restored.primary_seen()


def _adopt_snapshot(source: Path, parent: Path, incarnation: str) -> None:
    """Copy a snapshot into another history."""
    target = parent / source.name
    target.mkdir(parents=True, mode=0o700)
    manifest = Manifest.read(source / MANIFEST_NAME)
    for name in manifest.files:
        copy_durably(source / name, target / name)
    write_durably(target / MANIFEST_NAME, replace(manifest, incarnation=incarnation).encoded())
    verify_snapshot(target)
    sync_directory(target)
    sync_directory(parent)


def _restore_postgresql(
    link: PostgresqlLink,
    backup: Path,
    manifest: BackupManifest,
    incarnation: str,
    asked: Cursor | VectorStoreError,
) -> str:
    if isinstance(asked, VectorStoreError):
        return _left_alone(asked)
    rows = manifest.postgresql
    try:
        store = link.open()
        if rows is None:
            let_go(store, incarnation, agreed=asked)
            return f"no rows were in the backup ({manifest.without_rows}): run `shadow backfill`"
        cursor = Cursor(incarnation, rows.seq, "following", rows.mark)
        replace_rows(store, backup / ROWS_NAME, cursor=cursor, rows=rows.rows, agreed=asked)
    except (StoreUnavailable, Unsupported) as error:
        return _left_alone(error)
    return f"its {rows.rows:,} rows are those of the backup, up to write {rows.seq:,}"


def _left_alone(error: VectorStoreError) -> str:
    return (
        f"it may not hold the backup's rows ({error}), and is not used as long as it does not. When it is "
        "there, run the same restore again before anything is written, or `shadow backfill`, which leaves "
        "a table alone that is not known here"
    )
