"""What FAISS does not keep: ids, texts, metadata and seqs, in the order of the index's positions."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vectorstore.faiss.bitmap import Bitmap
from vectorstore.faiss.id_order import IdOrder
from vectorstore.faiss.untracked import untracked
from vectorstore.filters import EXACT_MAX, Filter

__all__ = ["MASKS_BYTES_MAX", "MASKS_MAX", "MATCHED_BLOCK", "Rows"]

MASKS_MAX = 128
"""Filters whose matching rows are remembered; the least recently used is forgotten first. To write a
record costs a comparison with each of them."""

MASKS_BYTES_MAX = 256 << 20
"""Memory that they may take: a bit for each row and filter, beside the positions of small ones."""

POSITIONS_KEPT_MAX = 65_536
"""Of how many matches the positions are kept as well: half a megabyte."""

MATCHED_BLOCK = 8_192
"""Rows that a filter is held against under one hold."""

ORDER_BLOCK = 1_000
"""Ids that are brought in order under one hold."""


class _Nested(dict[str, Any]):
    """Metadata that holds lists or objects, which a copy must not share."""

    __slots__ = ()

    def copy(self) -> dict[str, Any]:
        return copy.deepcopy(dict(self))


def _held(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping as it is kept. Most are flat, for which dict's own copy is enough, and quick."""
    for value in metadata.values():
        if isinstance(value, list | dict | tuple):
            return _Nested(metadata)
    return metadata if type(metadata) is dict else dict(metadata)


@dataclass(frozen=True, slots=True)
class _Begun:
    """A filter that the positions below ``upto`` were held against; ``flags`` says which of them match."""

    filter: Filter
    flags: npt.NDArray[np.bool_]
    upto: int


class Rows:
    """Columns by position, the way from id to position, and the remembered matches of filters.

    A position that is dead (a tombstone) keeps its place in the index and in the columns, emptied.
    The store lets one writer in alone, so only what readers themselves change is locked here: the
    order in which masks were used.
    """

    def __init__(
        self,
        ids: list[str],
        texts: list[str],
        metadata: Sequence[Mapping[str, Any]],
        seqs: list[int],
        *,
        dead: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Take over columns of equal length, which the caller gives up; ``dead`` lists the positions
        that hold no record. A mapping in ``metadata`` has a ``copy`` that shares nothing with it."""
        self.ids = untracked(ids)
        self.texts = untracked(texts)
        self.metadata = untracked(list(map(_held, metadata)))
        self.seqs = untracked(seqs)
        flags = np.ones(len(self.ids), dtype=np.bool_)
        if dead is not None:
            flags[dead] = False
        self.live = Bitmap(flags)
        self.position = untracked({self.ids[at]: at for at in self.live.positions().tolist()})
        self._order = IdOrder(self.position)
        # The position from which ids are not in order yet; None: all are.
        self._unordered: int | None = 0
        # The least recently used first.
        self._masks: dict[Filter, Bitmap] = {}
        self._begun: _Begun | None = None
        self._using = threading.Lock()

    @property
    def tombstones(self) -> int:
        """Positions that hold no record."""
        return len(self.ids) - len(self.live)

    def put(
        self, at: int, record_id: str, text: str, metadata: Mapping[str, Any], seq: int
    ) -> None:
        """Fill a position: one that holds the same id, or the next one after the last."""
        if at == len(self.ids):
            self.ids.append(record_id)
            self.texts.append(text)
            self.metadata.append(_held(metadata))
            self.seqs.append(seq)
            self.live.add(at)
        else:
            self.ids[at] = record_id
            self.texts[at] = text
            self.metadata[at] = _held(metadata)
            self.seqs[at] = seq
        known = record_id in self.position
        self.position[record_id] = at
        if not known and self._unordered is None:
            self._order.add([record_id])
        for matched, mask in self._masks.items():
            if matched.matches(metadata):
                mask.add(at)
            else:
                mask.discard(at)
        begun = self._begun
        if begun is not None and at < begun.upto:
            begun.flags[at] = begun.filter.matches(metadata)

    def bury(self, at: int) -> None:
        """Turn a position into a tombstone."""
        record_id = self.ids[at]
        if self.position.get(record_id) == at:
            self._forget(record_id)
        self.texts[at] = ""
        self.metadata[at] = {}
        self.live.discard(at)
        for mask in self._masks.values():
            mask.discard(at)
        if self._begun is not None:
            self._begun.flags[at : at + 1] = False

    def move_last_to(self, at: int) -> None:
        """Drop the record at ``at`` by letting the last one take its place: the index stays dense."""
        last = len(self.ids) - 1
        self._forget(self.ids[at])
        for mask in self._masks.values():
            if at != last and last in mask:
                mask.add(at)
            else:
                mask.discard(at)
            mask.discard(last)
        self.live.discard(last)
        record_id, text = self.ids.pop(), self.texts.pop()
        metadata, seq = self.metadata.pop(), self.seqs.pop()
        if at != last:
            self.ids[at], self.texts[at] = record_id, text
            self.metadata[at], self.seqs[at] = metadata, seq
            self.position[record_id] = at
        begun = self._begun
        if begun is not None:
            if at < begun.upto and at != last:
                begun.flags[at] = begun.filter.matches(metadata)
            # What is put at the end from now on is still to be matched.
            self._begun = replace(begun, upto=min(begun.upto, last))
        if self._unordered:
            # What is put at the end from now on is still to be brought in order.
            self._unordered = min(self._unordered, last)
            if at != last:
                # It may have moved to where the ordering has been already.
                self._order.add([record_id])

    def following(self, after: str, limit: int) -> list[str] | None:
        """Up to ``limit`` ids after ``after`` in byte order; ``None`` while not all are in order."""
        if self._unordered is not None:
            return None
        return self._order.following(after, limit)

    def order_more(self) -> bool:
        """Bring a block more of the ids in order; false if there is none left.

        For one thread at a time, with writes held off meanwhile, but not from one block to the next.
        """
        start, order = self._unordered, self._order
        if start is None:
            return False
        block = self.ids[start : start + ORDER_BLOCK]
        # Who is broken off in here (Ctrl-C) leaves an order that has not begun, not half of a step.
        self._order, self._unordered = IdOrder(self.position), 0
        order.add(block)
        self._order, self._unordered = order, start + len(block) if block else None
        return bool(block)

    def mask(self, filter: Filter) -> Bitmap | None:
        """The rows that a filter matches, if remembered."""
        with self._using:
            mask = self._masks.pop(filter, None)
            if mask is not None:
                self._masks[filter] = mask
            return mask

    def remember(self, filter: Filter) -> Bitmap | None:
        """Hold a block more of the rows against a filter. Once all are: those that match, kept current
        from now on.

        For one thread at a time, with writes held off meanwhile, but not from one block to the next.
        """
        count, begun = len(self.ids), self._begun
        if begun is None or begun.filter != filter:
            begun = _Begun(filter, np.zeros(count, dtype=np.bool_), 0)
        start, stop = begun.upto, min(begun.upto + MATCHED_BLOCK, count)
        flags, columns = begun.flags, self.metadata
        if flags.size < stop:
            flags = np.append(flags, np.zeros(count - flags.size, dtype=np.bool_))
        matching = self._candidates(filter, self.live.between(start, stop).tolist())
        flags[start:stop] = False
        flags[[at for at in matching if filter.matches(columns[at])]] = True
        self._begun = _Begun(filter, flags, stop)
        if stop < count:
            return None
        mask = Bitmap(flags[:stop], kept_max=POSITIONS_KEPT_MAX)
        with self._using:
            self._masks[filter] = mask
            size = sum(known.nbytes for known in self._masks.values())
            while len(self._masks) > 1 and (len(self._masks) > MASKS_MAX or size > MASKS_BYTES_MAX):
                size -= self._masks.pop(next(iter(self._masks))).nbytes
        self._begun = None
        return mask

    def _forget(self, record_id: str) -> None:
        del self.position[record_id]
        self._order.gone(record_id)

    def _candidates(self, filter: Filter, matching: list[int]) -> list[int]:
        # A plain comparison is ten times faster than the general one, and lets through all that the
        # general one does: it narrows what that has to look at. Not for numbers so large that a float
        # equals another one once it is stored.
        columns = self.metadata
        for key, values in filter.clauses:
            if all(isinstance(one, str | None) or abs(one) <= EXACT_MAX for one in values):
                matching = [at for at in matching if columns[at].get(key) in values]
        return matching
