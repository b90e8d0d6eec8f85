"""Ids in byte order, for reading page by page while writes go on."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Iterable

from vectorstore.faiss.untracked import untracked

__all__ = ["BUCKET_IDS", "IdOrder"]

BUCKET_IDS = 1_000
"""A bucket that holds more than twice as many ids is divided."""


class IdOrder:
    """Buckets of ids, each sorted when a page first needs it.

    To sort ten million ids at once takes many seconds, in which no thread of Python's moves, and to
    put one more into a single sorted list moves half of the others. A bucket costs neither.

    Ids may be added twice or be gone: what ``present`` does not hold is left out. Adding is for one
    thread at a time with no reader inside. Readers may sort beside each other: they come to equal
    lists, and assignment is atomic.
    """

    __slots__ = ("_buckets", "_firsts", "_present", "_sorted")

    def __init__(self, present: Container[str]) -> None:
        """No ids yet; ``present`` tells at any time which ids there are."""
        self._present = present
        # The lower bound of each bucket; the first one has none.
        self._firsts: list[str] = [""]
        self._buckets: list[list[str]] = [[]]
        self._sorted: list[bool] = [True]

    def add(self, ids: Iterable[str]) -> None:
        """Take ids in, which must be present by now if they are to stay."""
        firsts, buckets, tidy = self._firsts, self._buckets, self._sorted
        for one in ids:
            at = bisect_right(firsts, one) - 1
            bucket = buckets[at]
            bucket.append(one)
            tidy[at] = False
            if len(bucket) > 2 * BUCKET_IDS:
                self._divide(at)

    def gone(self, record_id: str) -> None:
        """Say that an id that was present is so no more."""
        self._sorted[bisect_right(self._firsts, record_id) - 1] = False

    def following(self, after: str, limit: int) -> list[str]:
        """Up to ``limit`` of the ids after ``after`` in byte order of UTF-8: the order of code points."""
        found: list[str] = []
        first = bisect_right(self._firsts, after) - 1
        for at in range(first, len(self._buckets)):
            bucket = self._tidied(at)
            start = bisect_right(bucket, after) if at == first else 0
            found += bucket[start : start + limit - len(found)]
            if len(found) == limit:
                break
        return found

    def _tidied(self, at: int) -> list[str]:
        if not self._sorted[at]:
            present = self._present
            self._buckets[at] = untracked(
                sorted({one for one in self._buckets[at] if one in present})
            )
            self._sorted[at] = True
        return self._buckets[at]

    def _divide(self, at: int) -> None:
        bucket = self._tidied(at)
        if len(bucket) > BUCKET_IDS:
            half = len(bucket) // 2
            self._buckets[at : at + 1] = [untracked(bucket[:half]), untracked(bucket[half:])]
            self._firsts.insert(at + 1, bucket[half])
            self._sorted.insert(at + 1, True)
