"""Repair: a record put back at its own seq into the store that is damaged, and into no other.

Which store is right is decided for each record by the first of these that can tell: the journal's last
entry of that id, if it is still held; the higher seq, if both stores have the record; the store that the
operator names. Nothing is decided by guessing: what none of them can tell is left alone and listed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from shadow.errors import JournalGap, JournalSealed
from shadow.events import EventLog
from shadow.writes.faiss_follower import FaissFollower, require_copy
from shadow.writes.journal import Journal
from vectorstore.digests import row_digest
from vectorstore.faiss.store import FaissStore
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Record

__all__ = ["Repairs", "StoreName", "repair"]

StoreName = Literal["faiss", "postgresql"]

# A write of the same id that comes between makes the decision out of date; then it is made again.
ATTEMPTS_MAX = 20
# The journal reads the ids of all its entries for each look, so that many are asked for at once; and
# no more than can be held in memory three times over, and than are soon put right.
IDS_PER_LOOK = 500
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
class _Seen:
    """Some ids as they were at the journal's ``head``: by id, the record of the last entry that the
    journal still holds (``None``: a delete), and the records of both stores."""

    head: int
    journal: Mapping[str, Record | None]
    faiss: Mapping[str, Record]
    postgresql: Mapping[str, Record]


def repair(
    ids: Sequence[str],
    *,
    journal: Journal,
    faiss: FaissFollower,
    postgresql: PostgresStore,
    truth_from: StoreName | None = None,
) -> Repairs:
    """Put the records ``ids`` right where they differ.

    ``faiss`` keeps its copy at the head of the journal. What is done to that copy is done to it alone: if
    :attr:`Repairs.faiss` is not empty the caller makes a snapshot of it that every process loads
    (``SnapshotKeeper.put_right``).

    Raises StoreUnavailable if ``faiss`` has loaded another copy meanwhile, and JournalSealed once a
    finalize has begun: PostgreSQL takes writes that FAISS and the journal never see, and to undo those
    would be no repair.
    """
    copy = faiss.store
    found = _Found()
    left = list(dict.fromkeys(ids))
    for start in range(0, len(left), IDS_PER_LOOK):
        unsettled = left[start : start + IDS_PER_LOOK]
        for _ in range(ATTEMPTS_MAX):
            seen = _look(unsettled, journal, faiss, copy, postgresql)
            unsettled = [
                one
                for one in unsettled
                if not _put_right(one, seen, journal, copy, postgresql, truth_from, found)
            ]
            if not unsettled:
                break
        for one in unsettled:
            found.add("unsettled", one)
    return Repairs(**{name: tuple(names) for name, names in found.by_name.items()})


class _Found:
    """What became of the ids, by names of :class:`Repairs`' fields, as it is found."""

    def __init__(self) -> None:
        self.by_name: dict[str, dict[str, None]] = {
            "faiss": {}, "postgresql": {}, "undecided": {}, "unsettled": {}, "agreed": {}
        }  # fmt: skip

    def add(self, name: str, record_id: str) -> None:
        self.by_name[name][record_id] = None
        log.info("repaired" if name in ("faiss", "postgresql") else name, id=record_id, store=name)

    def repaired(self, record_id: str) -> bool:
        return record_id in self.by_name["faiss"] or record_id in self.by_name["postgresql"]


def _look(
    ids: Sequence[str],
    journal: Journal,
    faiss: FaissFollower,
    copy: FaissStore,
    postgresql: PostgresStore,
) -> _Seen:
    """What the journal and both stores hold of ``ids`` now: the journal reads all of its ids for it."""
    if journal.sealed():
        raise JournalSealed(
            "the migration is final: what PostgreSQL holds is right, and nothing is put right"
        )
    faiss.follow()
    require_copy(faiss, copy)
    head, held = journal.last_changes(ids)
    return _Seen(
        head,
        {name: change.record for name, change in held.items()},
        {record.id: record for record in copy.get(ids)},
        {record.id: record for record in postgresql.get(ids)},
    )


def _put_right(
    record_id: str,
    seen: _Seen,
    journal: Journal,
    faiss: FaissStore,
    postgresql: PostgresStore,
    truth_from: StoreName | None,
    found: _Found,
) -> bool:
    """Put one record right; False if something was written meanwhile, and it must be looked at again."""
    try:
        right = _right(record_id, seen, truth_from)
    except LookupError:
        found.add("undecided", record_id)
        return True
    ours, theirs = seen.faiss.get(record_id), seen.postgresql.get(record_id)
    unchanged = _unchanged(record_id, journal, seen.head)
    stores: tuple[tuple[StoreName, FaissStore | PostgresStore, Record | None], ...] = (
        ("faiss", faiss, ours),
        ("postgresql", postgresql, theirs),
    )
    for name, store, held in stores:
        if _same(held, right):
            continue
        expected_seq = None if held is None else held.seq
        if not store.repair(record_id, right, expected_seq=expected_seq, unchanged=unchanged):
            return False
        found.add(name, record_id)
    if not found.repaired(record_id):
        found.add("agreed", record_id)
    return True


def _right(record_id: str, seen: _Seen, truth_from: StoreName | None) -> Record | None:
    """What the record should be (None: gone); LookupError if nothing can tell."""
    if record_id in seen.journal:
        return seen.journal[record_id]
    ours, theirs = seen.faiss.get(record_id), seen.postgresql.get(record_id)
    if _same(ours, theirs):
        return ours
    if ours is not None and theirs is not None and ours.seq != theirs.seq:
        return max(ours, theirs, key=lambda one: one.seq)
    if truth_from is None:
        raise LookupError(record_id)
    return ours if truth_from == "faiss" else theirs


def _unchanged(record_id: str, journal: Journal, head: int) -> Callable[[int], bool]:
    """Told under a store's lock how far it has applied: whether nothing of the id came since.

    Of what comes after the journal's seal nobody here would know.
    """

    def unchanged(applied_seq: int) -> bool:
        if journal.sealed():
            return False
        if applied_seq <= head:
            return True
        try:
            return record_id not in journal.ids_between(head, applied_seq)
        except JournalGap:
            return False

    return unchanged


def _same(one: Record | None, other: Record | None) -> bool:
    if one is None or other is None:
        return one is other
    return row_digest(one, SHA256) == row_digest(other, SHA256)
