"""Backfill: PostgreSQL filled from a verified FAISS snapshot, under live writes.

The snapshot was taken at seq S. While blocks are copied the applier waits; then the cursor is set to S
and the applier catches up from the journal, which holds everything after S until then. A backfill that
was killed goes on after the last block that was committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shadow.backups.manifest import BEFORE_BACKFILL
from shadow.backups.taking import take_backup
from shadow.errors import CutoverRefused, JournalGap, StoreDetached
from shadow.events import EventLog
from shadow.process_lock import process_lock
from shadow.writes.journal import Journal
from shadow.writes.snapshots import BACKFILL_HOLD, SnapshotKeeper
from vectorstore.faiss.snapshot import load_snapshot, verify_snapshot
from vectorstore.faiss.store import FaissStore
from vectorstore.postgres.index import BuildProgress
from vectorstore.postgres.loading import begin_load, finish_load, load_block, load_progress
from vectorstore.postgres.store import PostgresStore

__all__ = ["POSTGRESQL_CURSOR", "Backfilled", "backfill", "release_left_hold"]

POSTGRESQL_CURSOR = "postgresql"
# Rows that one transaction copies: what a kill makes the next run repeat.
BLOCK_ROWS = 2_000

log = EventLog()

Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What a backfill did: rows in the table, the snapshot's seq, rows found there from a killed run."""

    rows: int
    seq: int
    resumed_at: int
    seconds: float


def backfill(
    *,
    directory: Path,
    journal: Journal,
    snapshots: SnapshotKeeper,
    store: PostgresStore,
    current: Callable[[], FaissStore],
    rows_per_s_max: float | None = None,
    backups_kept: int = 7,
    on_rows: Told | None = None,
    on_index: Callable[[BuildProgress], None] | None = None,
) -> Backfilled:
    """Fill the table, or go on where a killed run stopped.

    A backup of FAISS and the journal is made before the table is touched; ``backups_kept`` of them stay.
    ``current`` gives the FAISS store at the journal's head, to take a fresh snapshot from. ``on_rows``
    is told (rows done, rows in all). Raises CutoverRefused if another backfill is running.
    """
    with process_lock(directory / "backfill.lock") as mine:
        if not mine:
            raise CutoverRefused("another backfill is running on this machine; wait for it to end")
        started = time.monotonic()
        snapshot, at = _open_load(directory, journal, snapshots, store, current, backups_kept)
        source = load_snapshot(snapshot)
        rows, resumed_at = source.count(), at
        seq = source.applied_seq()
        began = time.monotonic()
        while at < rows:
            block = source.records(at, min(at + BLOCK_ROWS, rows))
            load_block(store, block, position_start=at, position_end=at + len(block))
            at += len(block)
            if on_rows is not None:
                on_rows(at, rows)
            if rows_per_s_max is not None:
                ahead_s = (at - resumed_at) / rows_per_s_max - (time.monotonic() - began)
                time.sleep(max(0.0, ahead_s))
        source.close()
        _keep_from(journal, seq)
        finish_load(store, on_progress=on_index)
        store.remember_mark(seq, journal.mark_at(seq))
        journal.release(BACKFILL_HOLD)
        log.info("backfilled", rows=rows, seq=seq, resumed_at=resumed_at)
        return Backfilled(rows, seq, resumed_at, time.monotonic() - started)


def _keep_from(journal: Journal, seq: int) -> None:
    """Have the journal keep what PostgreSQL needs next, before its table says that it follows."""
    try:
        journal.set_cursor(POSTGRESQL_CURSOR, seq)
    except JournalGap as error:
        raise StoreDetached(
            f"the journal reached its size limit during the backfill and let go of the writes after "
            f"{seq} ({error}). Raise journal.size_bytes_max or copy at a quieter time, and run "
            "`shadow backfill` again"
        ) from error


def release_left_hold(directory: Path, journal: Journal, *, following: Callable[[], bool]) -> None:
    """Let the journal be truncated again after a backfill that was killed when nothing was open.

    ``following`` says, freshly asked, whether PostgreSQL follows: a load that is open goes on later and
    needs its hold.
    """
    if BACKFILL_HOLD in journal.holds():
        with process_lock(directory / "backfill.lock") as mine:
            if mine and following():
                journal.release(BACKFILL_HOLD)


def _open_load(
    directory: Path,
    journal: Journal,
    snapshots: SnapshotKeeper,
    store: PostgresStore,
    current: Callable[[], FaissStore],
    backups_kept: int,
) -> tuple[Path, int]:
    """The snapshot to load and the row to go on from."""
    open_load = load_progress(store)
    if open_load is not None and store.cursor().incarnation == journal.incarnation:
        snapshot = snapshots.named(open_load.snapshot_id)
        if snapshot is not None and journal.holds().get(BACKFILL_HOLD) == open_load.seq:
            store.bind(journal.incarnation)
            return snapshot, open_load.positions[0]
    # The hold comes before the snapshot is chosen, so that nothing after S can be truncated.
    journal.hold(BACKFILL_HOLD, journal.base())
    head = journal.head()
    snapshot = snapshots.newest()
    seq = verify_snapshot(snapshot).seq
    if seq < head:
        made = snapshots.make(current())
        if made is None:
            raise CutoverRefused("another process is making a snapshot; try again in a moment")
        snapshot, seq = made, verify_snapshot(made).seq
    journal.hold(BACKFILL_HOLD, seq)
    take_backup(
        directory=directory,
        journal=journal,
        snapshots=snapshots,
        kept=backups_kept,
        kind=BEFORE_BACKFILL,
    )
    begin_load(store, incarnation=journal.incarnation, snapshot_id=snapshot.name, seq=seq)
    return snapshot, 0
