"""The two stores follow the journal: FAISS in every process, PostgreSQL by whoever is first.

Entries are applied in seq order. FAISS is this process's own copy in memory. PostgreSQL is shared: its
cursor is read inside its advisory lock, so that any number of processes may try at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from shadow.errors import JournalGap
from shadow.writes.journal import Journal
from vectorstore.errors import InvalidInput, StoreCorrupt, StoreUnavailable
from vectorstore.types import Change

if TYPE_CHECKING:
    from vectorstore.faiss.store import FaissStore
    from vectorstore.postgres.cursor import Cursor
    from vectorstore.postgres.store import PostgresStore

__all__ = ["FaissFollower", "PostgresqlFollower", "PostgresqlLink", "PostgresqlStanding"]

READ_ENTRIES_MAX = 1_000

log = structlog.get_logger("shadow")


class FaissFollower:
    """Keeps this process's FAISS copy at the head of the journal."""

    def __init__(
        self, journal: Journal, store: FaissStore, *, reload: Callable[[], FaissStore]
    ) -> None:
        self._journal = journal
        self._reload = reload
        self._lock = threading.Lock()
        self.store = store

    def follow(self) -> int:
        """Apply what the journal has and this copy lacks; return the applied seq.

        A copy that slept past a truncation is replaced by the newest snapshot.
        """
        with self._lock:
            return self._follow()

    def apply_own(self, changes: Sequence[Change]) -> int:
        """Apply changes that this process has just appended, without reading them back."""
        with self._lock:
            if self.store.applied_seq() == changes[0].seq - 1:
                return self.store.apply(changes)
            return self._follow()

    def _follow(self) -> int:
        applied = self.store.applied_seq()
        while True:
            try:
                changes = self._journal.read(applied, READ_ENTRIES_MAX)
            except JournalGap:
                log.warning("faiss_reload", applied_seq=applied, why="slept past a truncation")
                self.store = self._reload()
                applied = self.store.applied_seq()
                continue
            if not changes:
                return applied
            applied = self.store.apply(changes)


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
    this journal's). ``halted``: why its applier stopped for good.
    """

    state: str
    applied_seq: int
    halted: str | None = None
    error: str | None = None

    @property
    def following(self) -> bool:
        """Whether PostgreSQL holds a complete copy that follows the journal."""
        return self.state in ("following", "final") and self.halted is None


class PostgresqlFollower:
    """Applies the journal to PostgreSQL in batches; each batch and its cursor are one transaction."""

    def __init__(self, journal: Journal, link: PostgresqlLink, *, batch_max: int) -> None:
        self._journal = journal
        self._link = link
        self._batch_max = batch_max
        self._lock = threading.Lock()
        self._bound: PostgresStore | None = None
        self.standing = PostgresqlStanding("unavailable", 0)

    def lost(self, why: str) -> None:
        """Take note that PostgreSQL cannot be reached or does not fit."""
        with self._lock:
            before = self.standing
            self.standing = PostgresqlStanding(
                "unavailable", before.applied_seq, before.halted, why
            )

    def look(self) -> PostgresqlStanding:
        """Read the cursor from the server."""
        base = self._journal.base()
        try:
            cursor = self._link.open().cursor()
        except (StoreUnavailable, StoreCorrupt) as error:
            self.standing = PostgresqlStanding(
                "unavailable", self.standing.applied_seq, self.standing.halted, str(error)
            )
        else:
            self.standing = self._stands(cursor, base)
        return self.standing

    def _stands(self, cursor: Cursor, base: int) -> PostgresqlStanding:
        """What a cursor means here: a copy of another history is no copy, whatever it says.

        ``base`` was read before the cursor, so that what was truncated meanwhile does not count.
        """
        halted = self.standing.halted
        if cursor.state == "following":
            why = None
            if cursor.incarnation != self._journal.incarnation:
                why = f"it follows the journal {cursor.incarnation}, not {self._journal.incarnation}"
            elif cursor.seq > self._journal.head():
                why = f"it has applied write {cursor.seq}, which this journal never had"
            elif cursor.seq < base:
                why = f"the writes after {cursor.seq} are no longer in the journal"
            if why is not None:
                why += ": one of the two was restored or replaced; run `shadow backfill`"
                return PostgresqlStanding("foreign", cursor.seq, halted, why)
        return PostgresqlStanding(cursor.state, cursor.seq, halted)

    def follow(self, *, upto: int | None = None, deadline: float | None = None) -> int:
        """Apply entries until PostgreSQL reaches ``upto`` (default: the head); return the applied seq.

        Stops early at ``deadline`` (monotonic seconds). Raises StoreUnavailable when the server does
        not answer. A poison entry halts this applier and raises StoreCorrupt: it is never skipped.
        """
        with self._lock:
            if self.standing.halted is not None:
                raise StoreCorrupt(self.standing.halted)
            store = self._link.open() if deadline is None else self._link.store()
            base = self._journal.base()
            cursor = store.cursor()
            self.standing = self._stands(cursor, base)
            if self._bound is not store and cursor.state != "final":
                cursor = store.bind(self._journal.incarnation)
                self._bound = store
                self.standing = self._stands(cursor, base)
            applied = cursor.seq
            if self.standing.state != "following":
                return applied
            while upto is None or applied < upto:
                changes = self._journal.read(applied, self._batch_max)
                if not changes:
                    break
                applied = self._apply(store, changes)
                self.standing = PostgresqlStanding("following", applied)
                if deadline is not None and time.monotonic() > deadline:
                    break
            return applied

    def _apply(self, store: PostgresStore, changes: Sequence[Change]) -> int:
        try:
            return store.apply(changes)
        except InvalidInput as error:
            why = (
                f"PostgreSQL refuses a journal entry between {changes[0].seq} and {changes[-1].seq}: "
                f"{error}. Its applier has stopped and skips nothing; mend the row and restart, or "
                "run `shadow backfill` again"
            )
            self.standing = PostgresqlStanding("following", changes[0].seq - 1, halted=why)
            log.error("applier_halted", store="postgresql", why=why)
            raise StoreCorrupt(why) from error
