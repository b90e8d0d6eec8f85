"""Verify runs by itself, in a process of its own, once at a time; and dead rows are cleared away."""

from __future__ import annotations

import itertools
import threading
from contextlib import closing
from pathlib import Path

import pytest

from shadow.config_sources import environment_of, load_settings
from shadow.core.phases import Phase
from shadow.process_lock import hold_lock
from shadow.verify_schedule import VerifySchedule
from shadow.writes.journal import Journal
from shadow.writes.snapshots import SnapshotKeeper
from tests.plugins.migrations import SmallMigration, record, until


def test_a_verify_is_made_when_it_is_due(small_migration: SmallMigration) -> None:
    """None before PostgreSQL holds a copy; one when the last is too old, which the gate then sees; not
    a second one while it runs or while another process makes one; none when it is switched off."""
    small_migration.filled()
    small = small_migration.with_settings(gate={"verify_every_s": 1_000.0})
    ticks = itertools.count(1_000_000.0, 400.0)
    with small.opened() as migration:
        schedule = VerifySchedule(
            small.settings, migration.verification, first_after_s=0.0, clock=lambda: next(ticks)
        )
        assert not schedule.step(following=False)
        elsewhere = hold_lock(migration.directory / "verify.lock")
        assert elsewhere is not None
        assert not schedule.step(following=True)
        elsewhere.close()
        assert schedule.step(following=True)
        assert not schedule.step(following=True)
        until("its result", lambda: migration.verification() is not None, seconds=60)
        found = migration.verification()
        assert found is not None
        assert (found.state, found.rows) == ("clean", 20)
        schedule.stop()
        off = VerifySchedule(small_migration.settings, migration.verification, first_after_s=0.0)
        assert not off.step(following=True)


def test_the_child_has_the_very_settings(small_migration: SmallMigration) -> None:
    """What a process was given in code reaches its child, and no file or older variable interferes."""
    settings = small_migration.with_settings(
        faiss={"quarantine": ("a", "b, c")},
        gate={"recall_min": 0.9, "strata": ("label:maize, beans", "filtered")},
    ).settings
    base = {"PATH": "/bin", "SHADOW_GATE__RECALL_MIN": "0.5", "PRIMARY": "postgresql"}
    child = load_settings(environment=environment_of(settings, base))
    assert child == settings.model_copy(update={"primary": None})


def test_a_large_index_is_not_written_anew_for_a_few_entries(
    small_migration: SmallMigration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only when a twentieth of its rows were written, however few entries the settings say."""
    small = small_migration.with_settings(journal={"snapshot_entries": 1})
    with small.routed() as router:
        router.upsert([record(f"r-{n}") for n in range(100)])
    with small.opened() as migration, closing(migration.load_faiss().store) as store:
        migration.snapshots.make(store)

    rounds = 0
    truncate = Journal.truncate

    def counted(journal: Journal, upto: int) -> int:
        nonlocal rounds
        rounds += 1
        return truncate(journal, upto)

    monkeypatch.setattr("shadow.steward.HOUSEKEEPING_S", 0.05)
    monkeypatch.setattr(Journal, "truncate", counted)
    with small.opened() as migration, small.routed() as router:
        router.upsert([record(f"r-{n}", "again") for n in range(4)])
        before = rounds
        until("two rounds of housekeeping", lambda: rounds >= before + 2)
        assert migration.snapshots.newest_seq() == 100
        router.upsert([record("r-4", "again")])
        until("a snapshot", lambda: migration.snapshots.newest_seq() == 105)


def test_a_snapshot_clears_dead_rows_away(small_migration: SmallMigration) -> None:
    """An HNSW index with many overwritten rows is rebuilt when a snapshot is made; what was written
    during the rebuild is in it."""
    small = small_migration.with_settings(faiss={"kind": "hnsw", "tombstones_share_max": 0.3})
    with small.routed() as router:
        router.upsert([record(f"r-{n}") for n in range(100)])
    with small.opened() as migration, closing(migration.load_faiss().store) as store:
        migration.snapshots.make(store)
        assert store.describe()["tombstones"] == 0
    with small.routed() as router:
        router.upsert([record(f"r-{n}", "again") for n in range(60)])
    with small.opened() as migration:
        with closing(migration.load_faiss().store) as store:
            assert store.describe()["tombstones"] == 60
            migration.snapshots.make(store)
            assert store.describe()["tombstones"] == 0
            assert store.count() == 100
        with closing(migration.load_faiss().store) as store:
            assert store.describe()["tombstones"] == 0
            assert store.get(["r-3"])[0].text == "again"


def test_a_program_may_change_its_working_directory(
    small_migration: SmallMigration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As daemons and notebooks do: a state directory that was named from the first one stays where it is,
    for what runs in the background too."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    settings = small_migration.settings.model_copy(update={"state_directory": Path(".shadow")})
    migration = SmallMigration(settings).with_settings(gate={"verify_every_s": 1.0})
    monkeypatch.chdir(first)
    migration.filled(1)
    with migration.opened() as parts, migration.routed() as router:
        monkeypatch.chdir(second)

        def clean() -> bool:
            found = parts.verification()
            return found is not None and found.state == "clean"

        until("a verify in the background", clean, seconds=60)
        assert router.upsert([record("b")]) == 2
    assert list(second.iterdir()) == []


def test_no_step_waits_for_a_snapshot(
    small_migration: SmallMigration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one is made, which takes minutes with millions of rows, the phases go on."""
    under_way, done = threading.Event(), threading.Event()

    def slow(*_: object, **__: object) -> None:
        under_way.set()
        done.wait()

    small_migration.filled()
    small = small_migration.with_settings(journal={"snapshot_entries": 1})
    monkeypatch.setattr(SnapshotKeeper, "make", slow)
    try:
        with small.opened() as migration:
            migration.journal.append([(f"r-{n}", record(f"r-{n}", "again")) for n in range(20)])
            with small.routed():
                assert under_way.wait(60)
                until("the next phase", lambda: migration.routes.current().phase is Phase.SHADOW)
                done.set()
    finally:
        done.set()
