"""A collection that many read beside one writer: its locks, how far it is, and whether it is of use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from vectorstore.errors import StoreUnavailable
from vectorstore.faiss.bitmap import Bitmap
from vectorstore.faiss.collection import Collection, Pending
from vectorstore.faiss.compaction import changes_of, compacted
from vectorstore.faiss.gate import Gate
from vectorstore.faiss.index_file import index_written
from vectorstore.filters import Filter
from vectorstore.types import check_ms

__all__ = ["APPLY_BLOCK", "Guarded"]

T = TypeVar("T")

APPLY_BLOCK = 64
"""Changes applied under one exclusive hold: searches get in between the blocks."""

CATCHING_UP_MAX = 8
"""How many times a rebuild brings over what was written, before it holds writes off for the rest."""

CLOSED = "is closed"
BROKEN = "was broken off in the middle of a change, and is of no use any more: load it anew"


class Guarded:
    """What the store stands on: every way to its collection goes through here.

    Searches run beside each other and beside the preparation of a write; only the mutation itself
    holds them off.
    """

    def __init__(self, collection: Collection, applied_seq: int) -> None:
        """Guard a collection that has applied entries up to ``applied_seq``."""
        self._collection = collection
        self._seq = applied_seq
        self._unusable: str | None = None
        self._gate = Gate()
        self._writing = threading.RLock()
        # Taken before the lock above: a rebuild goes on while writes do.
        self._rebuilding = threading.Lock()
        self._ordering = threading.Lock()
        self._finding = threading.Lock()
        # Ids that were written since a rebuild began, if one is under way.
        self._changed: set[str] | None = None

    def applied_seq(self, *, timeout_ms: float | None = None) -> int:
        check_ms("timeout_ms", timeout_ms)
        # No need to enter: it changes last, once what it tells of is in place.
        self._usable()
        return self._seq

    @property
    def broken(self) -> bool:
        """Whether a change was broken off halfway: the copy answers no more and must be loaded anew."""
        return self._unusable == BROKEN

    def compact(self) -> int:
        """Rebuild without tombstones and return how many there were.

        Searches and writes go on meanwhile. What was written is brought over block by block, and only
        the last of it holds writes off: a block, if the rebuild is the faster of the two.
        """
        with self._rebuilding:
            with self._writing:
                dead = self._usable().rows.tombstones
                if not dead:
                    return 0
                self._changed = set()
            try:
                fresh = compacted(self._read)
                for _ in range(CATCHING_UP_MAX):
                    if len(self._changed) <= APPLY_BLOCK:
                        break
                    self._bring_over(fresh)
                with self._writing:
                    self._bring_over(fresh)
                    fresh.index.breadth = self._usable().index.breadth
                    self._exchange(fresh)
            finally:
                self._changed = None
            return dead

    def _bring_over(self, fresh: Collection) -> None:
        """Write to ``fresh`` what was changed since the last call, as it is now."""
        changed = self._read(lambda _: self._take_changed())
        for start in range(0, len(changed), APPLY_BLOCK):
            block = changed[start : start + APPLY_BLOCK]
            fresh.write(self._read(partial(changes_of, block)))

    def _take_changed(self) -> list[str]:
        changed, self._changed = self._changed, set()
        return list(changed or ())

    @contextmanager
    def frozen(self) -> Iterator[tuple[Collection, int]]:
        """The collection and its seq with writes held off; searches go on."""
        with self._writing:
            yield self._usable(), self._seq

    @contextmanager
    def written(self, path: Path) -> Iterator[tuple[Collection, int]]:
        """The same, and once it has ended the index of that seq is in a file: see :mod:`index_file`."""
        with self._rebuilding, index_written(path, self._read, self.frozen) as held:
            yield held

    def _read(self, ask: Callable[[Collection], T]) -> T:
        """What ``ask`` makes of the collection, with writes held off."""
        return self._gate.read(lambda: ask(self._usable()))

    def _matching(self, filter: Filter | None, ask: Callable[[Collection, Bitmap | None], T]) -> T:
        """What ``ask`` makes of the collection and the rows that the filter allows."""
        if filter is None:
            return self._gate.read(lambda: ask(self._usable(), None))

        def known(collection: Collection) -> tuple[T] | None:
            only = collection.rows.mask(filter)
            return None if only is None else (ask(collection, only),)

        found = self._read(known)
        if found is not None:
            return found[0]

        def worked_out(collection: Collection) -> tuple[T] | None:
            # Whoever was before may have asked for the same.
            only = collection.rows.mask(filter)
            if only is None:
                only = collection.rows.remember(filter)
            return None if only is None else (ask(collection, only),)

        # Block by block: matching every row takes long, and a reader that stays inside holds off the
        # writer and, behind it, all readers. A rebuild begins anew.
        with self._finding:
            while (found := self._read(worked_out)) is None:
                pass
        return found[0]

    def _page(self, after: str, limit: int, ask: Callable[[Collection, list[str]], T]) -> T:
        """What ``ask`` makes of the collection and the ids that follow ``after``."""

        def page(collection: Collection) -> tuple[T] | None:
            ids = collection.rows.following(after, limit)
            return None if ids is None else (ask(collection, ids),)

        while (found := self._read(page)) is None:
            # Block by block, for the same reason as an exact scan. A rebuild begins anew.
            with self._ordering:
                while self._read(lambda collection: collection.rows.order_more()):
                    pass
        return found[0]

    def _write(self, changes: Sequence[Pending], seq: int) -> None:
        """Change the rows; the seq applied is then ``seq``."""

        def change() -> None:
            collection = self._usable()
            try:
                # Read once: a rebuild that fails ends meanwhile.
                changed = self._changed
                if changed is not None:
                    changed.update(change[0] for change in changes)
                collection.write(changes)
                self._seq = seq
            except BaseException:
                # No memory, or a signal's handler: index and rows may be out of step, and each vector
                # after that would be another record's. Not before: who asks how far it is, does not wait.
                self._unusable = BROKEN
                raise

        self._gate.alone(change)

    def _retire(self, empty: Collection) -> None:
        """Let go of the collection for good; every call is refused from now on."""
        with self._writing:
            self._unusable = CLOSED
            self._exchange(empty)

    def _exchange(self, collection: Collection) -> None:
        self._gate.alone(lambda: setattr(self, "_collection", collection))

    def _usable(self) -> Collection:
        if self._unusable is not None:
            raise StoreUnavailable(f"the faiss store {self._unusable}")
        return self._collection
