"""Backfill: PostgreSQL filled from a verified FAISS snapshot, under live writes.

The snapshot was taken at seq S. While blocks are copied the applier waits; then the cursor is set to S
and the applier catches up from the journal, which holds everything after S until then. A backfill that
was killed goes on after the last block that was committed in each part.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from shadow.backups.manifest import BEFORE_BACKFILL
from shadow.backups.taking import take_backup
from shadow.errors import CutoverRefused, JournalGap, JournalUnavailable, StoreDetached
from shadow.events import EventLog
from shadow.process_lock import hold_lock, process_lock
from shadow.read_latency import asked_for
from shadow.writes.copies import begin_copy
from shadow.writes.journal import Journal
from shadow.writes.load_workers import carry_in_processes
from shadow.writes.ownership import own_histories
from shadow.writes.pace import Pace
from shadow.writes.parts import Part, carry, parts_of
from shadow.writes.snapshots import BACKFILL_HOLD, SnapshotKeeper
from vectorstore.errors import ConfigurationError, StoreCorrupt, Unsupported
from vectorstore.faiss.manifest import MANIFEST_NAME, Manifest
from vectorstore.faiss.store import FaissStore
from vectorstore.postgres.building import BuildProgress
from vectorstore.postgres.loading import LoadProgress, begin_load, finish_load, load_progress
from vectorstore.postgres.store import PostgresStore

__all__ = ["POSTGRESQL_CURSOR", "Backfilled", "alone", "backfill", "release_left_hold"]

POSTGRESQL_CURSOR = "postgresql"
# How long the processes of a run that was killed may take to end, and a router to look after its hold.
LOCK_WAIT_S, LOCK_POLL_S = 10.0, 0.05
# A snapshot that lacks fewer writes than this share of its rows is loaded as it is, and the journal brings
# the rest. For a fresh one the whole index would be loaded, which takes as much memory as a router.
BEHIND_SHARE_MAX = 0.05
# Whoever prunes the snapshot that was chosen has just made a newer one.
LOOKS_MAX = 5

log = EventLog()

Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What a backfill did: rows in the table, the snapshot's seq, rows found there from a killed run.

    ``copying_s``: how much of ``seconds`` the rows took; the rest are a backup and the index.
    """

    rows: int
    seq: int
    resumed_at: int
    seconds: float
    copying_s: float


def backfill(
    *,
    directory: Path,
    journal: Journal,
    snapshots: SnapshotKeeper,
    store: PostgresStore,
    current: Callable[[], FaissStore],
    workers: int = 0,
    pace: Pace | None = None,
    backups_kept: int = 7,
    on_rows: Told | None = None,
    on_index: Callable[[BuildProgress], None] | None = None,
) -> Backfilled:
    """Fill the table, or go on where a killed run stopped.

    A backup of FAISS and the journal is made before the table is touched; ``backups_kept`` of them stay.
    ``current`` gives the FAISS store at the journal's head, to take a fresh snapshot from; it is asked
    only if the newest one is far behind. ``workers``
    processes copy; with 0 this process does, for a table so small that starting one costs more.
    ``on_rows`` is told (rows done, rows in all). Raises CutoverRefused if another backfill is running.
    """
    pace = pace or Pace()
    with (
        alone(directory, wait_s=LOCK_WAIT_S if workers else 0.0) as lock,
        asked_for(directory) if pace.asks else nullcontext(),
    ):
        started = time.monotonic()
        snapshot, load = _open_load(
            directory, journal, snapshots, store, current, backups_kept, max(1, workers)
        )
        begin_copy(directory)
        manifest = Manifest.read(snapshot / MANIFEST_NAME)
        rows, seq = manifest.rows, manifest.seq
        parts = parts_of(rows, load.positions)
        done = resumed_at = sum(load.positions)

        def copied(more: int) -> None:
            nonlocal done
            done += more
            if on_rows is not None:
                on_rows(done, rows)

        copying_from = time.monotonic()
        if workers:
            carry_in_processes(
                parts,
                snapshot=snapshot,
                settings=store.settings,
                workers=workers,
                pace=pace,
                on_rows=copied,
                lock=lock.fileno(),
            )
        else:
            _carry_here(parts, snapshot, store, pace, copied)
        copying_s = time.monotonic() - copying_from
        _keep_from(journal, seq)
        finish_load(store, rows=rows, on_progress=on_index)
        store.remember_mark(seq, journal.mark_at(seq))
        journal.release(BACKFILL_HOLD)
        log.info("backfilled", rows=rows, seq=seq, resumed_at=resumed_at)
        return Backfilled(rows, seq, resumed_at, time.monotonic() - started, copying_s)


@contextmanager
def alone(directory: Path, *, wait_s: float = LOCK_WAIT_S) -> Iterator[IO[str]]:
    """Hold the lock of backfills and repairs; CutoverRefused if it is not free within ``wait_s``.

    A repair under a backfill would put rows where the backfill copies them to, and of two repairs at once
    the later one would put back what the other had mended in FAISS.
    """
    deadline = time.monotonic() + wait_s
    while (held := hold_lock(directory / "backfill.lock")) is None:
        if time.monotonic() >= deadline:
            raise CutoverRefused(
                "another backfill or repair is running on this machine; wait for it to end"
            )
        time.sleep(LOCK_POLL_S)
    with held:
        yield held


def _carry_here(
    parts: list[Part],
    snapshot: Path,
    store: PostgresStore,
    pace: Pace,
    copied: Callable[[int], None],
) -> None:
    """Copy part after part in this process."""
    from vectorstore.faiss.snapshot_reader import SnapshotReader

    with closing(SnapshotReader(snapshot)) as reader:
        began = time.monotonic()
        for part in parts:
            for rows in carry(part, reader, store):
                copied(rows)
                time.sleep(pace.after(rows, time.monotonic() - began))
                began = time.monotonic()


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
    parts: int,
) -> tuple[Path, LoadProgress]:
    """The snapshot to load, verified, and how far each part has come; a new load has ``parts``."""
    open_load = load_progress(store)
    if open_load is not None and store.cursor().incarnation == journal.incarnation:
        snapshot = snapshots.named(open_load.snapshot_id)
        if snapshot is not None and journal.holds().get(BACKFILL_HOLD) == open_load.seq:
            store.bind(journal.incarnation)
            return snapshot, open_load
    # The hold comes before the snapshot is chosen, so that nothing after S can be truncated.
    journal.hold(BACKFILL_HOLD)
    try:
        snapshot, seq = _held_snapshot(journal, snapshots, current)
        take_backup(
            directory=directory,
            journal=journal,
            snapshots=snapshots,
            kept=backups_kept,
            kind=BEFORE_BACKFILL,
        )
    except BaseException:
        # No load was begun, so nobody goes on with this later. On a full disk a router lets go of it.
        with suppress(JournalUnavailable):
            journal.release(BACKFILL_HOLD)
        raise
    try:
        load = begin_load(
            store,
            incarnation=journal.incarnation,
            snapshot_id=snapshot.name,
            seq=seq,
            parts=parts,
            own=own_histories(directory, journal),
        )
    except (ConfigurationError, Unsupported):
        # The table is not to be filled, so nobody goes on with this later.
        journal.release(BACKFILL_HOLD)
        raise
    return snapshot, load


def _held_snapshot(
    journal: Journal, snapshots: SnapshotKeeper, current: Callable[[], FaissStore]
) -> tuple[Path, int]:
    """A snapshot that nobody prunes any more, and its seq."""
    for _ in range(LOOKS_MAX):
        head = journal.head()
        snapshot = snapshots.newest()
        try:
            manifest = Manifest.read(snapshot / MANIFEST_NAME)
        except StoreCorrupt:
            # Pruned since: there is a newer one.
            continue
        if head - manifest.seq > BEHIND_SHARE_MAX * manifest.rows:
            made = snapshots.make(current(), wait=True)
            if made is None:
                # A newer one was made meanwhile.
                continue
            snapshot, manifest = made, Manifest.read(made / MANIFEST_NAME)
        if snapshots.hold_for_backfill(snapshot, manifest.seq):
            return snapshot, manifest.seq
    raise CutoverRefused("another process is making a snapshot; try again in a moment")
