"""FAISS follows the journal: each process applies every entry, in order, to its own copy in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from shadow.errors import JournalGap
from shadow.events import EventLog
from shadow.writes.journal import Journal
from vectorstore.errors import StoreCorrupt, StoreUnavailable
from vectorstore.types import Change

if TYPE_CHECKING:
    from vectorstore.faiss.store import FaissStore

__all__ = ["FaissFollower", "require_copy"]

READ_ENTRIES_MAX = 1_000

log = EventLog()


class FaissFollower:
    """Keeps this process's FAISS copy at the head of the journal.

    ``reloads`` is the count of the journal's when the copy was loaded: when it has risen since, a
    repair put a better snapshot in place, and the copy is loaded anew from that.
    """

    def __init__(
        self,
        journal: Journal,
        store: FaissStore,
        *,
        reload: Callable[[], FaissStore],
        reloads: int | None = None,
    ) -> None:
        self._journal = journal
        self._reload = reload
        self._lock = threading.Lock()
        self._reloading = threading.Lock()
        self.reloads = journal.reloads() if reloads is None else reloads
        self.store = store

    def follow(self) -> int:
        """Apply what the journal has and this copy lacks; return the applied seq.

        A copy that slept past a truncation, or in which a change was broken off, is replaced by the
        newest snapshot. Raises StoreCorrupt if no snapshot reaches what the journal still holds.
        """
        reloads, head = self._journal.reloads_and_head()
        if reloads != self.reloads:
            self._replace()
        with self._lock:
            if not self.store.broken and self.store.applied_seq() == head:
                return head
            return self._follow()

    def apply_own(self, changes: Sequence[Change]) -> int:
        """Apply changes that this process has just appended, without reading them back."""
        with self._lock:
            if not self.store.broken and self.store.applied_seq() == changes[0].seq - 1:
                return self.store.apply(changes)
            return self._follow()

    def _replace(self) -> None:
        """Load another copy while this one goes on answering, then change over."""
        with self._reloading:
            reloads = self._journal.reloads()
            if reloads == self.reloads:
                return
            log.warning("faiss_reload", why="a repair asked for it")
            fresh = self._reload()
            _bring_to_head(self._journal, fresh)
            with self._lock:
                self.store = fresh
                self.reloads = reloads

    def _follow(self) -> int:
        why = "a change of it was broken off"
        if not self.store.broken:
            try:
                return _bring_to_head(self._journal, self.store)
            except JournalGap:
                why = f"slept at write {self.store.applied_seq()} past a truncation"
        log.warning("faiss_reload", why=why)
        fresh = self._reload()
        try:
            applied = _bring_to_head(self._journal, fresh)
        except JournalGap as error:
            raise StoreCorrupt(
                f"the newest whole snapshot reaches write {fresh.applied_seq()}, and the journal no "
                f"longer holds the writes after it ({error}). Nothing was applied: go back to a backup "
                "with `shadow restore`"
            ) from error
        self.store = fresh
        return applied


def require_copy(faiss: FaissFollower, copy: FaissStore) -> None:
    """Raise StoreUnavailable if the follower has another copy by now than the one that was mended."""
    if faiss.store is not copy:
        raise StoreUnavailable(
            "another copy of FAISS was put in place while records were put right, so that what was done to "
            "this one is lost; repair again"
        )


def _bring_to_head(journal: Journal, store: FaissStore) -> int:
    applied = store.applied_seq()
    while changes := journal.read(applied, READ_ENTRIES_MAX):
        applied = store.apply(changes)
    return applied
