"""A growing set of positions that FAISS can select by."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from vectorstore.faiss.engine import faiss

__all__ = ["Bitmap"]


class Bitmap:
    """Positions as packed bits (bit ``p & 7`` of byte ``p >> 3``), with a count and a FAISS selector.

    Changed by the one writer while no reader is inside. Readers may fill the cached views at the same
    time as each other: they compute equal values, and assignment is atomic.
    """

    __slots__ = ("_bits", "_kept_max", "_positions", "_selector", "count")

    def __init__(self, flags: npt.NDArray[np.bool_], *, kept_max: int = sys.maxsize) -> None:
        """Begin with the positions where ``flags`` (n,) is true.

        Up to ``kept_max`` positions are kept once they were asked for, 8 bytes each.
        """
        self._kept_max = kept_max
        self._bits = np.packbits(flags, bitorder="little")
        self.count = int(flags.sum())
        self._positions: npt.NDArray[np.int64] | None = None
        self._selector: Any = None

    def __len__(self) -> int:
        return self.count

    @property
    def nbytes(self) -> int:
        """Memory of the bits and of the positions, if those were asked for."""
        positions = self._positions
        return self._bits.nbytes + (0 if positions is None else positions.nbytes)

    def __contains__(self, position: int) -> bool:
        byte = position >> 3
        return byte < self._bits.size and bool(self._bits[byte] >> (position & 7) & 1)

    def add(self, position: int) -> None:
        """Put a position in; the bits double when they are full."""
        if position in self:
            return
        byte = position >> 3
        if byte >= self._bits.size:
            grown = np.zeros(max(64, 2 * self._bits.size, byte + 1), dtype=np.uint8)
            grown[: self._bits.size] = self._bits
            self._bits = grown
            self._selector = None
        self._bits[byte] |= np.uint8(1 << (position & 7))
        self.count += 1
        self._positions = None

    def discard(self, position: int) -> None:
        """Take a position out if it is there."""
        if position not in self:
            return
        self._bits[position >> 3] &= np.uint8(0xFF ^ (1 << (position & 7)))
        self.count -= 1
        self._positions = None

    def positions(self) -> npt.NDArray[np.int64]:
        """The positions in ascending order, shape (len,)."""
        found = self._positions
        if found is None:
            found = np.flatnonzero(np.unpackbits(self._bits, bitorder="little")).astype(np.int64)
            if found.size <= self._kept_max:
                self._positions = found
        return found

    def between(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """The positions from ``start`` up to ``stop``, in ascending order."""
        first = start & ~7
        block = np.unpackbits(self._bits[first >> 3 : (stop + 7) >> 3], bitorder="little")
        return np.flatnonzero(block[start - first : stop - first]).astype(np.int64) + start

    def flags(self, size: int) -> npt.NDArray[np.bool_]:
        """Which of the first ``size`` positions are in, shape (size,)."""
        flags = np.zeros(size, dtype=np.bool_)
        flags[self.positions()] = True
        return flags

    def selector(self) -> Any:
        """What FAISS takes to answer from these positions only; valid as long as this set, until the next ``add``."""
        selector = self._selector
        if selector is None:
            # FAISS keeps the bare pointer: the selector must go when the bits move.
            selector = faiss.IDSelectorBitmap(self._bits.size, faiss.swig_ptr(self._bits))
            self._selector = selector
        return selector
