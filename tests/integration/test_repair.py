"""Repair puts a damaged record right, in the damaged store only, at its own seq."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
from psycopg import sql

from shadow.opening import Migration
from shadow.writes.backfill import alone
from shadow.writes.journal import Journal
from shadow.writes.repair import Repairs, StoreName, repair
from shadow.writes.snapshots import SnapshotKeeper
from shadow.writes.verify import Clean, CouldNotCheck, Differs, verify
from tests.plugins.migrations import SmallMigration, record, until
from vectorstore.errors import StoreUnavailable
from vectorstore.types import Change, Record


def damage_table(migration: Migration, record_id: str, put: Record | None) -> None:
    """Change a row behind everybody's back."""
    store = migration.link.open()
    held = store.get([record_id])
    assert store.repair(record_id, put, expected_seq=held[0].seq if held else None)


def truncate(migration: Migration) -> None:
    """Let the journal forget what was applied, so that it can decide nothing."""
    migration.snapshots.make(migration.load_faiss().store)
    migration.snapshots.make(migration.load_faiss().store)
    migration.journal.set_cursor("postgresql", migration.postgresql.look().applied_seq)
    migration.journal.truncate(migration.journal.head())


def run(migration: Migration, *ids: str, truth_from: StoreName | None = None) -> Repairs:
    faiss = migration.load_faiss()
    done = repair(
        ids,
        journal=migration.journal,
        faiss=faiss,
        postgresql=migration.link.open(),
        truth_from=truth_from,
    )
    if done.faiss:
        migration.snapshots.put_right(faiss, faiss.store)
    return done


@pytest.mark.parametrize("kind", ["altered", "missing", "extra", "later"])
def test_the_journal_decides_what_it_still_holds(
    small_migration: SmallMigration, kind: str
) -> None:
    """A row that was altered, lost, brought back or given a later version is put right at its own seq;
    FAISS is not touched."""
    small_migration.filled()
    with small_migration.opened() as migration:
        with small_migration.routed() as router:
            router.upsert([record("r-1", "the truth")])
            router.delete(["r-2"])
        migration.postgresql.follow()
        truth = migration.link.open().get(["r-1"])[0]
        match kind:
            case "altered":
                damage_table(migration, "r-1", replace(truth, text="a lie"))
            case "missing":
                damage_table(migration, "r-1", None)
            case "extra":
                damage_table(migration, "r-2", replace(record("r-2"), seq=3))
            case _:
                damage_table(migration, "r-1", replace(truth, text="a lie", seq=truth.seq + 5))
        found = small_migration.verified(migration)
        assert isinstance(found, Differs)
        done = run(migration, *found.ids)
        assert done.postgresql == found.ids
        assert not done.faiss
        assert isinstance(small_migration.verified(migration), Clean)
        assert migration.link.open().get(["r-1"])[0].seq == truth.seq


def test_without_the_journal_the_higher_seq_wins_and_equal_ones_need_a_word(
    small_migration: SmallMigration,
) -> None:
    """Of two versions the later one is right; two contents of one version are decided by the operator
    alone, and until then nothing is changed."""
    small_migration.filled()
    with small_migration.opened() as migration:
        truncate(migration)
        older = migration.link.open().get(["r-3", "r-4"])
        damage_table(migration, "r-3", replace(older[0], text="older", seq=0))
        damage_table(migration, "r-4", replace(older[1], text="which?"))
        damage_table(migration, "r-5", None)
        done = run(migration, "r-3", "r-4", "r-5")
        assert done == Repairs(postgresql=("r-3",), undecided=("r-4", "r-5"))
        done = run(migration, "r-4", "r-5", truth_from="faiss")
        assert done.postgresql == ("r-4", "r-5")
        assert isinstance(small_migration.verified(migration), Clean)


def test_a_write_that_comes_between_is_not_undone(small_migration: SmallMigration) -> None:
    """A record deleted after the decision is not brought back, although the row looks as expected."""
    small_migration.filled()
    with small_migration.opened() as migration:
        store = migration.link.open()
        truth = store.get(["r-6"])[0]
        damage_table(migration, "r-6", None)
        head = migration.journal.head()
        with small_migration.routed() as router:
            router.delete(["r-6"])
        migration.postgresql.follow()

        def unchanged(applied_seq: int) -> bool:
            return "r-6" not in migration.journal.ids_between(head, applied_seq)

        assert not store.repair("r-6", truth, expected_seq=None, unchanged=unchanged)
        assert store.get(["r-6"]) == []


def test_a_repaired_faiss_record_reaches_every_process(small_migration: SmallMigration) -> None:
    """A router that is running answers with the repaired record without a restart, and no process
    makes a snapshot of the damaged copy any more."""
    small_migration.filled()
    with small_migration.opened() as migration:
        truncate(migration)
        # The damage sits in the snapshot, as a flipped bit before its checksum was made would.
        truth = damage_snapshot(migration, "r-7", "damaged")
        with small_migration.routed() as router:
            assert router.get(["r-7"])[0].text == "damaged"
            stale = migration.load_faiss()
            command = small_migration.command("repair", "--from", "postgresql")
            printed, errors = command.communicate(timeout=60)
            assert command.returncode == 0, printed + errors
            until("the repaired record", lambda: router.get(["r-7"])[0].text == truth.text)
        assert migration.snapshots.make(stale.store, reloads=stale.reloads) is None
        assert migration.load_faiss().store.get(["r-7"])[0].text == truth.text
        assert "repaired" in [entry.what for entry in migration.routes.audit()]


class CountingJournal:
    """A journal that counts how often all of its ids are read."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.looks = 0

    def last_changes(self, ids: Sequence[str]) -> tuple[int, dict[str, Change]]:
        self.looks += 1
        return self._journal.last_changes(ids)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)


def test_many_records_are_looked_up_together(small_migration: SmallMigration) -> None:
    """The journal reads every id it has for a look, which must not be once for each damaged record."""
    small_migration.filled(600)
    with small_migration.opened() as migration:
        store = migration.link.open()
        table = store.names.table
        store.transact(lambda c: c.execute(sql.SQL("UPDATE {} SET text = 'a lie'").format(table)))
        faiss = migration.load_faiss()
        journal = CountingJournal(migration.journal)
        ids = [f"r-{n}" for n in range(600)]
        done = repair(
            ids,
            journal=cast(Journal, journal),
            faiss=faiss,
            postgresql=store,
        )
        assert done.postgresql == tuple(ids)
        assert journal.looks <= 3
        assert isinstance(small_migration.verified(migration), Clean)


def test_a_record_asked_for_twice_is_put_right_once(small_migration: SmallMigration) -> None:
    """An id that is given twice is repaired and counted once."""
    small_migration.filled()
    with small_migration.opened() as migration:
        truth = migration.link.open().get(["r-1"])[0]
        damage_table(migration, "r-1", replace(truth, text="a lie"))
        assert run(migration, "r-1", "r-1") == Repairs(postgresql=("r-1",))


class JournalWithEvent:
    """A journal under which something happens after stores were looked at, before the first repair."""

    def __init__(self, journal: Journal, happens: Callable[[], object]) -> None:
        self._journal = journal
        self._happens = [happens]
        self._looked = False

    def last_changes(self, ids: Sequence[str]) -> tuple[int, dict[str, Change]]:
        self._looked = True
        return self._journal.last_changes(ids)

    def sealed(self) -> bool:
        if self._looked and self._happens:
            self._happens.pop()()
        return self._journal.sealed()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)


def test_what_was_put_right_in_faiss_is_told_though_postgresql_needed_another_look(
    small_migration: SmallMigration,
) -> None:
    """Both copies of a record are damaged, and the row changes between the look and its repair: the
    second attempt finds FAISS right already, and still tells that it was repaired, so that it is kept."""
    small_migration.filled()
    with small_migration.opened() as migration:
        store = migration.link.open()
        truth = store.get(["r-1"])[0]
        faiss = migration.load_faiss()
        lie = replace(truth, text="a lie")
        assert faiss.store.repair("r-1", lie, expected_seq=truth.seq, unchanged=lambda _: True)
        assert store.repair("r-1", lie, expected_seq=truth.seq)
        later = replace(lie, seq=truth.seq + 1)
        journal = JournalWithEvent(
            migration.journal, lambda: store.repair("r-1", later, expected_seq=lie.seq)
        )
        done = repair(
            ["r-1"],
            journal=cast(Journal, journal),
            faiss=faiss,
            postgresql=store,
        )
        assert (done.faiss, done.postgresql) == (("r-1",), ("r-1",))


def test_a_repair_waits_for_no_other_one_or_a_backfill(small_migration: SmallMigration) -> None:
    """Of two at once the later one would put back what the other had mended in FAISS, and rows put into
    a table that is being filled would be in the way of their own copies."""
    small_migration.filled()
    with small_migration.opened() as migration, alone(migration.directory):
        truth = migration.link.open().get(["r-1"])[0]
        damage_table(migration, "r-1", replace(truth, text="a lie"))
        command = small_migration.command("repair")
        _, errors = command.communicate(timeout=60)
        assert command.returncode == 1
        assert "another backfill or repair is running" in errors
        assert migration.link.open().get(["r-1"])[0].text == "a lie"


def test_a_copy_of_faiss_that_was_replaced_is_neither_compared_nor_mended(
    small_migration: SmallMigration,
) -> None:
    """A repair elsewhere had this process load FAISS anew: the copy that is left gets no more writes, so
    that it must not be taken for a difference of the stores, nor be what is put right."""
    small_migration.filled()
    with small_migration.opened() as migration:
        faiss, postgresql = migration.load_faiss(), migration.link.open()
        lie = replace(postgresql.get(["r-1"])[0], text="a lie")
        damage_table(migration, "r-1", lie)
        found = verify(
            faiss=faiss,
            postgresql=postgresql,
            on_rows=lambda *_: migration.journal.ask_reload(),
        )
        assert isinstance(found, CouldNotCheck)
        assert "verify again" in found.why
        migration.journal.ask_reload()
        with pytest.raises(StoreUnavailable, match="repair again"):
            repair(
                ["r-1"],
                journal=migration.journal,
                faiss=faiss,
                postgresql=postgresql,
                truth_from="faiss",
            )


class DyingJournal(CountingJournal):
    """A journal of a process that dies before it can ask the others to load the repaired copy."""

    def ask_reload(self) -> None:
        raise KeyboardInterrupt


def damage_snapshot(migration: Migration, name: str, text: str) -> Record:
    """Damage a record in the newest snapshot, as a flipped bit before its checksum would; the right one."""
    faiss = migration.load_faiss()
    truth = faiss.store.get([name])[0]
    lie = replace(truth, text=text)
    assert faiss.store.repair(name, lie, expected_seq=truth.seq, unchanged=lambda _: True)
    migration.snapshots.put_right(faiss, faiss.store)
    return truth


def mended_and_died(migration: Migration, truth: Record) -> None:
    """A repair that ends right after its snapshot."""
    faiss = migration.load_faiss()
    assert faiss.store.repair(truth.id, truth, expected_seq=truth.seq, unchanged=lambda _: True)
    journal = cast(Journal, DyingJournal(migration.journal))
    dying = SnapshotKeeper(migration.directory, journal, kept=2)
    with pytest.raises(KeyboardInterrupt):
        dying.put_right(faiss, faiss.store)


def test_whoever_makes_the_next_snapshot_finishes_a_repair_that_was_killed(
    small_migration: SmallMigration,
) -> None:
    """A router with the damaged copy makes no snapshot of it, but loads what was mended."""
    small_migration.filled()
    with small_migration.opened() as migration:
        truth = damage_snapshot(migration, "r-7", "a lie")
        router = migration.load_faiss()
        mended_and_died(migration, truth)
        assert migration.snapshots.make(router.store, reloads=router.reloads) is None
        router.follow()
        assert router.store.get(["r-7"])[0].text == truth.text
        assert migration.snapshots.make(router.store, reloads=router.reloads) is not None
        assert migration.load_faiss().store.get(["r-7"])[0].text == truth.text


def test_a_newer_snapshot_of_the_damage_does_not_take_the_place_of_what_was_mended(
    small_migration: SmallMigration,
) -> None:
    """A router wrote, and made a snapshot of its damaged copy, after the last look of the repair."""
    small_migration.filled()
    with small_migration.opened() as migration:
        truth = damage_snapshot(migration, "r-7", "a lie")
        other, faiss = migration.load_faiss(), migration.load_faiss()
        copy = faiss.store
        assert copy.repair("r-7", truth, expected_seq=truth.seq, unchanged=lambda _: True)
        migration.journal.append([("new", record("new"))])
        other.follow()
        assert migration.snapshots.make(other.store, reloads=other.reloads) is not None
        migration.snapshots.put_right(faiss, copy)
        kept = migration.load_faiss().store
        assert kept.get(["r-7"])[0].text == truth.text
        assert [row.id for row in kept.get(["new"])] == ["new"]


def test_a_repair_of_faiss_under_writes_ends_with_a_clean_verify(
    small_migration: SmallMigration,
) -> None:
    """What it verifies in the end is what every process loads, and that gets the writes meanwhile."""
    small_migration.filled()
    with small_migration.opened() as migration:
        truncate(migration)
        damage_snapshot(migration, "r-7", "a lie")
        stop = threading.Event()
        with small_migration.routed() as router:

            def write() -> None:
                for number in itertools.count():
                    if stop.wait(0.002):
                        return
                    router.upsert([record(f"live-{number % 10}", str(number))])

            writer = threading.Thread(target=write)
            writer.start()
            try:
                command = small_migration.command("repair", "--from", "postgresql")
                printed, errors = command.communicate(timeout=60)
            finally:
                stop.set()
                writer.join()
        assert command.returncode == 0, printed + errors
        assert "verify: clean" in printed


def test_a_repair_that_was_killed_after_its_snapshot_is_finished_by_the_next(
    small_migration: SmallMigration,
) -> None:
    """The repaired copy was the newest snapshot and no router had been asked to load it: the next repair
    finds nothing to mend, and has them load it before they make a snapshot of the damage again."""
    small_migration.filled()
    with small_migration.opened() as migration:
        truth = damage_snapshot(migration, "r-7", "a lie")
        with small_migration.routed() as router:
            assert router.get(["r-7"])[0].text == "a lie"
            mended_and_died(migration, truth)
            command = small_migration.command("repair")
            printed, errors = command.communicate(timeout=60)
            assert command.returncode == 0, printed + errors
            until("the repaired record", lambda: router.get(["r-7"])[0].text == truth.text)
        reloads = migration.journal.reloads()
        migration.snapshots.finish_put_right()
        assert migration.journal.reloads() == reloads
