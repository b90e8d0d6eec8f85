"""Many readers or one writer, with the writer never starved and the reader's path kept short."""

from __future__ import annotations

import threading

__all__ = ["Gate"]


class Gate:
    """A readers-writer lock: readers ``enter`` and ``leave``, a writer holds it alone by ``with gate:``.

    Writers must already be serialised by the caller.

    A writer closes the gate, so that new readers queue behind it, and waits only for the searches
    that are already inside. Readers must not nest: a second ``enter`` behind a closed gate would wait
    for itself.

    A reader takes no lock while the gate is open: it signs in (appending to a list is atomic) and
    *then* looks whether the gate is closed; the writer closes the gate and *then* looks who is inside.
    Whichever comes second sees the other.
    """

    __slots__ = ("_closed", "_idle", "_inside", "_passage")

    def __init__(self) -> None:
        self._inside: list[None] = []
        self._closed = False
        self._passage = threading.Lock()
        self._idle = threading.Condition()

    def enter(self) -> None:
        """Begin to read. Not a context manager: this is on the path of every query."""
        self._inside.append(None)
        if self._closed:
            self.leave()
            # Who signs in while holding the passage is inside: the next writer has to wait for it.
            with self._passage:
                self._inside.append(None)

    def leave(self) -> None:
        """End reading, and wake the writer that may wait for it."""
        self._inside.pop()
        if self._closed:
            with self._idle:
                self._idle.notify()

    def __enter__(self) -> None:
        self._passage.acquire()
        self._closed = True
        try:
            with self._idle:
                while self._inside:
                    self._idle.wait()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self._closed = False
        self._passage.release()
