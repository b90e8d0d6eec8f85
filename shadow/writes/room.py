"""Room in a journal that has reached its size limit: whoever holds entries back is helped or let go of."""

from __future__ import annotations

import time
from pathlib import Path

from shadow.errors import JournalFull
from shadow.events import EventLog
from shadow.process_lock import process_lock
from shadow.writes.backfill import POSTGRESQL_CURSOR
from shadow.writes.faiss_follower import FaissFollower
from shadow.writes.journal import WARNING_SHARE, Journal
from shadow.writes.postgresql_follower import PostgresqlFollower
from shadow.writes.snapshots import SNAPSHOTS_CURSOR, SnapshotKeeper
from vectorstore.errors import StoreUnavailable

__all__ = ["RoomMaker"]

# Each holder is met once, and others may come up meanwhile.
ROUNDS_MAX = 8
# To weigh the op_ids of a day takes about a second, and refused writes come again and again.
WEIGHED_AGAIN_S = 10.0

log = EventLog()


class RoomMaker:
    """Makes room for a write that the journal refused because of its limit."""

    def __init__(
        self,
        directory: Path,
        journal: Journal,
        snapshots: SnapshotKeeper,
        faiss: FaissFollower,
        postgresql: PostgresqlFollower,
    ) -> None:
        self._lock_path = directory / "room.lock"
        self._journal = journal
        self._snapshots = snapshots
        self._faiss = faiss
        self._postgresql = postgresql
        self._weigh_at = 0.0
        self._operations_fill_it = False

    def make_room(self, full: JournalFull) -> bool:
        """Truncate, after new snapshots or after letting go of PostgreSQL; whether room was made.

        PostgreSQL then needs a backfill: its applier finds that the journal begins after what it has
        applied. A batch that the limit could never hold lets nobody go, nor does a journal that is full
        of op_ids.
        """
        if full.needed_bytes >= self._journal.usage().bytes_max:
            return False
        with process_lock(self._lock_path, wait=True):
            for _ in range(ROUNDS_MAX):
                self._journal.truncate(self._journal.head())
                usage = self._journal.usage()
                if usage.bytes + full.needed_bytes <= usage.bytes_max:
                    return True
                if not self._help_oldest():
                    return False
        return False

    def _help_oldest(self) -> bool:
        """Let the one that holds the oldest entries hold fewer; false if there is nobody."""
        journal = self._journal
        holders = journal.cursors() | journal.holds()
        if not holders or min(holders.values()) >= journal.head():
            return False
        oldest = min(holders.values())
        # A new snapshot costs nobody anything, so it is tried before anyone is let go of.
        if holders.get(SNAPSHOTS_CURSOR) == oldest:
            return self._snapshot()
        name = next(name for name, seq in sorted(holders.items()) if seq == oldest)
        standing = self._postgresql.standing
        if name == POSTGRESQL_CURSOR and standing.following and standing.applied_seq > oldest:
            # It is farther than the journal was told at the last round of housekeeping.
            journal.set_cursor(name, standing.applied_seq)
            return True
        if self._full_of_operations():
            return False
        log.error(
            "store_detached",
            holder=name,
            applied_seq=oldest,
            why="the journal reached its size limit (journal.size_bytes_max)",
            next="shadow backfill",
        )
        if name == POSTGRESQL_CURSOR:
            journal.drop_cursor(name)
        else:
            journal.release(name)
        return True

    def _full_of_operations(self) -> bool:
        """Whether to let everyone go would leave the journal near its limit all the same."""
        now = time.monotonic()
        if now >= self._weigh_at:
            self._weigh_at = now + WEIGHED_AGAIN_S
            share = self._journal.operations_bytes() / self._journal.usage().bytes_max
            self._operations_fill_it = share >= WARNING_SHARE
        return self._operations_fill_it

    def _snapshot(self) -> bool:
        self._faiss.follow()
        try:
            made = self._snapshots.make(
                self._faiss.store, reloads=self._faiss.reloads, wait=True, alone=True
            )
        except StoreUnavailable:
            return False
        return made is not None
