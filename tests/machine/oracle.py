"""What the stores ought to hold: a list of writes, and nothing of the code under test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vectorstore.types import Record

__all__ = ["DIMENSION", "Held", "Oracle", "Written", "record_of"]

DIMENSION = 4
STALENESS_MS_MAX = 1_000.0


class Held(NamedTuple):
    """What a store ought to say of one id: the version's place and its text."""

    seq: int
    text: str


class Written(NamedTuple):
    """One entry: ``text`` is None for a delete; ``at`` is when it was appended, in seconds."""

    seq: int
    id: str
    text: str | None
    at: float


class Oracle:
    """Every write in order, and what follows from the list for any prefix of it."""

    def __init__(self) -> None:
        self.log: list[Written] = []
        self._states: list[dict[str, Held]] = [{}]
        # By the route's version; the first route was there before any write.
        self.flips: dict[int, int] = {1: 0}

    @property
    def head(self) -> int:
        """The seq of the last write."""
        return len(self.log)

    def append(self, changes: Sequence[tuple[str, str | None]], at: float) -> int:
        """Take note of a batch that is in the journal; its last seq."""
        for name, text in changes:
            seq = self.head + 1
            self.log.append(Written(seq, name, text, at))
            state = dict(self._states[-1])
            if text is None:
                state.pop(name, None)
            else:
                state[name] = Held(seq, text)
            self._states.append(state)
        return self.head

    def state(self, seq: int) -> dict[str, Held]:
        """What a store that has applied ``seq`` holds."""
        return self._states[seq]

    def fresh(self, applied: int, now: float) -> bool:
        """Whether the oldest entry that a store lacks is young enough."""
        if applied >= self.head:
            return True
        return (now - self.log[applied].at) * 1e3 <= STALENESS_MS_MAX

    def flip_seq(self, version: int) -> int:
        """The journal's head when the route of this version was made."""
        return self.flips.get(version, 0)


def record_of(name: str, text: str) -> Record:
    """The record whose vector follows from its text, so that a mix-up of vectors shows."""
    seed = np.frombuffer(f"{text:>16}".encode()[-16:], dtype=np.uint8).astype(np.float32)
    vector = seed.reshape(DIMENSION, 4).sum(axis=1) + 1.0
    return Record(name, vector.astype(np.float32), text, {"text": text})
