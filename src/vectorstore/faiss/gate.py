"""Many readers or one writer, with the writer never starved and the reader's path kept short."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Gate"]


class Gate:
    """A readers-writer lock. Writers must already be serialised by the caller.

    A waiting writer closes the entry, so that new readers queue behind it; it waits only for the
    searches that are already running. Readers must not nest: a second ``enter`` behind a waiting
    writer would wait for itself.
    """

    __slots__ = ("_counting", "_entry", "_idle", "_readers")

    def __init__(self) -> None:
        self._entry = threading.Lock()
        self._counting = threading.Lock()
        self._idle = threading.Condition(self._counting)
        self._readers = 0

    def enter(self) -> None:
        """Begin to read. Not a context manager: this is on the path of every query."""
        with self._entry, self._counting:
            self._readers += 1

    def leave(self) -> None:
        """End reading, and wake the writer if this was the last reader."""
        with self._counting:
            self._readers -= 1
            if not self._readers:
                self._idle.notify()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the store alone for the length of the block."""
        with self._entry:
            with self._counting:
                while self._readers:
                    self._idle.wait()
            yield
