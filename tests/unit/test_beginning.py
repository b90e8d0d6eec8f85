"""Where a migration begins: what is refused at the start, and what is said when the index is elsewhere."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import faiss
import numpy as np
import pytest
from structlog.testing import capture_logs

from shadow.config import Settings
from shadow.opening import open_migration
from shadow.service import open_router
from tests.fakes.file_limit import file_limit
from tests.foreign.layouts import flat_chunk, write_bare_layout, write_bot_layout
from vectorstore.errors import ConfigurationError, IntakeRefused, StoreCorrupt, StoreUnavailable
from vectorstore.types import Record

ROWS, DIMENSION = 30, 8
LIMIT_BYTES = 50_000


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder with an index to take in."""
    return written(tmp_path / "index")


def written(folder: Path, *, seed: int = 5) -> Path:
    vectors = np.random.default_rng(seed).normal(size=(ROWS, DIMENSION)).astype(np.float32)
    write_bot_layout(folder, "flat", vectors, [flat_chunk(at) for at in range(ROWS)])
    return folder


def settings(state: Path, **of_faiss: Any) -> Settings:
    """PostgreSQL is away: a start does not need it."""
    return Settings.model_validate(
        {
            "state_directory": state,
            "faiss": of_faiss,
            "postgresql": {"dsn": "postgresql://x@127.0.0.1:1/x"},
        }
    )


def begun(found: Settings) -> list[str]:
    """Open and close the migration; what was said meanwhile."""
    said: list[str] = []
    open_migration(found, on_note=said.append).close()
    return said


def count(found: Settings) -> int:
    with closing(open_router(found)) as router:
        return router.count()


def test_what_may_take_minutes_is_said_beforehand(tmp_path: Path, index: Path) -> None:
    """How many vectors are taken in is told before the first byte is copied."""
    said: list[tuple[str, bool]] = []
    copy = tmp_path / "state" / "origin"
    found = settings(tmp_path / "state", path=index)
    open_migration(found, on_note=lambda note: said.append((note, copy.exists()))).close()
    note, copied = said[0]
    assert note.startswith(f"taking in {ROWS} vectors from {index}")
    assert not copied


def write_one(found: Settings) -> None:
    with closing(open_router(found)) as router:
        router.upsert([Record("new", np.ones(DIMENSION, dtype=np.float32), "new", {})])


@pytest.mark.parametrize(("dimension", "movable"), [(16_000, True), (16_001, False)])
def test_more_dimensions_than_postgresql_holds_are_refused_at_the_start(
    tmp_path: Path, dimension: int, movable: bool
) -> None:
    """Not at the backfill, days later: by the head of the file, before anything is copied."""
    long = faiss.IndexFlatL2(dimension)
    long.add(np.ones((2, dimension), dtype=np.float32))
    path = write_bare_layout(tmp_path / "index", long, ["a", "b"])
    found = settings(tmp_path / "state", path=path)
    if movable:
        assert any("took in 2 records" in note for note in begun(found))
        return
    with pytest.raises(IntakeRefused, match=r"16,001 dimensions.*at most 16,000") as refused:
        begun(found)
    assert str(path) in str(refused.value)
    assert "shadow reembed" in str(refused.value)
    assert not (tmp_path / "state" / "origin").exists()


def test_another_path_is_told_at_each_start_and_its_index_is_not_read(
    tmp_path: Path, index: Path
) -> None:
    """To a command and in a router's log; what was taken in goes on."""
    state, other = tmp_path / "state", written(tmp_path / "other", seed=6)
    assert not [note for note in begun(settings(state, path=index)) if "is not read" in note]
    assert begun(settings(state, path=index)) == []
    (tmp_path / "link").symlink_to(index)
    assert begun(settings(state, path=tmp_path / "link")) == []
    assert begun(settings(state)) == []
    assert begun(settings(state, path=tmp_path / "gone")) == []
    for _ in range(2):
        (said,) = begun(settings(state, path=other))
        assert f"faiss.path is {other}" in said
        assert f"took its index in from {index}" in said
    with capture_logs() as logged:
        assert count(settings(state, path=other)) == ROWS
    assert [one["log_level"] for one in logged if one["event"] == "index_elsewhere"] == ["warning"]


def test_an_index_that_comes_after_an_empty_beginning_is_not_passed_over_in_silence(
    tmp_path: Path, index: Path
) -> None:
    """Refused while nothing was written, and told from then on."""
    state = tmp_path / "state"
    begun(settings(state, dimension=DIMENSION))
    with pytest.raises(ConfigurationError, match=r"began with an empty index.*may be deleted"):
        begun(settings(state, path=index))
    write_one(settings(state, dimension=DIMENSION))
    (said,) = begun(settings(state, path=index))
    assert "began with an empty index" in said
    assert count(settings(state, path=index)) == 1


def test_the_last_copy_of_an_index_outlives_an_intake_that_fails(
    tmp_path: Path, index: Path
) -> None:
    """Where the snapshots were lost it may be all there is, of files that are damaged just now."""
    found = settings(tmp_path / "state", path=index)
    begun(found)
    shutil.rmtree(tmp_path / "state" / "snapshots")
    copies = tmp_path / "state" / "origin"
    there = {one.name: one.read_bytes() for one in copies.iterdir()}
    with (
        mock.patch("vectorstore.faiss.intake.take_in", side_effect=IntakeRefused("no room")),
        pytest.raises(IntakeRefused),
    ):
        begun(found)
    assert {one.name: one.read_bytes() for one in copies.iterdir()} == there
    assert count(found) == ROWS


def test_a_repair_that_was_cut_short_does_not_keep_a_lost_snapshot_from_being_made_anew(
    tmp_path: Path, index: Path
) -> None:
    """The mark that a repair left is of a snapshot that is gone, too."""
    found = settings(tmp_path / "state", path=index)
    begun(found)
    shutil.rmtree(tmp_path / "state" / "snapshots")
    (tmp_path / "state" / "snapshots.unloaded").touch()
    assert count(found) == ROWS


def test_a_kill_while_the_former_copy_is_removed_leaves_the_new_one(
    tmp_path: Path, index: Path
) -> None:
    """What is left of the former one is a part of it, and is not put back."""
    found = settings(tmp_path / "state", path=index)
    begun(found)
    shutil.rmtree(tmp_path / "state" / "snapshots")
    copies = tmp_path / "state" / "origin"
    there = {one.name: one.read_bytes() for one in copies.iterdir()}

    def cut_short(path: Path, **_options: object) -> None:
        if path.exists():
            next(path.iterdir()).unlink()
            raise KeyboardInterrupt

    with mock.patch("shadow.intake.shutil.rmtree", cut_short), pytest.raises(KeyboardInterrupt):
        begun(found)
    with (
        mock.patch("vectorstore.faiss.intake.take_in", side_effect=IntakeRefused("no room")),
        pytest.raises(IntakeRefused),
    ):
        begun(found)
    assert {one.name: one.read_bytes() for one in copies.iterdir()} == there
    assert count(found) == ROWS


def test_rows_that_were_restored_are_no_empty_beginning(tmp_path: Path, index: Path) -> None:
    """What is remembered may be older than a backup that was brought back."""
    state = tmp_path / "state"
    begun(settings(state, path=index))
    (state / "intake.json").write_text('{"path": null}')
    other = written(tmp_path / "other", seed=6)
    (said,) = begun(settings(state, path=other))
    assert "is not in it and is not read" in said
    assert count(settings(state, path=other)) == ROWS


def test_the_folder_and_the_index_in_it_are_one_place(tmp_path: Path, index: Path) -> None:
    """Whichever of them is given later on."""
    state = tmp_path / "state"
    begun(settings(state, path=index))
    assert begun(settings(state, path=next(index.glob("*.index")))) == []


@pytest.mark.parametrize("memory", [b"", b"[]", b"{}", b"\xff"])
def test_a_memory_that_is_damaged_or_not_readable_is_none(
    tmp_path: Path, index: Path, memory: bytes
) -> None:
    """The migration goes on, and nobody can tell where its index came from."""
    found = settings(tmp_path / "state", path=index)
    begun(found)
    kept = tmp_path / "state" / "intake.json"
    kept.write_bytes(memory)
    assert begun(settings(tmp_path / "state", path=tmp_path)) == []
    kept.unlink()
    kept.mkdir()
    assert begun(settings(tmp_path / "state", path=tmp_path)) == []


def test_evidence_that_is_damaged_is_named_with_the_way_out(tmp_path: Path) -> None:
    """It holds no records, so it may be moved away."""
    found = settings(tmp_path / "state", dimension=DIMENSION)
    begun(found)
    for part in ("-wal", "-shm"):
        (tmp_path / "state" / f"evidence.db{part}").unlink(missing_ok=True)
    (tmp_path / "state" / "evidence.db").write_bytes(b"rubbish" * 2_000)
    with pytest.raises(StoreCorrupt, match=r"evidence\.db cannot be used .*move it"):
        begun(found)
    (tmp_path / "state" / "evidence.db").rename(tmp_path / "away")
    begun(found)


def test_wherever_the_disk_is_full_a_start_says_so(tmp_path: Path) -> None:
    """Whichever file it was that did not fit; and with room the same start succeeds."""
    told: list[str] = []
    for limit in range(0, 120_000, 6_500):
        found = settings(tmp_path / f"state {limit}", dimension=DIMENSION)
        with file_limit(limit):
            try:
                begun(found)
            except StoreUnavailable as error:
                told.append(str(error))
        begun(found)
    assert all("the disk that holds" in one for one in told)
    assert {"journal.db" in one for one in told} == {True, False}


def test_evidence_on_a_full_disk_is_not_called_damaged(tmp_path: Path) -> None:
    """Whoever moved it away would lose it, and make no room."""
    found = settings(tmp_path / "state", dimension=DIMENSION)
    begun(found)
    for kept in (tmp_path / "state").glob("evidence.db*"):
        kept.unlink()
    # The journal's log needs less than that, the first page of the evidence more.
    with (
        file_limit(LIMIT_BYTES),
        pytest.raises(StoreUnavailable, match=r"evidence\.db is full or fails") as refused,
    ):
        begun(found)
    assert "move it" not in str(refused.value)
    begun(found)


@pytest.mark.parametrize(
    "change", ["another path", "no path", "changed files", "a file gone", "no copy", "truncated"]
)
def test_without_its_snapshots_a_journal_begins_on_no_other_index(
    tmp_path: Path, index: Path, change: str
) -> None:
    """Its writes would be laid over another beginning, or some of them be missing. Nothing is made."""
    found = settings(tmp_path / "state", path=index)
    write_one(found)
    if change == "truncated":
        with closing(open_migration(found)) as migration:
            migration.snapshots.make(migration.load_faiss().store, alone=True)
            assert migration.journal.truncate(1) == 1
    shutil.rmtree(tmp_path / "state" / "snapshots")
    of_faiss: dict[str, Any] = {
        "another path": {"path": written(tmp_path / "other", seed=6)},
        "no path": {"dimension": DIMENSION},
    }.get(change, {"path": index})
    copies = tmp_path / "state" / "origin"
    if change == "changed files":
        written(index, seed=6)
    elif change == "a file gone":
        next(index.glob("*.metadata")).unlink()
    elif change == "no copy":
        shutil.rmtree(copies)
    there = sorted(copies.glob("*"))
    with pytest.raises(StoreCorrupt, match=r"snapshots of FAISS are gone.*shadow restore"):
        begun(settings(tmp_path / "state", **of_faiss))
    assert not (tmp_path / "state" / "snapshots").exists()
    assert sorted(copies.glob("*")) == there


def test_without_its_snapshots_a_whole_journal_leads_on_from_the_same_index(
    tmp_path: Path, index: Path
) -> None:
    """Where the index still is what it was, nothing is lost; a file of checksums that lies beside it does
    not matter."""
    (index / "SHA256SUMS").write_text("of a download")
    found = settings(tmp_path / "state", path=index)
    write_one(found)
    shutil.rmtree(tmp_path / "state" / "snapshots")
    assert count(found) == ROWS + 1
    # The index in the folder is the same place.
    shutil.rmtree(tmp_path / "state" / "snapshots")
    (inside,) = index.glob("*.index")
    assert count(settings(tmp_path / "state", path=inside)) == ROWS + 1
