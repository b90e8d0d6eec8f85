"""The way of a write: into the journal, whose commit is the acknowledgement, and then to the stores.

What several threads write at once is one group: one of them commits it, brings all of it to this process's
FAISS copy, and to PostgreSQL too if that is what answers, and then the others return. So a writer reads its
own write, and pays for its stores no more than its share of the group.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from shadow.apart import Apart
from shadow.breaker import Breaker
from shadow.core.phases import Route
from shadow.errors import JournalFull, JournalSealed
from shadow.events import EventLog
from shadow.lag import LagClock
from shadow.writes.faiss_follower import FaissFollower
from shadow.writes.journal import Appended, Journal
from shadow.writes.own_writes import OwnWrites
from shadow.writes.postgresql_follower import PostgresqlFollower
from vectorstore.errors import StoreUnavailable
from vectorstore.types import Change, Record

__all__ = ["Entries", "WritePath"]

# A writer brings its own write to PostgreSQL when that is what answers; it does not wait longer.
APPLY_OWN_MS_MAX = 500.0

Entries = Sequence[tuple[str, Record | None]]

log = EventLog()


class WritePath:
    """Takes the writes of one process. ``acknowledged`` is the highest seq that it returned."""

    def __init__(
        self,
        *,
        journal: Journal,
        faiss: FaissFollower,
        postgresql: PostgresqlFollower,
        own_writes: OwnWrites,
        lag: LagClock,
        route: Callable[[], Route],
        breaker: Breaker,
        on_write: Callable[[], None],
        on_full: Callable[[JournalFull], bool],
    ) -> None:
        """``breaker`` is PostgreSQL's. ``on_write`` is called for what PostgreSQL must still be brought,
        ``on_full`` makes room in the journal and says whether it did."""
        self._journal = journal
        self._faiss = faiss
        self._postgresql = postgresql
        self._own_writes = own_writes
        self._lag = lag
        self._route = route
        self._breaker = breaker
        self._on_write = on_write
        self._on_full = on_full
        self._lock = threading.Lock()
        self._apart = Apart("shadow-writer")
        self.acknowledged = 0
        journal.on_commit(lambda changes: self._bring(changes[-1].seq, changes))

    def write(self, entries: Entries, op_id: str | None) -> int:
        """Make the entries durable and return the seq of the last. Raises what the journal raises."""
        return self._apart.run(lambda: self._write(entries, op_id))

    def close(self) -> None:
        """End the thread that writes for the main thread."""
        self._apart.close()

    def _write(self, entries: Entries, op_id: str | None) -> int:
        try:
            appended = self._append(entries, op_id)
        except JournalSealed:
            seq = self._own_writes.write(entries)
        else:
            seq = appended.last_seq
            if appended.replayed:
                self._bring(seq)
        # Returning is the acknowledgement: until then no other reader's floor may ask for this write.
        # (One that PostgreSQL took by itself FAISS does not have: it may answer no more here.)
        with self._lock:
            self.acknowledged = max(self.acknowledged, seq)
        return seq

    def _append(self, entries: Entries, op_id: str | None) -> Appended:
        try:
            return self._journal.append(entries, op_id=op_id)
        except JournalFull as full:
            if not self._on_full(full):
                raise
        return self._journal.append(entries, op_id=op_id)

    def _bring(self, seq: int, own: Sequence[Change] = ()) -> None:
        """Bring the stores to the write ``seq``, the last of ``own`` if these were committed just now.

        Never raises: the writes are durable, and what fails here is caught up by the followers.
        """
        self._lag.raise_to(seq)
        try:
            if own:
                self._faiss.apply_own(own)
            else:
                self._faiss.follow()
            if self._bring_to_postgresql(seq, own):
                return
        except Exception as error:  # noqa: BLE001 - a store's failure is not the write's
            log.warning("apply_later", error=f"{type(error).__name__}: {error}")
        self._on_write()

    def _bring_to_postgresql(self, seq: int, own: Sequence[Change]) -> bool:
        """Whether PostgreSQL, if it answers, has the write ``seq`` now, the last of ``own``."""
        if self._route().postgresql_share <= 0:
            return False
        # A breaker that is open belongs to the readers: the one trial per pause must be theirs.
        if self._breaker.is_open or not self._postgresql.standing.following:
            return False
        deadline = time.monotonic() + APPLY_OWN_MS_MAX / 1e3
        try:
            return self._postgresql.follow(upto=seq, deadline=deadline, own=own) >= seq
        except StoreUnavailable:
            self._breaker.failed()
            raise
