"""From foreign files to a store at seq 0, or a refusal that lists what stands in the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vectorstore.errors import IntakeRefused, InvalidInput, Unsupported
from vectorstore.faiss.collection import UNIT_TOLERANCE, Collection
from vectorstore.faiss.index import RowIndex, Rows2D
from vectorstore.faiss.intake.copies import copied
from vectorstore.faiss.intake.headers import checked_header
from vectorstore.faiss.intake.layouts import BARE, Layout, recognise
from vectorstore.faiss.intake.probe import probe
from vectorstore.faiss.intake.sides import SideRow, read_side
from vectorstore.faiss.intake.vectors import open_index
from vectorstore.faiss.rows import Rows
from vectorstore.faiss.store import FaissStore
from vectorstore.types import Metric, Record
from vectorstore.validation import normalised_record

__all__ = ["LISTED_MAX", "Intake", "checked_record", "take_in"]

LISTED_MAX = 10
BLOCK_ROWS = 4096
VALUES_MAX = 20_000
"""Values in one row's metadata; a pickle can name one list often enough to never be walked through."""


@dataclass(frozen=True, slots=True)
class Intake:
    """What was taken in: a store at seq 0, the layout's name, and notes for the operator."""

    store: FaissStore
    layout: str
    metric: Metric
    rows: int
    notes: tuple[str, ...]


def take_in(
    path: Path,
    *,
    copy_to: Path,
    metric: Metric | None = None,
    quarantine: frozenset[str] = frozenset(),
) -> Intake:
    """Take in a foreign folder or index file, vectors bit for bit.

    The files are copied into ``copy_to`` first and only the copies are read. ``metric``: by default
    the index's own, and cosine for an inner-product index over unit vectors. ``quarantine``: ids to
    leave out, or ``position:N`` for a row that has no id of its own.

    Raises IntakeRefused for what cannot be kept whole (each row listed), ConfigurationError if the
    files cannot be read or the copy cannot be made.
    """
    found = recognise(path)
    copy = copied(found, copy_to)
    try:
        return _taken_in(copy, metric, quarantine)
    except IntakeRefused as refusal:
        # Of the copies, which are all that was read, nothing may be left when somebody looks.
        said = str(refusal)
        for source, read in zip(found.files, copy.files, strict=True):
            said = said.replace(str(read), str(source))
        raise IntakeRefused(said) from refusal


def _taken_in(layout: Layout, metric: Metric | None, quarantine: frozenset[str]) -> Intake:
    header = checked_header(layout.index)
    probe(layout)
    side = read_side(layout)
    foreign = open_index(layout.index)
    index = foreign.index
    notes = [f"copied {len(layout.files)} files to {layout.index.parent}"]
    if side.dimension is not None and side.dimension != header.dimension:
        raise IntakeRefused(
            f"{layout.sides[0]} is about {side.dimension} dimensions and the index has "
            f"{header.dimension}: they do not belong together; find the pair saved at the same time"
        )
    if side.kind is not None and side.kind != index.kind:
        notes.append(
            f"the side file says {side.kind!r}, the index is {index.kind!r}: used as it is"
        )
    labels: list[int] = foreign.labels.tolist()
    if layout.name == BARE and len(side.rows) == len(labels):
        labels = _by_line(layout, labels, side.rows)
    kept, placed, left_out = _paired(layout.sides[0], labels, side.rows, quarantine)
    chosen = metric or _metric_of(index, kept)
    ids = _checked(layout.index, index, kept, placed, chosen)
    if left_out:
        index = index.rebuilt(np.asarray(kept, dtype=np.int64))
        notes.append(f"left out by name: {', '.join(sorted(left_out))}")
    unknown = quarantine - left_out
    if unknown:
        notes.append(f"to be left out, but not there: {', '.join(sorted(unknown))}")
    rows = Rows(
        ids,
        [row.text for row in placed],
        [row.metadata or {} for row in placed],
        [0] * len(ids),
    )
    try:
        collection = Collection(index, rows, chosen)
    except Unsupported as error:
        raise IntakeRefused(f"{layout.index}: {error}") from error
    return Intake(FaissStore(collection), layout.name, chosen, len(ids), tuple(notes))


def _by_line(layout: Layout, labels: list[int], rows: Mapping[int, SideRow]) -> list[int]:
    """Which line each vector of a bare index goes with, where the index may have numbers of its own."""
    in_order = list(range(len(labels)))
    rising = all(before < after for before, after in pairwise(labels))
    if rising or all(str(rows[at].id) == str(label) for at, label in enumerate(labels)):
        # Its order and that of its numbers are one, or the lines name the numbers: they go by order.
        return in_order
    if sorted(labels) == in_order:
        return labels
    raise IntakeRefused(
        f"{layout.sides[0]} does not match the index: {layout.index} has numbers of its own, which do "
        f"not rise ({', '.join(map(str, labels[:LISTED_MAX]))} ..), so that nobody can tell which line "
        "is whose. Save the index anew with rising numbers and the lines in their order, or give the "
        "numbers themselves as the ids, in the order of the index"
    )


def _paired(
    path: Path, labels: list[int], rows: Mapping[int, SideRow], quarantine: frozenset[str]
) -> tuple[list[int], list[SideRow], set[str]]:
    """Positions that stay, their rows, and which names of the quarantine were met."""
    kept: list[int] = []
    placed: list[SideRow] = []
    left_out: set[str] = set()
    nameless: list[str] = []
    for position, label in enumerate(labels):
        row = rows.get(label)
        names = {f"position:{position}", str(row.id) if row else f"position:{position}"}
        if names & quarantine:
            left_out |= names & quarantine
        elif row is None:
            nameless.append(f"position:{position}")
        else:
            kept.append(position)
            placed.append(row)
    spare = rows.keys() - set(labels)
    if nameless or spare:
        raise IntakeRefused(
            f"{path} does not match the index: {len(labels):,} vectors, {len(rows):,} records; "
            f"{len(nameless):,} vectors without a record{_some(nameless)}, {len(spare):,} records "
            f"without a vector{_some([str(one) for one in sorted(spare)])}. Find the pair saved at the "
            "same time, or leave vectors without a record out by name (position:N)"
        )
    return kept, placed, left_out


def _metric_of(index: RowIndex, kept: list[int]) -> Metric:
    if not index.inner_product:
        return Metric.L2
    for start in range(0, len(kept), BLOCK_ROWS):
        rows = index.vectors(np.asarray(kept[start : start + BLOCK_ROWS], dtype=np.int64))
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
        if not (np.abs(lengths - 1.0) <= UNIT_TOLERANCE).all():
            return Metric.INNER_PRODUCT
    return Metric.COSINE


def _checked(
    path: Path, index: RowIndex, kept: list[int], placed: list[SideRow], metric: Metric
) -> list[str]:
    """The ids of the rows, all of which can live in every store. Their vectors are not kept beside the
    index's own."""
    ids: list[str] = []
    problems: list[str] = []
    seen: dict[str, int] = {}
    for start in range(0, len(kept), BLOCK_ROWS):
        block = kept[start : start + BLOCK_ROWS]
        vectors = index.vectors(np.asarray(block, dtype=np.int64))
        for at, row, vector in zip(block, placed[start : start + BLOCK_ROWS], vectors, strict=True):
            try:
                record = checked_record(row, vector, index.dimension, metric)
            except InvalidInput as error:
                problems.append(f"position:{at} (id {row.id!r}): {error}")
                continue
            if record.id in seen:
                problems.append(
                    f"position:{at}: the id {record.id!r} is also that of position:{seen[record.id]}"
                )
            seen[record.id] = at
            ids.append(record.id)
    if problems:
        listed = "\n  ".join(problems[:LISTED_MAX])
        more = f"\n  and {len(problems) - LISTED_MAX:,} more" if len(problems) > LISTED_MAX else ""
        raise IntakeRefused(
            f"{path}: {len(problems):,} of {len(kept):,} rows cannot live in every store:\n  {listed}"
            f"{more}\nMend them at their source, or leave them out by name (quarantine: the id, or "
            "position:N)"
        )
    return ids


def checked_record(row: SideRow, vector: Rows2D, dimension: int, metric: Metric) -> Record:
    """The row as a record, metadata as found; InvalidInput for what no store takes."""
    metadata = {} if row.metadata is None else row.metadata
    if not isinstance(metadata, dict):
        raise InvalidInput(f"metadata is a {type(metadata).__name__}, not an object")
    _require_walkable(metadata)
    record = Record(row.id, vector, row.text, metadata)
    # Checked as any record is, but kept as found: what FAISS holds is what must be moved.
    normalised_record(record, dimension=dimension, metric=metric)
    return record


def _require_walkable(metadata: dict[Any, Any]) -> None:
    """Refuse what would take for ever to walk through, before anything walks through it."""
    left = VALUES_MAX
    # Not by recursion: a pickle may nest deeper than Python's stack is.
    ahead: list[Any] = [metadata]
    while ahead:
        value = ahead.pop()
        if isinstance(value, dict | list | tuple):
            left -= len(value)
            if left < 0:
                raise InvalidInput(f"metadata has more than {VALUES_MAX:,} values")
            ahead += value.values() if isinstance(value, dict) else value


def _some(names: list[str]) -> str:
    if not names:
        return ""
    more = ", .." if len(names) > LISTED_MAX else ""
    return f" ({', '.join(names[:LISTED_MAX])}{more})"
