"""Live traffic: farmers who ask and an editor who writes, for as long as the demonstration lasts.

Everything that is answered, failed, written or missed is counted, so that the summary can say it.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from farming_guide.embeddings import Embedder
from vectorstore.errors import VectorStoreError
from vectorstore.port import VectorStore
from vectorstore.types import Query, Record, Vector

__all__ = ["Tallies", "Traffic"]

TOP_K = 10
READERS = 2
READ_PAUSE_S = 0.01
WRITE_PAUSE_S = 0.1
NOTES_KEPT = 40


@dataclass(slots=True)
class Tallies:
    """What the traffic met. ``answered``: by store. ``unseen``: own writes that a search missed."""

    answered: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    written: int = 0
    deleted: int = 0
    unseen: list[str] = field(default_factory=list)


class Traffic:
    """Asks questions and writes field notes in threads, through the one store that the bot knows."""

    def __init__(self, store: VectorStore, embedder: Embedder, questions: Iterator[str]) -> None:
        self._store = store
        self._embedder = embedder
        self._lock = threading.Lock()
        self._questions = itertools.cycle(questions)
        self._stopping = threading.Event()
        self.tallies = Tallies()
        self.kept: dict[str, Vector] = {}
        self._threads = [
            *(threading.Thread(target=self._ask, name=f"farmer-{n}") for n in range(READERS)),
            threading.Thread(target=self._write, name="editor"),
        ]

    def start(self) -> None:
        """Open for traffic."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let everyone finish the question at hand."""
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _ask(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                question = next(self._questions)
            vector = self._embedder.embed([question])[0]
            try:
                answer = self._store.search(Query(vector, TOP_K))
            except VectorStoreError as error:
                with self._lock:
                    self.tallies.failed.append(str(error))
            else:
                with self._lock:
                    self.tallies.answered[answer.store] += 1
            self._stopping.wait(READ_PAUSE_S)

    def _write(self) -> None:
        """Write notes, delete old ones, and look each write up at once."""
        for number in itertools.count():
            if self._stopping.is_set():
                return
            note = f"note-{number:05d}"
            text = f"Field note {number}: rain and planting observed in section {number % 28}."
            vector = self._embedder.embed([text])[0]
            metadata = {"source_document": "field-notes", "document_type": "note", "number": number}
            try:
                self._store.upsert([Record(note, vector, text, metadata)])
                self.kept[note] = vector
                self.tallies.written += 1
                self._look_up(note, vector)
                if len(self.kept) > NOTES_KEPT:
                    oldest = next(iter(self.kept))
                    self._store.delete([oldest])
                    del self.kept[oldest]
                    self.tallies.deleted += 1
            except VectorStoreError as error:
                self.tallies.failed.append(str(error))
            self._stopping.wait(WRITE_PAUSE_S)

    def _look_up(self, note: str, vector: Vector) -> None:
        # Notes resemble each other, so the note itself may not be among the first few.
        found = self._store.search(Query(vector, NOTES_KEPT + TOP_K))
        if note not in {hit.id for hit in found.hits}:
            self.tallies.unseen.append(note)

    def missing_after(self, stores: Sequence[VectorStore]) -> list[str]:
        """Notes that were acknowledged and that a store does not return."""
        wanted = list(self.kept)
        return [
            f"{store.name}: {note}"
            for store in stores
            for note in sorted(set(wanted) - {record.id for record in store.get(wanted)})
        ]
