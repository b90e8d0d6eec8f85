"""Taking a backup while everything goes on: a verified snapshot, PostgreSQL's rows, the journal.

The journal is copied last, so that it holds every write after the snapshot and after the rows. That makes
the copy consistent without a stop: it is a snapshot at seq S and the journal after S.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from shadow.backups.manifest import FULL, MANIFEST_NAME, BackupManifest, Rows, sums_of
from shadow.backups.shelf import TIMESTAMP, UNFINISHED, BackupShelf
from shadow.errors import RestoreRefused
from shadow.events import EventLog
from shadow.process_lock import process_lock
from shadow.writes.journal import Journal
from shadow.writes.snapshots import SnapshotKeeper
from vectorstore.durable import make_directory, sync_directory, write_durably
from vectorstore.errors import StoreUnavailable, VectorStoreError
from vectorstore.postgres.copies import dump_rows
from vectorstore.postgres.store import PostgresStore

__all__ = ["JOURNAL_NAME", "ROWS_NAME", "SNAPSHOTS_NAME", "take_backup"]

JOURNAL_NAME = "journal.db"
ROWS_NAME = "postgresql.copy"
SNAPSHOTS_NAME = "snapshots"
ATTEMPTS_MAX = 3
NAME_PAUSE_S = 0.1

log = EventLog()


def take_backup(
    *,
    directory: Path,
    journal: Journal,
    snapshots: SnapshotKeeper,
    kept: int,
    postgresql: Callable[[], PostgresStore] | None = None,
    kind: str = FULL,
    clock: Callable[[], float] = time.time,
) -> BackupManifest:
    """Write a backup aside, check it, put it on the shelf, and remove all but ``kept`` of its kind.

    ``postgresql`` gives the store whose rows are to be in it; if it cannot be reached or holds no copy
    of this journal, the backup is made without them: FAISS and the journal hold everything. Raises
    RestoreRefused after finalize, when PostgreSQL alone is what there is to back up, and
    StoreUnavailable, with nothing left of the attempt, if the disk takes no more.
    """
    shelf = BackupShelf(directory)
    try:
        make_directory(shelf.path)
        with process_lock(directory / "backups.lock", wait=True):
            if journal.sealed():
                raise RestoreRefused(
                    "the migration is final: PostgreSQL holds everything, so back it up with pg_dump"
                )
            for unfinished in shelf.path.glob(f"{UNFINISHED}*"):
                shutil.rmtree(unfinished)
            aside = shelf.path / f"{UNFINISHED}{secrets.token_hex(4)}"
            try:
                manifest = _fill(aside, journal, snapshots, postgresql, kind, clock)
                target = _free_name(shelf.path, clock)
                manifest = _named(aside, manifest, target.name)
                aside.rename(target)
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
            sync_directory(shelf.path)
            removed = shelf.prune(kept, made=manifest)
    except OSError as error:
        raise StoreUnavailable(
            f"no backup could be written under {shelf.path} ({error.strerror}), and nothing is left of "
            "the attempt. Make room there, or keep fewer (journal.backups_kept), and run it again"
        ) from error
    log.info(
        "backed_up", timestamp=manifest.timestamp, kind=kind, head=manifest.head, pruned=removed
    )
    return manifest


def _fill(
    aside: Path,
    journal: Journal,
    snapshots: SnapshotKeeper,
    postgresql: Callable[[], PostgresStore] | None,
    kind: str,
    clock: Callable[[], float],
) -> BackupManifest:
    for _ in range(ATTEMPTS_MAX):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o700)
        snapshot = snapshots.copy_newest(aside / SNAPSHOTS_NAME)
        rows, without = _rows(aside, journal, postgresql)
        made_at = clock()
        base, head = journal.copy_to(aside / JOURNAL_NAME)
        # A truncation between the parts would leave a gap after the older ones.
        if base > snapshot.seq or (rows is not None and base > rows.seq):
            continue
        dimension, metric = journal.vectors()
        return BackupManifest(
            timestamp="",
            made_at=made_at,
            kind=kind,
            incarnation=journal.incarnation,
            head=head,
            dimension=dimension,
            metric=metric,
            snapshot=next((aside / SNAPSHOTS_NAME).iterdir()).name,
            snapshot_seq=snapshot.seq,
            postgresql=rows,
            without_rows=without,
            files=sums_of(aside),
        )
    raise StoreUnavailable(
        "the journal was truncated during each of the attempts to copy it: try again at a quieter time"
    )


def _rows(
    aside: Path, journal: Journal, postgresql: Callable[[], PostgresStore] | None
) -> tuple[Rows | None, str]:
    if postgresql is None:
        return None, "this kind of backup needs no rows"
    path = aside / ROWS_NAME
    try:
        store = postgresql()
        cursor, rows = dump_rows(store, path)
    except VectorStoreError as error:
        path.unlink(missing_ok=True)
        return None, str(error)
    if cursor.state != "following" or cursor.incarnation != journal.incarnation:
        path.unlink()
        return None, f"the table is {cursor.state} and holds no complete copy of this journal"
    return Rows(store.settings.table, rows, cursor.seq, cursor.mark), ""


def _named(aside: Path, manifest: BackupManifest, timestamp: str) -> BackupManifest:
    named = replace(manifest, timestamp=timestamp)
    write_durably(aside / MANIFEST_NAME, named.encoded())
    sync_directory(aside)
    return named


def _free_name(shelf: Path, clock: Callable[[], float]) -> Path:
    while True:
        path = shelf / datetime.fromtimestamp(clock(), UTC).strftime(TIMESTAMP)
        if not path.exists():
            return path
        time.sleep(NAME_PAUSE_S)
