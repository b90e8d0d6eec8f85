"""The parts of a load: ranges of a snapshot's records, carried into the table block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vectorstore.postgres.loading import load_block
from vectorstore.postgres.store import PostgresStore

if TYPE_CHECKING:
    from vectorstore.faiss.snapshot_reader import SnapshotReader

__all__ = ["BLOCK_ROWS", "Part", "carry", "parts_of"]

# Rows that one transaction copies: short enough to stop soon after the primary has slowed down, and
# long enough that committing costs about a hundredth.
BLOCK_ROWS = 500


@dataclass(frozen=True, slots=True)
class Part:
    """Records number ``first`` up to ``stop`` of a snapshot, of which ``done`` are in the table."""

    number: int
    first: int
    stop: int
    done: int

    @property
    def left(self) -> int:
        """Rows that are not in the table yet."""
        return self.stop - self.first - self.done


def parts_of(rows: int, done: Sequence[int]) -> list[Part]:
    """``rows`` records in ``len(done)`` ranges that differ by one row at most."""
    count = len(done)
    return [
        Part(number, rows * number // count, rows * (number + 1) // count, done[number])
        for number in range(count)
    ]


def carry(part: Part, reader: SnapshotReader, store: PostgresStore) -> Iterator[int]:
    """Copy what is left of a part; yields the rows of each block when it is committed."""
    at, end = part.done, part.stop - part.first
    while at < end:
        upto = min(at + BLOCK_ROWS, end)
        block = reader.records(part.first + at, part.first + upto)
        load_block(store, block, position_start=at, position_end=upto, part=part.number)
        yield upto - at
        at = upto
