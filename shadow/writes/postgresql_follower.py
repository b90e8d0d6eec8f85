"""PostgreSQL follows the journal: whoever is first applies the next entries, in order.

It is shared: its cursor is read inside its lock, so that any number of processes may try at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from shadow.errors import PoisonEntry
from shadow.events import EventLog
from shadow.writes.journal import Journal
from vectorstore.errors import InvalidInput, StoreUnavailable, VectorStoreError
from vectorstore.types import Change

if TYPE_CHECKING:
    from vectorstore.postgres.cursor import Cursor
    from vectorstore.postgres.store import PostgresStore

__all__ = ["PostgresqlFollower", "PostgresqlLink", "PostgresqlStanding"]

# For so long a writer takes it that the table still stands where it was last seen to. What it then
# sends is refused by the table itself if that is not so.
LOOK_AGE_S_MAX = 1.0

log = EventLog()


class Opener(Protocol):
    """Opens the PostgreSQL store, which may take as long as connecting takes, and cleans up."""

    def open(self) -> PostgresStore: ...

    def close(self) -> None: ...


class PostgresqlLink:
    """The PostgreSQL store, which may not be there yet: a router starts without its shadow."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._lock = threading.Lock()
        self._store: PostgresStore | None = None
        self._why = "it has not been opened yet"

    def store(self) -> PostgresStore:
        """The open store, or StoreUnavailable at once: never waits for a connection."""
        store = self._store
        if store is None:
            raise StoreUnavailable(f"PostgreSQL is not available: {self._why}")
        return store

    def open(self) -> PostgresStore:
        """The open store, opening it if need be; raises what opening raises."""
        with self._lock:
            if self._store is None:
                try:
                    self._store = self._opener.open()
                except Exception as error:
                    self._why = str(error)
                    raise
            return self._store

    def close(self) -> None:
        """Close the store if it was opened."""
        with self._lock:
            store, self._store, self._why = self._store, None, "it was closed"
        if store is not None:
            store.close()
        self._opener.close()


@dataclass(frozen=True, slots=True)
class PostgresqlStanding:
    """How PostgreSQL stands to the journal, as this process last saw it.

    ``state``: the cursor's state, ``unavailable``, or ``foreign`` (it follows another history than
    this journal's). ``halted``: why its applier stopped for good. ``asked``: false until the first
    attempt to ask it has ended.
    """

    state: str
    applied_seq: int
    halted: str | None = None
    error: str | None = None
    asked: bool = True

    @property
    def following(self) -> bool:
        """Whether PostgreSQL holds a complete copy that follows the journal."""
        return self.state in ("following", "final") and self.halted is None

    @property
    def counts(self) -> bool:
        """Whether ``applied_seq`` counts in this journal: as last seen, if it cannot be asked now."""
        return self.state in ("following", "final") or (
            self.state == "unavailable" and self.applied_seq > 0
        )

    def lost(self, why: str) -> PostgresqlStanding:
        """The same when it cannot be reached any more, or does not fit."""
        applied_seq = self.applied_seq if self.counts else 0
        return PostgresqlStanding("unavailable", applied_seq, self.halted, why)


class PostgresqlFollower:
    """Applies the journal to PostgreSQL in batches; each batch and its cursor are one transaction."""

    def __init__(self, journal: Journal, link: PostgresqlLink, *, batch_max: int) -> None:
        self._journal = journal
        self._link = link
        self._batch_max = batch_max
        self._lock = threading.Lock()
        self._bound: PostgresStore | None = None
        self._looked_at = -LOOK_AGE_S_MAX
        self._mark: int | None = None
        self._poison_seq = 0
        self.standing = PostgresqlStanding("unavailable", 0, asked=False)

    def lost(self, why: str) -> None:
        """Take note that PostgreSQL cannot be reached or does not fit."""
        with self._lock:
            self.standing = self.standing.lost(why)

    def look(self) -> PostgresqlStanding:
        """Read the cursor from the server."""
        base = self._journal.base()
        try:
            cursor = self._link.open().cursor()
        except VectorStoreError as error:
            self.standing = self.standing.lost(str(error))
        else:
            self.standing = self._stands(cursor, base)
        return self.standing

    def _stands(self, cursor: Cursor, base: int) -> PostgresqlStanding:
        """What a cursor means here: a copy of another history is no copy, whatever it says.

        ``base`` was read before the cursor, so that what was truncated meanwhile does not count.
        """
        # A backfill, or a process that was started after the row was mended, may have passed it.
        halted = self.standing.halted if cursor.seq < self._poison_seq else None
        state, why = cursor.state, None
        if state == "detached":
            why = (
                "it was let go of, at the size limit of the journal or by a restore without rows: run "
                "`shadow backfill`"
            )
        elif state in ("following", "final"):
            why = self._foreign(cursor)
            if why is None and state == "following" and cursor.seq < base:
                why = f"the writes after {cursor.seq} are no longer in the journal"
            if why is not None:
                why += ": one of the two was restored or replaced; run `shadow backfill`"
                return PostgresqlStanding("foreign", cursor.seq, halted, why)
        return PostgresqlStanding(state, cursor.seq, halted, why)

    def _foreign(self, cursor: Cursor) -> str | None:
        """Why what the table has applied is not what this journal holds; ``None`` if it is."""
        journal = self._journal
        if cursor.incarnation != journal.incarnation:
            return f"it follows the journal {cursor.incarnation or '(none)'}, not {journal.incarnation}"
        if cursor.state == "final":
            return None if journal.sealed() else "it was finalized, and this journal was not"
        if cursor.seq > journal.head():
            return f"it has applied write {cursor.seq}, which this journal never had"
        mark = journal.mark_at(cursor.seq)
        if mark is not None and cursor.mark is not None and mark != cursor.mark:
            return f"its write {cursor.seq} is another one than this journal's"
        return None

    def is_level(self, head: int) -> bool:
        """Whether PostgreSQL had applied everything up to ``head`` when it was last looked at, just now."""
        standing = self.standing
        fresh = time.monotonic() - self._looked_at < LOOK_AGE_S_MAX
        return fresh and standing.state == "following" and standing.applied_seq >= head

    def follow(
        self,
        *,
        upto: int | None = None,
        deadline: float | None = None,
        own: Sequence[Change] = (),
    ) -> int:
        """Apply entries until PostgreSQL reaches ``upto`` (default: the head); return the applied seq.

        ``own``: entries that the caller has just appended, which need not be read back. Raises
        StoreUnavailable when the server does not answer. A poison entry halts this applier and
        raises PoisonEntry: it is never skipped. With a ``deadline`` (monotonic seconds) nothing waits
        longer than until then, neither for the server nor for another thread that is at it.
        """
        if not self._lock.acquire(timeout=-1.0 if deadline is None else _left_s(deadline)):
            return self.standing.applied_seq
        try:
            standing = self.standing
            if upto is not None and standing.following and standing.applied_seq >= upto:
                # Another thread's batch had it while this one waited.
                return standing.applied_seq
            return self._follow(upto, deadline, own)
        except VectorStoreError:
            self._looked_at = -LOOK_AGE_S_MAX
            raise
        finally:
            self._lock.release()

    def _follow(self, upto: int | None, deadline: float | None, own: Sequence[Change]) -> int:
        if self.standing.halted is not None:
            raise PoisonEntry(self.standing.halted)
        store = self._link.open() if deadline is None else self._link.store()
        known = self._bound is store and self.standing.state == "following"
        if deadline is not None and known and time.monotonic() - self._looked_at < LOOK_AGE_S_MAX:
            return self._bring(store, self.standing.applied_seq, upto, deadline, own)
        base = self._journal.base()
        cursor = store.cursor(timeout_ms=_left_ms(deadline))
        self.standing = self._stands(cursor, base)
        if self._bound is not store and self.standing.state == "following":
            cursor = store.bind(self._journal.incarnation)
            self._bound = store
            self.standing = self._stands(cursor, base)
        applied = cursor.seq
        if self.standing.state != "following":
            if deadline is None and self._left_behind(cursor, base):
                self.standing = self._stands(store.detach(), base)
            return applied
        self._looked_at = time.monotonic()
        self._mark = self._journal.mark_at(applied)
        return self._bring(store, applied, upto, deadline, own)

    def _bring(
        self,
        store: PostgresStore,
        applied: int,
        upto: int | None,
        deadline: float | None,
        own: Sequence[Change],
    ) -> int:
        """Apply what follows ``applied``, in batches."""
        while upto is None or applied < upto:
            changes = own[: self._batch_max]
            if not own or own[0].seq != applied + 1:
                changes = self._journal.read(applied, self._batch_max)
            if not changes:
                break
            applied = self._apply(store, changes, _left_ms(deadline))
            # It may have been farther than these entries, on one whose mark is not known here.
            self._mark = changes[-1].mark if applied == changes[-1].seq else None
            self.standing = PostgresqlStanding("following", applied)
            if deadline is not None and time.monotonic() > deadline:
                break
        return applied

    def _left_behind(self, cursor: Cursor, base: int) -> bool:
        """Whether the table follows this history, but the journal was truncated beyond it."""
        return cursor.state == "following" and cursor.seq < base and self._foreign(cursor) is None

    def _apply(
        self, store: PostgresStore, changes: Sequence[Change], timeout_ms: float | None
    ) -> int:
        try:
            return store.apply(changes, after_mark=self._mark, timeout_ms=timeout_ms)
        except InvalidInput as error:
            if len(changes) > 1:
                # What comes before the one that is refused is applied, and that one is named.
                for change in changes:
                    self._apply(store, [change], timeout_ms)
                    self._mark = change.mark
                return changes[-1].seq
            poison = changes[0]
            why = (
                f"PostgreSQL refuses the journal's entry {poison.seq} (id {poison.id!r}): {error}. Its "
                "applier has stopped before it and skips nothing. Mend what refuses it and restart, or "
                "fill the table anew by `shadow backfill`"
            )
            self._poison_seq = poison.seq
            self.standing = PostgresqlStanding("following", poison.seq - 1, halted=why)
            log.error("applier_halted", store="postgresql", why=why)
            raise PoisonEntry(why) from error


def _left_s(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())


def _left_ms(deadline: float | None) -> float | None:
    return None if deadline is None else _left_s(deadline) * 1e3
