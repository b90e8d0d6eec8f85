"""Defects planted one at a time: each patches one function of the code under test.

A machine that passes with one of these switched on does not check what it says it checks.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest import mock

from shadow import read_path
from shadow.core.phases import FAISS, POSTGRESQL, Phase
from shadow.read_path import ReadPath
from shadow.router import Router
from shadow.routes import RouteBook
from shadow.write_path import WritePath
from shadow.writes import backfill, journal
from shadow.writes.journal import Journal
from shadow.writes.journal_append import Appender
from shadow.writes.postgresql_follower import PostgresqlFollower
from shadow.writes.snapshots import SnapshotKeeper
from tests.machine import postgresql_double
from vectorstore.faiss import snapshot
from vectorstore.faiss.manifest import Manifest
from vectorstore.faiss.store import FaissStore
from vectorstore.postgres import store as postgres_store
from vectorstore.postgres.cursor import Cursor
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Change, Record

__all__ = ["MUTANTS"]

Mutant = Callable[[], AbstractContextManager[Any]]
MUTANTS: dict[str, Mutant] = {}


def mutant(mutant: Mutant) -> Mutant:
    """Add a mutant under its name."""
    MUTANTS[mutant.__name__] = mutant
    return mutant


@mutant
def seq_guard_skipped() -> Any:
    """Entries that PostgreSQL has already applied are applied once more."""

    def everything(changes: Sequence[Change], applied_seq: int) -> list[Change]:
        return list(changes)

    def unguarded(transaction: Any, names: object, changes: Sequence[Change]) -> None:
        for change in changes:
            transaction.content.rows.pop(change.id, None)
            if change.record is not None:
                transaction.content.rows[change.id] = replace(change.record, seq=change.seq)

    return mock.patch.multiple(postgres_store, pending_changes=everything, write_changes=unguarded)


@mutant
def cursor_moved_before_apply() -> Any:
    """The cursor and the rows are two transactions, the cursor first."""
    original = PostgresStore.apply

    def apply(store: PostgresStore, changes: Sequence[Change], **options: Any) -> int:
        with mock.patch.object(postgres_store, "write_changes", lambda *_: None):
            seq = original(store, changes, **options)
        names = store.names
        store.transact(lambda held: postgresql_double._write_changes(held, names, changes))
        return seq

    return mock.patch.object(PostgresStore, "apply", apply)


@mutant
def cursor_read_outside_the_lock() -> Any:
    """Where to apply from is read before the lock is held."""
    original = PostgresStore.apply

    def apply(store: PostgresStore, changes: Sequence[Change], **options: Any) -> int:
        early = store.cursor()
        with mock.patch.object(postgres_store, "locked_cursor", lambda *_: early):
            return original(store, changes, **options)

    return mock.patch.object(PostgresStore, "apply", apply)


@mutant
def deletes_not_applied() -> Any:
    """PostgreSQL keeps what was deleted."""
    original = postgresql_double._write_changes

    def write(transaction: Any, names: object, changes: Sequence[Change]) -> None:
        original(transaction, names, [change for change in changes if change.record is not None])

    return mock.patch.object(postgres_store, "write_changes", write)


@mutant
def read_rule_skipped_on_fallback() -> Any:
    """The other store answers, however far behind it is."""

    def otherwise(
        reads: ReadPath, first: str, why: str, started: float, timeout: Any, ask: Any, **_: Any
    ) -> Any:
        second = POSTGRESQL if first == FAISS else FAISS
        with mock.patch.object(ReadPath, "require", lambda *_: None):
            return ask(reads.store(second), 60_000.0)

    return mock.patch.object(ReadPath, "otherwise", otherwise)


@mutant
def staleness_forgotten() -> Any:
    """Only the floor counts, not how old the oldest write is that a store lacks."""
    original = read_path.refusal

    def refusal(**options: Any) -> str | None:
        return original(**{**options, "oldest_unapplied_ms": None})

    return mock.patch.object(read_path, "refusal", refusal)


@mutant
def own_writes_forgotten() -> Any:
    """A process does not remember what it acknowledged."""
    original = WritePath.write

    def write(path: WritePath, *arguments: Any) -> int:
        seq = original(path, *arguments)
        path.acknowledged = 0
        return seq

    return mock.patch.object(WritePath, "write", write)


@mutant
def floor_forgotten_after_a_flip() -> Any:
    """A new route does not say which write its store must have."""
    original = RouteBook.change

    def change(self: RouteBook, expected: Any, **options: Any) -> Any:
        route = original(self, expected, **options)
        with self._transaction() as connection:
            connection.execute("UPDATE routes SET flip_seq = 0")
        return route

    return mock.patch.object(RouteBook, "change", change)


@mutant
def failure_of_the_shadow_fails_the_write() -> Any:
    """An error while PostgreSQL is brought along reaches the caller."""

    def bring(path: WritePath, seq: int, own: Any = ()) -> None:
        path._faiss.follow()
        if path._route().phase is not Phase.FAISS:
            path._postgresql.follow()

    return mock.patch.object(WritePath, "_bring", bring)


@mutant
def rejected_batch_leaves_its_first_half() -> Any:
    """Records are written one by one, so a bad one comes too late."""
    original = Router.upsert

    def upsert(router: Router, records: Sequence[Record], *, op_id: str | None = None) -> int:
        if len(records) == 1:
            return original(router, records, op_id=op_id)
        return [original(router, [record]) for record in records][-1]

    return mock.patch.object(Router, "upsert", upsert)


@mutant
def snapshot_pruned_before_verify() -> Any:
    """The older snapshots go as soon as the new one is written."""
    original = snapshot.write_snapshot

    def write(store: FaissStore, parent: Any, **options: Any) -> Any:
        path = original(store, parent, **options)
        for older in snapshot.newest_snapshots(parent):
            if older != path:
                shutil.rmtree(older)
        return path

    return mock.patch.object(snapshot, "write_snapshot", write)


@mutant
def torn_snapshot_loads() -> Any:
    """Checksums are not compared."""

    def verify(path: Any) -> Manifest:
        return Manifest.read(path / "manifest.json")

    return mock.patch.object(snapshot, "verify_snapshot", verify)


@mutant
def truncated_above_the_cursor() -> Any:
    """Truncation waits for nobody."""
    return mock.patch.object(journal, "oldest_holder", lambda connection: None)


@mutant
def seq_reused_after_truncation() -> Any:
    """The next seq is one more than the highest entry that is left."""
    original = Journal.truncate

    def truncate(self: Journal, upto: int) -> int:
        deleted = original(self, upto)
        if deleted:
            with self._file.writing() as connection:
                connection.execute(
                    "UPDATE state SET head = coalesce((SELECT max(seq) FROM entry), 0), base = "
                    "min(base, coalesce((SELECT max(seq) FROM entry), 0))"
                )
        return deleted

    return mock.patch.object(Journal, "truncate", truncate)


@mutant
def retried_operation_applied_twice() -> Any:
    """An op_id that was seen is forgotten."""

    def earlier(self: Appender, connection: sqlite3.Connection, batch: Any, now: float) -> None:
        connection.execute("DELETE FROM operation WHERE op_id = ?", (batch.op_id,))

    return mock.patch.object(Appender, "_earlier", earlier)


@mutant
def incarnation_unchecked() -> Any:
    """A cursor means what it says, whichever journal it counts in."""
    original = PostgresqlFollower._stands

    def stands(self: PostgresqlFollower, cursor: Cursor, *rest: Any) -> Any:
        mine = replace(cursor, incarnation=self._journal.incarnation)
        return original(self, mine, *rest)

    return mock.patch.object(PostgresqlFollower, "_stands", stands)


@mutant
def backfill_cursor_set_too_high() -> Any:
    """The table is said to hold one write more than the snapshot did."""
    original = postgresql_double._begin_load

    def begin(store: Any, *, seq: int, **options: Any) -> Any:
        return original(store, seq=seq + 1, **options)

    return mock.patch.object(backfill, "begin_load", begin)


@mutant
def repair_at_a_new_seq() -> Any:
    """A repaired record counts as a new write."""
    original = postgresql_double.PostgresqlDouble.repair

    def repair(self: Any, record_id: str, record: Record | None, **options: Any) -> bool:
        moved = None if record is None else replace(record, seq=self.cursor().seq + 1)
        return original(self, record_id, moved, **options)

    return mock.patch.object(postgresql_double.PostgresqlDouble, "repair", repair)


@mutant
def route_changed_without_comparing() -> Any:
    """The last one to decide wins, whatever the decision rested on."""
    original = RouteBook.change

    def change(self: RouteBook, expected: Any, **options: Any) -> Any:
        return original(self, self.current(), **options)

    return mock.patch.object(RouteBook, "change", change)


@mutant
def snapshot_says_too_much() -> Any:
    """A snapshot claims one write more than it holds."""
    original = SnapshotKeeper.load

    def load(self: SnapshotKeeper) -> FaissStore:
        store = original(self)
        store._seq += store._seq > 0
        return store

    return mock.patch.object(SnapshotKeeper, "load", load)
