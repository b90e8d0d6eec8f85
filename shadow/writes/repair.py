"""Repair: a record put back at its own seq into the store that is damaged, and into no other.

Which store is right is decided for each record by the first of these that can tell: the journal's last
entry of that id, if it is still held; the higher seq, if both stores have the record; the store that the
operator names. Nothing is decided by guessing: what none of them can tell is left alone and listed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from shadow.errors import JournalGap, JournalSealed
from shadow.events import EventLog
from shadow.writes.journal import Journal
from vectorstore.digests import row_digest
from vectorstore.faiss.store import FaissStore
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Record

__all__ = ["Repairs", "StoreName", "repair"]

StoreName = Literal["faiss", "postgresql"]

# A write of the same id that comes between makes the decision out of date; then it is made again.
ATTEMPTS_MAX = 20
SHA256: Literal["sha256"] = "sha256"

log = EventLog()


@dataclass(frozen=True, slots=True)
class Repairs:
    """What was done: ids put right in each store, ids that nothing could decide, and ids that were
    written to over and over meanwhile. ``agreed`` were no longer different."""

    faiss: tuple[str, ...] = ()
    postgresql: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    unsettled: tuple[str, ...] = ()
    agreed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Truth:
    """What an id's record should be (``None``: gone), and the journal's head that this was true at."""

    record: Record | None
    head: int


def repair(
    ids: Sequence[str],
    *,
    journal: Journal,
    faiss: FaissStore,
    follow: Callable[[], int],
    postgresql: PostgresStore,
    truth_from: StoreName | None = None,
) -> Repairs:
    """Put the records ``ids`` right where they differ.

    ``follow`` brings ``faiss`` to the head of the journal. What is done to ``faiss`` is done to this copy
    alone: if :attr:`Repairs.faiss` is not empty the caller makes a snapshot of it that every process
    loads (``SnapshotKeeper.put_right``).

    Raises JournalSealed once a finalize has begun: PostgreSQL takes writes that FAISS and the journal never
    see, and to undo those would be no repair.
    """
    done: dict[str, list[str]] = {
        "faiss": [], "postgresql": [], "undecided": [], "unsettled": [], "agreed": []
    }  # fmt: skip
    for record_id in ids:
        for name in _repair(record_id, journal, faiss, follow, postgresql, truth_from):
            done[name].append(record_id)
            log.info(
                "repaired" if name in ("faiss", "postgresql") else name, id=record_id, store=name
            )
    return Repairs(**{name: tuple(found) for name, found in done.items()})


def _repair(
    record_id: str,
    journal: Journal,
    faiss: FaissStore,
    follow: Callable[[], int],
    postgresql: PostgresStore,
    truth_from: StoreName | None,
) -> tuple[str, ...]:
    """What became of one id: names of :class:`Repairs`' fields."""
    for _ in range(ATTEMPTS_MAX):
        if journal.sealed():
            raise JournalSealed(
                "the migration is final: what PostgreSQL holds is right, and nothing is put right"
            )
        follow()
        truth = _truth(record_id, journal, faiss, postgresql, truth_from)
        if truth is None:
            return ("undecided",)
        unchanged = _unchanged(record_id, journal, truth)
        ours, theirs = _one(faiss.get([record_id])), _one(postgresql.get([record_id]))
        repaired: list[str] = []
        settled = True
        if not _same(ours, truth.record):
            settled = faiss.repair(
                record_id,
                truth.record,
                expected_seq=None if ours is None else ours.seq,
                unchanged=unchanged,
            )
            repaired += ["faiss"] if settled else []
        if settled and not _same(theirs, truth.record):
            settled = postgresql.repair(
                record_id,
                truth.record,
                expected_seq=None if theirs is None else theirs.seq,
                unchanged=unchanged,
            )
            repaired += ["postgresql"] if settled else []
        if settled:
            return tuple(repaired) or ("agreed",)
    return ("unsettled",)


def _truth(
    record_id: str,
    journal: Journal,
    faiss: FaissStore,
    postgresql: PostgresStore,
    truth_from: StoreName | None,
) -> _Truth | None:
    head, held = journal.last_changes([record_id])
    if record_id in held:
        return _Truth(held[record_id].record, head)
    ours, theirs = _one(faiss.get([record_id])), _one(postgresql.get([record_id]))
    if _same(ours, theirs):
        return _Truth(ours, head)
    if ours is not None and theirs is not None and ours.seq != theirs.seq:
        return _Truth(max(ours, theirs, key=lambda one: one.seq), head)
    if truth_from is None:
        return None
    return _Truth(ours if truth_from == "faiss" else theirs, head)


def _unchanged(record_id: str, journal: Journal, truth: _Truth) -> Callable[[int], bool]:
    """Told under a store's lock how far it has applied: whether nothing of the id came since.

    Of what comes after the journal's seal nobody here would know.
    """

    def unchanged(applied_seq: int) -> bool:
        if journal.sealed():
            return False
        if applied_seq <= truth.head:
            return True
        try:
            return record_id not in journal.ids_between(truth.head, applied_seq)
        except JournalGap:
            return False

    return unchanged


def _one(found: Sequence[Record]) -> Record | None:
    return found[0] if found else None


def _same(one: Record | None, other: Record | None) -> bool:
    if one is None or other is None:
        return one is other
    return row_digest(one, SHA256) == row_digest(other, SHA256)
