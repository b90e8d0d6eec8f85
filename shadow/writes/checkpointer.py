"""Keeps the journal's log short from a thread of its own, off the path of the writers."""

from __future__ import annotations

import logging
import threading

from shadow.writes.journal_file import JournalFile
from vectorstore.errors import VectorStoreError

__all__ = ["Checkpointer"]

CHECKPOINT_EVERY_BYTES = 2 << 20

log = logging.getLogger(__name__)


class Checkpointer:
    """Makes a checkpoint after every ``CHECKPOINT_EVERY_BYTES`` that this process wrote.

    What others left in the log counts as well: processes that are killed again and again before they have
    written so much would let it grow for ever.
    """

    def __init__(self, file: JournalFile) -> None:
        self._file = file
        self._written_bytes = file.log_bytes()
        self._due = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def wrote(self, size_bytes: int) -> None:
        """Count what was committed. Called by one thread at a time; starts the thread when needed."""
        self._written_bytes += size_bytes
        if self._written_bytes < CHECKPOINT_EVERY_BYTES or self._stopping:
            return
        self._written_bytes = 0
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="journal-checkpoint", daemon=True
            )
            self._thread.start()
        self._due.set()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopping = True
        self._due.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while self._due.wait() and not self._stopping:
            self._due.clear()
            try:
                if not self._file.checkpoint():
                    log.info("journal checkpoint incomplete: other processes kept the log busy")
            except VectorStoreError as error:
                # The log keeps everything until a later checkpoint succeeds; appends say if it cannot.
                # Whatever it was (no room, no file descriptor), the thread has to outlive it.
                log.warning("journal checkpoint failed: %s", error)
