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

    ``state``: the cursor's state, or ``unavailable``. ``halted``: why its applier stopped for good.
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
        try:
            cursor = self._link.open().cursor()
        except (StoreUnavailable, StoreCorrupt) as error:
            self.standing = PostgresqlStanding(
                "unavailable", self.standing.applied_seq, self.standing.halted, str(error)
            )
        else:
            self.standing = PostgresqlStanding(cursor.state, cursor.seq, self.standing.halted)
        return self.standing

    def follow(self, *, upto: int | None = None, deadline: float | None = None) -> int:
        """Apply entries until PostgreSQL reaches ``upto`` (default: the head); return the applied seq.

        Stops early at ``deadline`` (monotonic seconds). Raises StoreUnavailable when the server does
        not answer. A poison entry halts this applier and raises StoreCorrupt: it is never skipped.
        """
        with self._lock:
            if self.standing.halted is not None:
                raise StoreCorrupt(self.standing.halted)
            store = self._link.open() if deadline is None else self._link.store()
            cursor = store.cursor()
            applied = cursor.seq
            self.standing = PostgresqlStanding(cursor.state, applied)
            if cursor.state != "following":
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
