"""A verify counts for the copy that was verified, for as long as PostgreSQL holds it, and while it is fresh."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from shadow.core.phases import POSTGRESQL
from shadow.errors import CutoverRefused
from shadow.evidence import EvidenceBook
from shadow.evidence_view import Verification
from shadow.finalize import finalize
from shadow.report.collect import collect
from shadow.status import status
from shadow.verdict import open_sentences
from shadow.verification import verification_of
from shadow.verify_schedule import VerifySchedule
from tests.plugins.migrations import SmallMigration, record
from tests.plugins.postgresql import drop_tables
from vectorstore.postgres.loading import begin_load

# Of the version before verifications were tied to a copy, with what it held.
EARLIER = """
CREATE TABLE tallies (
    process TEXT NOT NULL, era INTEGER NOT NULL, judged TEXT NOT NULL,
    offered INTEGER NOT NULL DEFAULT 0, sampled INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0, issued INTEGER NOT NULL DEFAULT 0,
    resolved INTEGER NOT NULL DEFAULT 0, seen_at REAL NOT NULL,
    PRIMARY KEY (process, era, judged)
) WITHOUT ROWID;
INSERT INTO tallies VALUES ('p', 1, 'postgresql', 100, 50, 5, 45, 42, 1000.0);
CREATE TABLE verifications (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, state TEXT NOT NULL, rows INTEGER NOT NULL,
    differing INTEGER NOT NULL, method TEXT NOT NULL, detail TEXT NOT NULL
);
INSERT INTO verifications VALUES (1, 1000.0, 'clean', 20, 0, 'crc32c', '');
"""


@pytest.fixture
def other_table(postgresql_dsn: str, fresh_table: str) -> Iterator[str]:
    yield f"{fresh_table}_b"
    drop_tables(postgresql_dsn, f"{fresh_table}_b")


def _verify(small: SmallMigration) -> None:
    process = small.command("verify")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, (out, err)


def _counts(small: SmallMigration) -> bool:
    """Whether there is a clean verify for the gate; everything else that looks must say the same."""
    with small.opened() as migration:
        inputs = migration.desk.inputs()
        counts = inputs.verify_age_s is not None
        needs = " | ".join(open_sentences(migration.desk.ready()))
        assert ("a verify of both stores; none has been made" in needs) is not counts
        assert (status(migration)["verify"] is not None) is counts
        state = collect(migration, subject="test").verification.state
        assert state == ("clean" if counts else "never")
        assert counts is (inputs.verify_clean is True)
        return counts


def test_a_verify_of_one_table_says_nothing_of_another(
    small_migration: SmallMigration, other_table: str
) -> None:
    """Nor of the first one, once there was another: it may have been left behind. So one is due."""
    small_migration.filled()
    _verify(small_migration)
    assert _counts(small_migration)
    other = small_migration.with_settings(postgresql={"table": other_table})
    assert not _counts(other)
    other.backfilled()
    assert not _counts(other)
    assert not _counts(small_migration)
    scheduled = other.with_settings(gate={"verify_every_s": 1_000.0})
    with scheduled.opened() as migration:
        schedule = VerifySchedule(scheduled.settings, migration.verification, first_after_s=0.0)
        assert schedule.step(following=True)
        schedule.stop()
    _verify(other)
    assert _counts(other)


def test_a_backfill_of_the_same_table_makes_the_verify_void(
    small_migration: SmallMigration,
) -> None:
    """Of the same snapshot too: what is in the table now was never looked at. Nor is a verify that was
    under way meanwhile one of the new copy."""
    small_migration.filled()
    _verify(small_migration)
    assert _counts(small_migration)
    with small_migration.opened() as migration:
        copy = migration.copy()
        result = small_migration.verified(migration)
    small_migration.backfilled()
    assert not _counts(small_migration)
    with small_migration.opened() as migration:
        kept = verification_of(result, at=time.time(), copy=copy)
        migration.evidence.record_verification(kept)
    assert not _counts(small_migration)
    process = small_migration.command("backfill")
    assert process.wait(timeout=120) == 0
    assert not _counts(small_migration)


def test_a_finalize_is_refused_on_a_verify_of_another_copy(small_migration: SmallMigration) -> None:
    """What PostgreSQL holds now was not verified."""
    small_migration.filled()
    small_migration.flipped()
    small_migration.backfilled()
    with small_migration.opened() as migration:
        migration.postgresql.look()
        with pytest.raises(CutoverRefused, match="no recent clean verify"):
            finalize(migration, who="test", why="test")


def test_a_verify_that_is_stamped_ahead_of_now_is_of_unknown_age(
    small_migration: SmallMigration,
) -> None:
    """The clock was set back since: it does not stay fresh until that moment has come, and the next one
    is made at once. The report says so as the gate does."""
    small_migration.filled()
    small_migration.flipped()
    small = small_migration.with_settings(gate={"verify_every_s": 1_000.0})
    with small.opened() as migration:
        ahead = Verification(time.time() + 3e7, "clean", 20, 0, "crc32c", "", copy=migration.copy())
        migration.evidence.record_verification(ahead)
        migration.postgresql.look()
        assert "newer verify: the last was stamped" in " | ".join(
            open_sentences(migration.desk.ready())
        )
        condition = next(
            one
            for one in collect(migration, subject="test").conditions
            if one.name.startswith("A clean verify")
        )
        assert not condition.met
        with pytest.raises(CutoverRefused, match="no recent clean verify"):
            finalize(migration, who="test", why="test")
        schedule = VerifySchedule(small.settings, migration.verification)
        assert schedule.step(following=True)
        schedule.stop()


def test_evidence_of_an_earlier_version_opens(tmp_path: Path) -> None:
    """By many at once; its counts count, its verify is of no known copy, and both can be added to."""
    with closing(sqlite3.connect(tmp_path / "evidence.db")) as earlier:
        earlier.executescript(EARLIER)
    failed: list[BaseException] = []

    def open_it() -> None:
        try:
            EvidenceBook(tmp_path).close()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    with closing(EvidenceBook(tmp_path)) as book:
        assert book.verification("a copy") is None
        tally = book.total(1, POSTGRESQL)
        assert (tally.sampled, tally.dropped, tally.resolved, tally.lost) == (50, 5, 42, 3)
        kept = Verification(2_000.0, "differs", 20, 1, "md5", "r-1", "a copy")
        book.record_verification(kept)
        assert book.verification("a copy") == kept
        book.tally(1, POSTGRESQL, sampled=1, issued=1)
        assert book.total(1, POSTGRESQL).sampled == 51


@pytest.mark.parametrize("copy", ["none", "another journal's", "loading", "detached"])
def test_without_a_copy_there_is_nothing_to_compare(
    small_migration: SmallMigration, copy: str, tmp_path: Path
) -> None:
    """Verify and repair could not check, and say what is missing; nothing is kept as a finding."""
    with small_migration.routed() as router:
        router.upsert([record("r-1")])
    small = small_migration
    if copy == "another journal's":
        small_migration.backfilled()
        small = SmallMigration(
            small_migration.settings.model_copy(update={"state_directory": tmp_path / "other"})
        )
    elif copy != "none":
        small_migration.backfilled()
        with small_migration.opened() as migration:
            store = migration.link.open()
            if copy == "detached":
                store.detach()
            else:
                begin_load(store, incarnation=migration.journal.incarnation, snapshot_id="s", seq=1)
    for words in (["verify"], ["repair"], ["repair", "r-1", "--from", "faiss"]):
        process = small.command(*words)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 1, (out, err)
        assert "could not check: PostgreSQL holds no complete copy" in err
        assert "run `shadow backfill`" in err
    with small.opened() as migration:
        assert migration.verification() is None
