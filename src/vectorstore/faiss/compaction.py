"""A copy of a collection without its tombstones, made while searches and writes go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from vectorstore.columns import RecordColumns
from vectorstore.faiss.collection import Collection, Pending
from vectorstore.faiss.rows import Rows

__all__ = ["Hold", "changes_of", "compacted"]

BLOCK_ROWS = 4_096
"""Rows that are copied under one hold."""

Hold: TypeAlias = Callable[[Callable[[Collection], Any]], Any]
"""Calls a function with the collection in force, with writes held off."""


def compacted(hold: Hold) -> Collection:
    """The live rows in an index of the same kind and settings.

    Positions of an index with tombstones are never filled anew, so that what lay at one before is there
    still, or dead. A record that is written meanwhile may be in the copy as it was, or not at all.
    """
    index, live, metric = hold(
        lambda source: (source.index.emptied(), source.rows.live.positions(), source.metric)
    )
    index.reserve(live.size)
    ids: list[str] = []
    texts: list[str] = []
    metadata: list[Any] = []
    seqs: list[int] = []
    for start in range(0, live.size, BLOCK_ROWS):
        columns = hold(partial(_still_live, live[start : start + BLOCK_ROWS].tolist()))
        if columns.ids:
            index.append(columns.vectors)
        ids += columns.ids
        texts += columns.texts
        metadata += columns.metadata
        seqs += columns.seqs
    return Collection(index, Rows(ids, texts, metadata, seqs), metric)


def changes_of(ids: Sequence[str], source: Collection) -> list[Pending]:
    """What brings each of ``ids`` to what it is in ``source``: under a hold."""
    position = source.rows.position
    gone: list[Pending] = [(one, None, 0) for one in ids if one not in position]
    there = source.records([position[one] for one in ids if one in position])
    return gone + [(record.id, record, record.seq) for record in there]


def _still_live(positions: Sequence[int], source: Collection) -> RecordColumns:
    live = source.rows.live
    return source.columns([at for at in positions if at in live])
