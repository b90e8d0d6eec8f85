"""Many readers or one writer, with the writer never starved and the reader's path kept short."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

__all__ = ["Gate"]

T = TypeVar("T")

LOOK_S = 0.1


class Gate:
    """A readers-writer lock: any number ``read`` at once, a writer works ``alone``.

    A writer closes the gate, so that new readers queue behind it, and waits only for the searches
    that are already inside. Readers must not nest: a second one behind a closed gate would wait for
    itself.

    A reader takes no lock while the gate is open: it signs in (adding to a set is atomic) and *then*
    looks whether the gate is closed; the writer closes the gate and *then* looks who is inside.
    Whichever comes second sees the other.

    Signal handlers that raise (Ctrl-C, a task's time limit) leave nothing locked wherever they strike:
    Python runs them when a function begins or a call has returned, so signing out, opening and
    unlocking are the first thing that a ``finally`` or a ``with`` does, without a function of Python's
    (as those of a Condition are).
    """

    __slots__ = ("_bell", "_closed", "_inside", "_passage")

    def __init__(self) -> None:
        self._inside: set[object] = set()
        self._closed = False
        self._passage = threading.Lock()
        # Held until a reader that leaves a closed gate lets go of it.
        self._bell = threading.Lock()
        self._bell.acquire()

    def read(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, with no writer at work meanwhile."""
        inside, me = self._inside, object()
        try:
            inside.add(me)
            if self._closed:
                self._queue(me)
            return work()
        finally:
            inside.discard(me)
            if self._closed:
                self._ring()

    def alone(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, with nobody else inside meanwhile."""
        with self._passage:
            try:
                self._closed = True
                while self._inside:
                    # A reader that was broken off after it signed out could not ring.
                    self._bell.acquire(timeout=LOOK_S)
                return work()
            finally:
                self._closed = False

    def _queue(self, me: object) -> None:
        self._inside.discard(me)
        self._ring()
        # Who signs in while holding the passage is inside: the next writer has to wait for it.
        with self._passage:
            self._inside.add(me)

    def _ring(self) -> None:
        """Wake the writer that may wait for the last reader to leave."""
        # It rings already if another reader left just now.
        with suppress(RuntimeError):
            self._bell.release()
