"""The records of a layout without their vectors: for an index that does not give them back whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vectorstore.errors import IntakeRefused, InvalidInput
from vectorstore.faiss.index import Rows2D
from vectorstore.faiss.intake.admission import LISTED_MAX, checked_record
from vectorstore.faiss.intake.headers import rows_of
from vectorstore.faiss.intake.layouts import recognise
from vectorstore.faiss.intake.probe import ANY_INDEX, SIDES_ONLY, probe
from vectorstore.faiss.intake.sides import SideRow, read_side
from vectorstore.faiss.intake.vectors import read_any
from vectorstore.types import Metric

__all__ = ["Reference", "open_reference", "read_texts"]

_PLACEHOLDER = np.ones(1, dtype=np.float32)


def read_texts(path: Path, *, leave_out: frozenset[str] = frozenset()) -> list[SideRow]:
    """Id, text and metadata of every record of a layout, of any kind of index, in FAISS's order.

    ``leave_out``: ids that are not wanted. Of the index only the head is read. Raises IntakeRefused if
    side file and index do not belong together, or for records that no store takes or that have no text
    to embed, each listed.
    """
    layout = recognise(path)
    probe(layout, depth=SIDES_ONLY)
    rows = read_side(layout).rows
    vectors = rows_of(layout.index)
    if vectors != len(rows):
        raise IntakeRefused(
            f"{layout.sides[0]} has {len(rows):,} records and {layout.index} {vectors:,} vectors: some "
            "were deleted from one of them only; find the pair saved at the same time"
        )
    kept: list[SideRow] = []
    seen: set[str] = set()
    problems: list[str] = []
    for _, row in sorted(rows.items()):
        if str(row.id) in leave_out:
            continue
        try:
            checked_record(row, _PLACEHOLDER, 1, Metric.L2)
            if row.id in seen:
                raise InvalidInput("this id is also that of another record")
            if not row.text.strip():
                raise InvalidInput("it has no text that could be embedded")
        except InvalidInput as error:
            problems.append(f"{row.id!r}: {error}")
            continue
        seen.add(row.id)
        kept.append(row)
    if problems:
        more = f"; and {len(problems) - LISTED_MAX:,} more" if len(problems) > LISTED_MAX else ""
        raise IntakeRefused(
            f"{layout.sides[0]}: {len(problems):,} of {len(rows):,} records cannot be embedded anew: "
            f"{'; '.join(problems[:LISTED_MAX])}{more}. Mend them at their source, or leave them out by id"
        )
    return kept


class Reference:
    """An index of any kind as its application searches it: approximate, lossy, as it was saved."""

    def __init__(self, index: Any, rows: Mapping[int, SideRow]) -> None:
        self._index = index
        self._rows = rows

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return int(self._index.d)

    def nearest(self, vectors: Rows2D, k: int) -> list[list[str]]:
        """For each of the vectors (n, d), the ids of the nearest ``k`` records, nearest first."""
        _, labels = self._index.search(np.ascontiguousarray(vectors, dtype=np.float32), k)
        return [
            [str(self._rows[at].id) for at in row if at in self._rows] for row in _lists(labels)
        ]


def open_reference(path: Path) -> Reference:
    """Open a layout for searching only, quantised or not. Raises IntakeRefused if it is damaged."""
    layout = recognise(path)
    probe(layout, depth=ANY_INDEX)
    return Reference(read_any(layout.index), read_side(layout).rows)


def _lists(labels: Any) -> Sequence[Sequence[int]]:
    found: Sequence[Sequence[int]] = labels.tolist()
    return found
