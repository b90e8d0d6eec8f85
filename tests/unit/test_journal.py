"""The journal through its public interface, on real files."""

from __future__ import annotations

import os
import resource
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from shadow.errors import (
    ForeignHost,
    ForeignIncarnation,
    JournalFull,
    JournalGap,
    JournalUnavailable,
)
from shadow.writes.checkpointer import CHECKPOINT_EVERY_BYTES
from shadow.writes.host import Host
from shadow.writes.journal import Journal
from shadow.writes.journal_append import Appended
from vectorstore.errors import ConfigurationError, InvalidInput, StoreCorrupt, VectorStoreError
from vectorstore.types import Change, Metric, Record

DIMENSION = 8
DAY_S = 24 * 3600


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def record(name: str, fill: float = 0.5, text: str = "text", **metadata: object) -> Record:
    return Record(name, np.full(DIMENSION, fill, dtype=np.float32), text, metadata)


def put(name: str, fill: float = 0.5, text: str = "text") -> tuple[str, Record | None]:
    return name, record(name, fill, text)


def open_bound(directory: Path, **options: object) -> Journal:
    journal = Journal.open(directory, **options)  # type: ignore[arg-type]
    journal.bind(DIMENSION, Metric.COSINE)
    return journal


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Iterator[Journal]:
    journal = open_bound(tmp_path, clock=clock)
    yield journal
    journal.close()


def test_an_entry_reads_back_as_it_was_written(tmp_path: Path) -> None:
    """Vector bits, text, metadata, order, deletes and seqs come back; the record carries its seq."""
    journal = Journal.open(tmp_path)
    journal.bind(DIMENSION, Metric.L2)
    vector = np.array([0.1, -0.0, 3e-40, 1e18, -1, 2, 3, 4], dtype=np.float32)
    metadata = {"page": 3, "crop": "maïze", "nested": {"b": [1, 2.5, None, True]}, "big": 10**30}
    written = Record("a", vector, "line one\nline two", metadata)
    assert journal.append([("a", written), ("b", None)]) == Appended(1, 2)

    upsert, delete = journal.read(0)

    assert (upsert.seq, upsert.id) == (1, "a")
    assert upsert.record is not None
    assert upsert.record.seq == 1
    assert upsert.record.embedding.dtype == np.float32
    assert upsert.record.embedding.tobytes() == vector.tobytes()
    assert upsert.record.text == written.text
    assert upsert.record.metadata == metadata
    assert (delete.seq, delete.id, delete.record) == (2, "b", None)
    journal.close()


def test_what_was_appended_is_there_after_reopening(tmp_path: Path, journal: Journal) -> None:
    """Entries, head, incarnation and binding outlive the process's handle."""
    journal.append([put("a"), put("b")])
    journal.close()

    with_again = Journal.open(tmp_path)
    assert with_again.incarnation == journal.incarnation
    assert with_again.head() == 2
    assert with_again.append([put("c")]) == Appended(3, 3)
    assert [change.id for change in with_again.read(1)] == ["b", "c"]
    with_again.close()


def test_the_file_is_set_for_durability_and_privacy(tmp_path: Path, journal: Journal) -> None:
    """WAL and FULL are on in the writing connection, and only the owner may read the file."""
    connection = journal._file._writer
    pragmas = {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "fullfsync", "checkpoint_fullfsync")
    }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "fullfsync": 1,
        "checkpoint_fullfsync": 1,
    }
    journal.append([put("a")])
    for file in tmp_path.glob("journal.db*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_reading_goes_on_from_any_place(journal: Journal) -> None:
    """`after` and `limit` page through the log; level is an empty list."""
    journal.append([put(str(i)) for i in range(10)])
    assert [change.seq for change in journal.read(0, 4)] == [1, 2, 3, 4]
    assert [change.seq for change in journal.read(8, 4)] == [9, 10]
    assert journal.read(10) == []


def test_a_read_is_bounded_in_bytes(journal: Journal) -> None:
    """Large texts end a read early, and reading on from there misses nothing."""
    text = "x" * 900_000
    for _ in range(3):
        journal.append([put(str(i), text=text) for i in range(10)])
    seen: list[int] = []
    reads = 0
    while changes := journal.read(len(seen)):
        reads += 1
        seen += [change.seq for change in changes]
    assert seen == list(range(1, 31))
    assert reads == 2


def test_a_cursor_above_the_head_is_foreign(journal: Journal) -> None:
    """A place that this journal never reached is refused wherever it is given."""
    journal.append([put("a")])
    for use in (
        lambda: journal.read(2),
        lambda: journal.ids_between(2, 3),
        lambda: journal.set_cursor("postgresql", 2),
        lambda: journal.hold("backfill", 2),
    ):
        with pytest.raises(ForeignIncarnation, match="above the journal's head 1"):
            use()
    assert journal.cursors() == {}


def test_a_retry_is_the_same_write(tmp_path: Path, journal: Journal, clock: Clock) -> None:
    """The same op_id gives the first call's seqs and adds nothing, also after truncation, reopening
    and almost a day; with another batch it is refused; after a day it is a new write."""
    first = journal.append([put("a"), put("b")], op_id="op-1")
    assert first == Appended(1, 2)
    assert journal.append([put("a"), put("b")], op_id="op-1") == Appended(1, 2, replayed=True)
    with pytest.raises(InvalidInput, match=r"op-1.*another batch"):
        journal.append([put("a", fill=0.6), put("b")], op_id="op-1")
    assert journal.head() == 2

    journal.truncate(2)
    journal.close()
    clock.now += DAY_S - 1
    again = open_bound(tmp_path, clock=clock)
    assert again.append([put("a"), put("b")], op_id="op-1") == Appended(1, 2, replayed=True)
    clock.now += 2
    assert again.append([put("a"), put("b")], op_id="op-1") == Appended(3, 4)
    again.close()


def test_fields_do_not_run_into_each_other_in_a_retry(journal: Journal) -> None:
    """Two batches whose bytes only differ in where a field ends are different batches."""
    journal.append([("a", None), ("bc", None)], op_id="op")
    with pytest.raises(InvalidInput):
        journal.append([("ab", None), ("c", None)], op_id="op")


def test_truncation_forgets_old_operations(journal: Journal, clock: Clock) -> None:
    """The table of operations does not grow for ever."""
    for i in range(5):
        journal.append([("a", None)], op_id=f"op-{i}")
    clock.now += DAY_S + 1
    journal.truncate(0)
    with journal._file.reading() as connection:
        assert connection.execute("SELECT count(*) FROM operation").fetchone() == (0,)


def test_truncation_does_not_look_at_a_whole_day_of_operations(journal: Journal) -> None:
    """However many are kept, it holds writers off for a bounded time: it looks at the oldest alone."""
    with journal._file.writing() as connection:
        connection.executemany(
            "INSERT INTO operation VALUES (?, ?, ?, x'00', ?)",
            ((at, at, str(at), journal._appender.clock()) for at in range(1, 20_001)),
        )
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        connection.set_progress_handler(step, 100)
    journal.truncate(0)
    with journal._file.writing() as connection:
        connection.set_progress_handler(None, 0)
    assert steps < 20_000 / 100


@pytest.mark.parametrize(
    ("changes", "op_id", "why"),
    [
        ([], None, "empty"),
        ([("", None)], None, "id"),
        ([("a\0", None)], None, "NUL"),
        ([("a", record("b"))], None, "carries the record 'b'"),
        ([put("a", text="\0")], None, "NUL"),
        ([put("a", text="\ud800")], None, "surrogate"),
        ([("a", record("a", x=float("nan")))], None, "JSON"),
        ([("a", Record("a", np.zeros(7, np.float32), "", {}))], None, "shape"),
        ([("a", Record("a", np.zeros(8, np.float32), "", {}))], None, "direction"),
        ([("a", Record("a", np.ones(8, np.float32), "", ["x"]))], None, "JSON object"),  # type: ignore[arg-type]
        ([("a", None)], "", "op_id"),
        ([("a", None)], "x" * 201, "op_id"),
        ([("a", None)], "\ud800", "op_id"),
        ([("a", None)], "x\0", "op_id"),
        ([("a", None)] * 10_001, None, "10,000"),
    ],
)
def test_a_rejected_batch_leaves_no_trace(
    journal: Journal, changes: list[tuple[str, Record | None]], op_id: str | None, why: str
) -> None:
    """What could not be read back as it was is refused whole; seq and file stay as they were."""
    before = journal.data_version()
    with pytest.raises(InvalidInput, match=why):
        journal.append([("good", None), *changes] if changes else [], op_id=op_id)
    assert journal.head() == 0
    assert journal.data_version() == before
    assert journal.append([put("a")]) == Appended(1, 1)


def test_appending_needs_a_binding_and_keeps_to_it(tmp_path: Path) -> None:
    """The first bind records dimension and metric; another model is refused for good."""
    with_none = Journal.open(tmp_path)
    with pytest.raises(ConfigurationError, match="bind"):
        with_none.append([put("a")])
    with_none.bind(DIMENSION, Metric.COSINE)
    with_none.close()
    again = Journal.open(tmp_path)
    again.bind(DIMENSION, Metric.COSINE)
    for dimension, metric in ((DIMENSION + 1, Metric.COSINE), (DIMENSION, Metric.L2)):
        with pytest.raises(ConfigurationError, match="8 dimensions under cosine"):
            again.bind(dimension, metric)
    assert again.append([put("a")]) == Appended(1, 1)
    again.close()


def test_truncation_stops_at_the_lowest_cursor_or_hold(journal: Journal) -> None:
    """Nothing that a store or a holder still needs is deleted, whatever is asked."""
    journal.append([put(str(i)) for i in range(20)])
    journal.set_cursor("postgresql", 12)
    journal.hold("backfill", 5)
    assert journal.oldest_holder() == ("backfill", 5)
    assert journal.truncate(20) == 5
    assert journal.base() == 5
    journal.release("backfill")
    assert journal.oldest_holder() == ("postgresql", 12)
    assert journal.truncate(10) == 5
    assert journal.truncate(20) == 2
    assert journal.cursors() == {"postgresql": 12}
    assert [change.seq for change in journal.read(12)] == list(range(13, 21))
    journal.drop_cursor("postgresql")
    assert journal.oldest_holder() is None
    assert journal.truncate(20) == 8


def test_seq_never_falls_after_truncation(tmp_path: Path, journal: Journal) -> None:
    """An emptied journal goes on counting, also after it is reopened."""
    journal.append([put(str(i)) for i in range(2500)])
    assert journal.truncate(10_000) == 2500
    assert (journal.head(), journal.base(), journal.usage().entries) == (2500, 2500, 0)
    journal.close()
    again = open_bound(tmp_path)
    assert again.append([put("a")]) == Appended(2501, 2501)
    again.close()


def test_a_reader_below_the_base_is_told_of_the_gap(journal: Journal) -> None:
    """Truncated entries are never silently skipped, by a read, a cursor or a hold."""
    journal.append([put(str(i)) for i in range(5)])
    journal.truncate(3)
    for use in (
        lambda: journal.read(2),
        lambda: journal.ids_between(2, 5),
        lambda: journal.set_cursor("postgresql", 2),
        lambda: journal.hold("snapshot", 2),
    ):
        with pytest.raises(JournalGap, match="truncated up to 3"):
            use()
    assert [change.seq for change in journal.read(3)] == [4, 5]


def test_a_missing_entry_is_corruption(tmp_path: Path, journal: Journal) -> None:
    """A hole that truncation did not make stops the reader."""
    journal.append([put(str(i)) for i in range(5)])
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        connection.execute("DELETE FROM entry WHERE seq = 3")
    connection.close()
    with pytest.raises(StoreCorrupt, match="entry 3"):
        journal.read(0)


def test_times_and_ids_of_entries(journal: Journal, clock: Clock) -> None:
    """`appended_at` is None outside the log; `ids_between` is open below and closed above."""
    journal.append([put("a"), put("b")])
    clock.now += 5
    journal.append([put("c"), ("a", None)])
    assert journal.appended_at(1) == clock.now - 5
    assert journal.appended_at(4) == clock.now
    assert journal.appended_at(5) is None
    assert journal.ids_between(0, 4) == {"a", "b", "c"}
    assert journal.ids_between(2, 3) == {"c"}
    assert journal.ids_between(4, 4) == set()
    journal.truncate(1)
    assert journal.appended_at(1) is None


def test_a_poller_sees_every_commit_and_no_other_change(tmp_path: Path, journal: Journal) -> None:
    """`data_version` moves with this journal's writes and another's, and rests otherwise."""
    other = open_bound(tmp_path)
    versions = [journal.data_version()]
    assert journal.data_version() == versions[0]
    for writer in (journal, other, journal):
        writer.append([put("a")])
        versions.append(journal.data_version())
        assert journal.data_version() == versions[-1]
    assert len(set(versions)) == 4
    other.close()


def test_the_size_limit_warns_and_then_refuses(tmp_path: Path, clock: Clock) -> None:
    """From 80 % there is a warning, at the limit an error that names who lags; room made by
    truncation is used again, and what was acknowledged is all there."""
    journal = open_bound(tmp_path, size_bytes_max=2_000_000, clock=clock)
    text = "x" * 20_000
    journal.append([put("a", text=text)])
    journal.set_cursor("postgresql", 0)
    acknowledged = 1
    warned_at = None
    refusal = None
    while refusal is None:
        assert acknowledged < 200, "the limit never came"
        try:
            journal.append([put("a", text=text)])
            acknowledged += 1
        except JournalFull as error:
            refusal = str(error)
        if warned_at is None and journal.usage().warning:
            warned_at = journal.usage().bytes
    assert "limit of 2,000,000" in refusal
    assert "'postgresql' still needs the entries after 0" in refusal
    assert warned_at is not None
    assert 1_600_000 <= warned_at < 1_700_000
    assert journal.usage().bytes <= 2_000_000
    assert journal.head() == acknowledged
    journal.set_cursor("postgresql", acknowledged - 10)
    journal.truncate(acknowledged)
    assert journal.append([put("a", text=text)]).last_seq == acknowledged + 1
    assert not journal.usage().warning
    journal.close()


@pytest.mark.parametrize("text", ["x" * 2_100, "\u1002" * 20_000])
def test_a_file_keeps_to_the_limit_whatever_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Rows that leave half a page empty, and letters of several bytes: what the file takes is counted."""
    monkeypatch.setattr("shadow.writes.journal_append.ROOM_AGE_S_MAX", 3_600.0)
    journal = open_bound(tmp_path, size_bytes_max=2_000_000)
    journal.append([put("a")])
    journal.set_cursor("postgresql", 0)

    def fill() -> None:
        for _ in range(2_000):
            journal.append([put("a", text=text)])

    with pytest.raises(JournalFull):
        fill()
    # The last one may take a page, and the index over ids another.
    assert journal.usage().bytes <= 2_000_000 + 2 * 4_096
    journal.close()


def test_one_callers_error_is_its_own(tmp_path: Path) -> None:
    """Among many threads, batches that do not fit or reuse an op_id fail alone; the others get
    gapless, disjoint seqs with their own contents."""
    journal = open_bound(tmp_path, size_bytes_max=3_000_000)
    journal.append([put("x")], op_id="taken")
    results: dict[str, Appended] = {}
    errors: dict[str, VectorStoreError] = {}
    start = threading.Barrier(16)

    def write(name: str) -> None:
        start.wait()
        for i in range(20):
            key = f"{name}-{i}"
            kind = i % 4
            try:
                if kind == 0:
                    results[key] = journal.append([put(key, text="y" * 900_000)] * 4)
                elif kind == 1:
                    results[key] = journal.append([put(key)], op_id="taken")
                else:
                    results[key] = journal.append([put(key), put(key)], op_id=key)
            except VectorStoreError as error:
                errors[key] = error

    threads = [threading.Thread(target=write, args=(f"w{n}",)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(results) == 16 * 10
    assert {type(error) for error in errors.values()} == {JournalFull, InvalidInput}
    seqs = sorted(
        seq for appended in results.values() for seq in (appended.first_seq, appended.last_seq)
    )
    assert seqs == list(range(2, 2 + 2 * len(results)))
    by_seq = {change.seq: change.id for change in journal.read(0, 1000)}
    for key, appended in results.items():
        assert by_seq[appended.first_seq] == by_seq[appended.last_seq] == key
    journal.close()


def test_a_batch_that_fails_in_the_file_fails_alone(tmp_path: Path, journal: Journal) -> None:
    """When a group's transaction fails, the others of the group are committed without the culprit."""
    other = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
    other.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON entry WHEN NEW.id = 'culprit' "
        "BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"
    )
    # While this lock is held the first caller waits inside its transaction and the rest queue up
    # behind it: they become one group.
    other.execute("BEGIN IMMEDIATE")
    results: dict[str, Appended | JournalUnavailable] = {}
    told: dict[int, str] = {}
    early: list[str] = []
    too_early = threading.Event()

    def tell(changes: Sequence[Change]) -> None:
        seqs = [change.seq for change in changes]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
        if len(changes) > 1:
            # So long one of the group has time to return before it is told of, if it may.
            too_early.wait(0.3)
        told.update({change.seq: change.id for change in changes})

    journal.on_commit(tell)

    def write(name: str) -> None:
        try:
            results[name] = appended = journal.append([put(name)])
            if told.get(appended.last_seq) != name:
                early.append(name)
                too_early.set()
        except JournalUnavailable as error:
            results[name] = error

    names = ["first", *(f"w{n}" for n in range(8)), "culprit", *(f"x{n}" for n in range(8))]
    threads = [threading.Thread(target=write, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 5
    while len(journal._appender._group._queue) < len(names) - 1:
        assert time.monotonic() < deadline, "the callers did not queue up"
        time.sleep(0.001)
    other.execute("COMMIT")
    other.close()
    for thread in threads:
        thread.join()

    assert early == [], "returned before they were told of"
    assert "refused by the test" in str(results.pop("culprit"))
    seqs = [result.last_seq for result in results.values() if isinstance(result, Appended)]
    assert sorted(seqs) == list(range(1, len(names)))
    assert journal.head() == len(names) - 1
    assert told == {change.seq: change.id for change in journal.read(0)}


def test_new_entries_are_told_of_once_and_before_they_are_acknowledged(journal: Journal) -> None:
    """By one thread for all that wrote at once, as the journal holds them; a retry is not new."""
    told: list[Change] = []
    journal.on_commit(told.extend)
    start = threading.Barrier(8)
    unheard: list[str] = []

    def write(name: str) -> None:
        start.wait()
        for n in range(20):
            appended = journal.append([put(name), (f"gone-{name}", None)], op_id=f"{name}-{n}")
            again = journal.append([put(name), (f"gone-{name}", None)], op_id=f"{name}-{n}")
            assert again.replayed
            heard = {change.seq for change in list(told)}
            if not {appended.first_seq, appended.last_seq} <= heard:
                unheard.append(name)

    threads = [threading.Thread(target=write, args=(f"w{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert unheard == []
    assert [c.seq for c in sorted(told, key=lambda c: c.seq)] == list(range(1, 321))
    written = {change.seq: change for change in journal.read(0)}
    for change in told:
        stored = written[change.seq]
        assert (change.id, change.mark) == (stored.id, stored.mark)
        assert (change.record is None) == (stored.record is None)
        if change.record is not None and stored.record is not None:
            assert change.record.seq == change.seq
            assert change.record.embedding.tobytes() == stored.record.embedding.tobytes()


def test_what_is_told_of_is_what_was_written(journal: Journal) -> None:
    """A caller whose wait was interrupted may use its array again before the stores were brought to it."""
    given = np.zeros(DIMENSION, dtype=np.float32)
    given[0] = 1.0
    told: list[Change] = []
    journal.on_commit(told.extend)
    journal.append([("a", Record("a", given, "text", {}))])
    given[:] = 2.0
    (stored,) = journal.read(0)
    assert told[0].record is not None
    assert stored.record is not None
    assert told[0].record.embedding.tobytes() == stored.record.embedding.tobytes()


def test_a_writer_that_is_interrupted_while_it_tells_lets_the_others_go(
    tmp_path: Path, journal: Journal
) -> None:
    """Ctrl-C in the one that sees to a group: what was committed is acknowledged to the rest."""

    def tell(changes: Sequence[Change]) -> None:
        if len(changes) > 1:
            raise KeyboardInterrupt

    journal.on_commit(tell)
    other = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    acknowledged: list[int] = []
    interrupted: list[str] = []

    def write(name: str) -> None:
        try:
            acknowledged.append(journal.append([put(name)]).last_seq)
        except KeyboardInterrupt:
            interrupted.append(name)

    # One waits for the lock that is held here; those behind it become one group.
    threads = [threading.Thread(target=write, args=(f"w{n}",), daemon=True) for n in range(6)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 5
    while len(journal._appender._group._queue) < len(threads) - 1:
        assert time.monotonic() < deadline, "the callers did not queue up"
        time.sleep(0.001)
    other.execute("COMMIT")
    other.close()
    for thread in threads:
        thread.join(timeout=5)
        assert not thread.is_alive(), "a writer was never told that its write is durable"
    assert len(interrupted) == 1
    assert len(acknowledged) == 5
    assert journal.head() == 6
    assert journal.append([put("after")]).last_seq == 7


def test_the_same_operation_from_many_threads_is_one_write(journal: Journal) -> None:
    """Concurrent retries of one op_id all get the same seqs; exactly one of them wrote."""
    outcomes: list[Appended] = []
    start = threading.Barrier(8)

    def retry() -> None:
        start.wait()
        outcomes.append(journal.append([put("a")], op_id="once"))

    threads = [threading.Thread(target=retry) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {(o.first_seq, o.last_seq) for o in outcomes} == {(1, 1)}
    assert sum(not o.replayed for o in outcomes) == 1
    assert journal.head() == 1


def test_another_machine_is_refused_with_the_reason(tmp_path: Path) -> None:
    """A journal of another host opens only by adoption; a reboot or a new container on the same
    machine is the same host."""
    here = Host(boot_id="b1", machine_id="m1", name="one")
    Journal.open(tmp_path, host=here).close()
    for same in (
        Host(boot_id="b1", machine_id="", name="container"),
        Host(boot_id="b2", machine_id="m1", name="renamed"),
        here,
    ):
        Journal.open(tmp_path, host=same).close()
        Journal.open(tmp_path, host=here, adopt_host=True).close()
    other = Host(boot_id="b9", machine_id="m9", name="two")
    with pytest.raises(ForeignHost, match=r"belongs to the machine 'one'; this is 'two'"):
        Journal.open(tmp_path, host=other)
    Journal.open(tmp_path, host=other, adopt_host=True).close()
    with pytest.raises(ForeignHost):
        Journal.open(tmp_path, host=here)


def test_a_restore_stops_the_writers_that_missed_it(tmp_path: Path, journal: Journal) -> None:
    """After a new incarnation, a process of the old one writes nothing until it is restarted."""
    journal.append([put("a")])
    restorer = open_bound(tmp_path)
    before = restorer.incarnation
    assert restorer.restart_incarnation() == restorer.incarnation != before
    with pytest.raises(ForeignIncarnation, match="restart the process"):
        journal.append([put("b")])
    assert restorer.head() == 1
    assert restorer.append([put("b")]) == Appended(2, 2)
    restorer.close()


def test_a_replaced_file_is_never_written(tmp_path: Path, journal: Journal) -> None:
    """A write into a file that was moved away would be lost, so it is refused."""
    journal.append([put("a")])
    (tmp_path / "journal.db").rename(tmp_path / "moved.db")
    with pytest.raises(JournalUnavailable, match="removed or replaced"):
        journal.append([put("b")])


def test_a_file_that_is_not_a_journal_is_refused(tmp_path: Path) -> None:
    """Garbage, a torn file or a later format are named as such, and left as they were."""
    path = tmp_path / "journal.db"
    path.write_bytes(b"not a database at all" * 500)
    with pytest.raises(StoreCorrupt, match="damaged or not a journal"):
        Journal.open(tmp_path)
    assert path.read_bytes().startswith(b"not a database")
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(ConfigurationError, match="format 7"):
        Journal.open(tmp_path)


def test_a_place_that_cannot_hold_a_journal_is_refused(tmp_path: Path) -> None:
    """A file where the directory should be is a configuration error that names the path."""
    (tmp_path / "state").write_text("")
    with pytest.raises(ConfigurationError, match="state"):
        Journal.open(tmp_path / "state")


def test_a_closed_or_forked_journal_says_so(tmp_path: Path) -> None:
    """A child that inherited the journal is told to open its own, and does the parent no harm."""
    journal = open_bound(tmp_path)
    journal.append([put("a")])
    child = os.fork()
    if child == 0:
        code = 1
        try:
            journal.append([put("b")])
        except JournalUnavailable as error:
            code = 0 if "fork" in str(error) else 2
        finally:
            journal.close()
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert journal.append([put("b")]) == Appended(2, 2)
    journal.close()
    journal.close()
    with pytest.raises(JournalUnavailable, match="closed"):
        journal.append([put("c")])
    with pytest.raises(JournalUnavailable, match="closed"):
        journal.head()


def test_the_log_does_not_grow_with_the_number_of_writes(tmp_path: Path) -> None:
    """Checkpoints behind the writers let the log start over: it stays far below what was written,
    and so does the database when it is truncated."""
    journal = open_bound(tmp_path)
    text = "x" * 5_000
    written_bytes = log_bytes = 0
    for _ in range(60):
        for _ in range(8):
            journal.append([put("a", text=text)] * 25)
            written_bytes += 25 * len(text)
        journal.truncate(journal.head())
        log_bytes = max(log_bytes, (tmp_path / "journal.db-wal").stat().st_size)
    assert log_bytes < written_bytes / 2
    assert (tmp_path / "journal.db").stat().st_size < written_bytes / 4
    journal.close()


def test_checkpoints_go_on_after_one_that_failed(tmp_path: Path) -> None:
    """Without a free file descriptor no checkpoint can be made. Appends go on, and as soon as there is
    one again the log is kept short as before."""
    journal = open_bound(tmp_path)
    journal.append([put("a", text="x" * 100_000)])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        for _ in range(2 * CHECKPOINT_EVERY_BYTES // 100_000):
            journal.append([put("a", text="x" * 100_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    log = tmp_path / "journal.db-wal"
    grown = log.stat().st_size
    for _ in range(10 * CHECKPOINT_EVERY_BYTES // 100_000):
        journal.append([put("a", text="x" * 100_000)])
        time.sleep(0.001)
    assert log.stat().st_size < grown + 3 * CHECKPOINT_EVERY_BYTES
    journal.close()


def test_processes_that_never_write_much_keep_the_log_short_together(tmp_path: Path) -> None:
    """Each ends (here: is left open) before it would make a checkpoint for its own writes alone."""
    lives = []
    for _ in range(16):
        lives.append(open_bound(tmp_path))
        for _ in range(16):
            lives[-1].append([put("a", text="x" * 100_000)])
            time.sleep(0.001)
    assert (tmp_path / "journal.db-wal").stat().st_size < 6 * CHECKPOINT_EVERY_BYTES
    for journal in lives:
        journal.close()
