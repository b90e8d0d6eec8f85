"""Two router processes on one state directory, one PostgreSQL, and everything that may happen to them.

Each operation does one thing, then holds what can be seen against the oracle. The names I1 to I12 are
the invariants of the design.
"""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import structlog

from shadow.backups import taking
from shadow.config import Settings
from shadow.core.phases import Phase, Request, Wanted
from shadow.errors import CutoverRefused, RouteConflict
from shadow.writes.ownership import keep_histories
from shadow.writes.repair import repair
from tests.machine.crashes import Crash, CrashPoint, crashing
from tests.machine.oracle import DIMENSION, Held, Oracle, record_of
from tests.machine.postgresql_double import FOREIGN
from tests.machine.process import Process
from tests.machine.server import Server
from vectorstore.errors import InvalidInput, StoreCorrupt, StoreUnavailable
from vectorstore.faiss import snapshot as snapshot_files
from vectorstore.types import Query, Record

__all__ = ["IDS", "World"]

IDS = ("a", "b", "c", "d", "e", "f")
QUERY = Query(np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float32), k=100)
DRAIN_ROUNDS_MAX = 8

Changes = Sequence[tuple[str, str | None]]


class World:
    """``tally`` counts what was reached: a run that never flips proves nothing."""

    def __init__(self, server: Server, *, timeout_ms: float = 50.0) -> None:
        memory = Path("/dev/shm")
        self.directory = Path(
            tempfile.mkdtemp(prefix="machine-", dir=memory if memory.is_dir() else None)
        )
        self.server = server
        self.settings = Settings.model_validate(
            {
                "state_directory": self.directory,
                "faiss": {"dimension": DIMENSION},
                "postgresql": server.settings(),
                "router": {"timeout_ms": timeout_ms, "breaker_failures": 1000},
                "gate": {"verify_every_s": 0},
                "journal": {"apply_batch_max": 2, "snapshot_entries": 4},
            }
        )
        self.now = 1_000_000.0
        self.oracle = Oracle()
        self.tally: Counter[str] = Counter()
        self.operations: dict[str, tuple[Changes, int]] = {}
        self.processes: dict[int, Process] = {}
        self.damaged: set[str] = set()
        self._texts = 0
        self._stack = ExitStack()
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self._stack.enter_context(_silence())
        self._stack.enter_context(server.installed())
        self._stack.enter_context(mock.patch("shadow.writes.parts.BLOCK_ROWS", 2))
        # Backups are named by the second, and wait for the next one: here it comes at once.
        free_name, seconds = taking._free_name, itertools.count(1_000_000_000)
        self._stack.enter_context(
            mock.patch.object(
                taking, "_free_name", lambda shelf, _: free_name(shelf, lambda: next(seconds))
            )
        )
        # Time stands still here: waiting for more writes to come would only take time.
        self._stack.enter_context(mock.patch("shadow.steward.APPLY_GATHER_S", 0.0))
        self._stack.enter_context(mock.patch("shadow.writes.journal.TRUNCATE_ENTRIES_MAX", 3))

    @property
    def foreign(self) -> bool:
        """Whether PostgreSQL holds the rows of another history."""
        return self.server.is_foreign()

    # -- processes ---------------------------------------------------------------------------------

    def process(self, which: int) -> Process:
        """The process of this number, started if it is dead."""
        if which not in self.processes:
            self.processes[which] = started = Process(self.settings, lambda: self.now)
            self.tally["starts"] += 1
            # I8, I1: what it restored and replayed is what the journal says.
            assert started.faiss.store.applied_seq() == self.oracle.head
            self._check_faiss(started)
        return self.processes[which]

    def kill(self, which: int) -> None:
        """SIGKILL: what is in memory is gone."""
        process = self.processes.pop(which, None)
        if process is not None:
            process.kill()
            self.tally["kills"] += 1

    def act(
        self, which: int, action: Callable[[Process], Any], crash: CrashPoint | None = None
    ) -> Any:
        """Do something in a process, which may die of it; None then."""
        process = self.process(which)
        try:
            with crashing(crash):
                return action(process)
        except Crash:
            self.tally[f"died at {crash.name if crash else '?'}"] += 1
            self.kill(which)
            return None
        finally:
            self._note_routes()
            self._check_journal()

    # -- writes ------------------------------------------------------------------------------------

    def write(
        self,
        which: int,
        names: Sequence[str],
        *,
        delete: bool = False,
        op_id: str | None = None,
        crash: CrashPoint | None = None,
    ) -> None:
        """A batch of upserts or deletes, in a process that may die of it."""
        changes: list[tuple[str, str | None]] = []
        for name in names:
            self._texts += 1
            changes.append((name, None if delete else f"{name} {self._texts}"))
        self._send(which, changes, op_id, crash)

    def retry(self, which: int, op_id: str, crash: CrashPoint | None = None) -> None:
        """The same batch under the same op_id: it must be the same write."""
        changes, seq = self.operations[op_id]
        self._send(which, changes, op_id, crash, expected=seq)
        self.tally["retries"] += 1

    def _send(
        self,
        which: int,
        changes: Changes,
        op_id: str | None,
        crash: CrashPoint | None,
        *,
        expected: int = 0,
    ) -> None:
        head = self.oracle.head

        def send(process: Process) -> int:
            records = [record_of(name, text) for name, text in changes if text is not None]
            if records:
                return process.router.upsert(records, op_id=op_id)
            return process.router.delete([name for name, _ in changes], op_id=op_id)

        process = self.process(which)
        # I10: no state of PostgreSQL makes a write fail.
        seq: int | None = None
        try:
            with crashing(crash):
                seq = send(process)
        except Crash:
            self.tally[f"died at {crash.name if crash else '?'}"] += 1
            self.kill(which)
        found = self._journal_head()
        if expected:
            assert found == head, "a retried operation was applied twice"
            assert seq in (None, expected), f"a retry came to {seq} instead of {expected}"
        else:
            assert found in (head, head + len(changes)), "a batch was torn"
            if found > head:
                self.oracle.append(changes, self.now)
                if op_id is not None:
                    self.operations[op_id] = (changes, found)
            else:
                assert seq is None, "an acknowledged write is not in the journal"
            assert seq in (None, found), f"acknowledged as {seq}, and the head is {found}"
        if seq is not None:
            self.processes[which].acknowledged = max(self.processes[which].acknowledged, seq)
            self.tally["writes"] += 1
            self.read(which, "search")
        self._check_journal()

    def bad_write(self, which: int) -> None:
        """I9: a batch with one bad record is refused whole and leaves no trace."""
        good = record_of(IDS[0], "never")
        bad = Record(IDS[1], np.full(DIMENSION, np.nan, dtype=np.float32), "nan", {})
        process = self.process(which)
        before = process.faiss.store.applied_seq()
        try:
            process.router.upsert([good, bad])
        except InvalidInput:
            pass
        else:
            raise AssertionError("a record with NaN was accepted")
        assert self._journal_head() == self.oracle.head, "a rejected write left a trace"
        assert process.faiss.store.applied_seq() == before
        self._check_faiss(process)

    # -- reads -------------------------------------------------------------------------------------

    def read(self, which: int, how: str, min_seq: int = 0) -> None:
        """I5, I6, I11: an answer is a true state that the read rule allows; if there is none, an error."""
        process = self.process(which)
        floor = max(process.acknowledged, self.oracle.flip_seq(process.router.route.version))
        if how == "search":
            floor = max(floor, min_seq)
        try:
            if how == "search":
                query = Query(QUERY.vector, k=QUERY.k, min_seq=min_seq)
                answer = process.router.search(query)
            elif how == "search_many":
                answer = process.router.search_many([QUERY, QUERY])[1]
            else:
                self._check_unnumbered(process, how, floor)
                return
        except StoreUnavailable as error:
            self._check_refusal(process, floor, error)
            return
        self.tally[f"reads by {answer.store}"] += 1
        applied = answer.applied_seq
        where = f"{answer.store} at {applied}"
        if answer.store == "postgresql":
            assert not self.foreign, "rows of another history were served"
        assert applied >= floor, f"{where} answered below the floor {floor}"
        assert self.oracle.fresh(applied, self.now), f"{where} answered with stale rows"
        found = {hit.id: Held(hit.seq, hit.text) for hit in answer.hits}
        _same(found, self.oracle.state(applied), where)

    def _check_unnumbered(self, process: Process, how: str, floor: int) -> None:
        try:
            if how == "count":
                count = process.router.count()
            else:
                rows = process.router.get(IDS) if how == "get" else process.router.scan()
                found = {row.id: Held(row.seq, row.text) for row in rows}
        except StoreUnavailable as error:
            self._check_refusal(process, floor, error)
            return
        allowed = [
            self.oracle.state(seq)
            for seq in range(floor, self.oracle.head + 1)
            if self.oracle.fresh(seq, self.now)
        ]
        if how == "count":
            assert count in {len(state) for state in allowed}, f"a count of {count}"
        else:
            assert found in allowed, f"{how} returned {found}, which is no state from {floor} on"

    def _check_refusal(self, process: Process, floor: int, error: Exception) -> None:
        """Availability is the OR of both stores: nobody may answer, else the refusal is a defect."""
        self.tally["reads refused"] += 1
        base = self._base()

        def may(applied: int) -> bool:
            # The age of an entry that was truncated is not known any more: it counts as too old.
            return applied >= max(floor, base) and self.oracle.fresh(applied, self.now)

        assert not may(process.faiss.store.applied_seq()), f"FAISS may answer: {error}"
        standing = process.migration.postgresql.standing
        if self.server.up and standing.following and not self.foreign:
            state, seq = self.server.state_and_seq()
            assert state != "following" or not may(seq), f"PostgreSQL may answer: {error}"

    # -- what runs in the background ---------------------------------------------------------------

    def poll(self, which: int, crash: CrashPoint | None = None) -> None:
        """The watcher hears of other processes' writes and flips."""
        self.act(which, Process.poll, crash)
        self._look_around()

    def apply(self, which: int, crash: CrashPoint | None = None, *, race: bool = False) -> None:
        """The applier brings entries to PostgreSQL; in a race, after another one had the lock."""
        if race and (1 - which) in self.processes:
            self.server.race(self.processes[1 - which].apply)
        self.act(which, Process.apply, crash)
        self.server.race(None)
        self._look_around()

    def step(self, which: int, crash: CrashPoint | None = None) -> None:
        """The steward takes a step of the cutover."""
        self._attempt(which, Process.step, crash)
        self._look_around()

    def keep_house(self, which: int, crash: CrashPoint | None = None) -> None:
        """Snapshot if due, and truncation."""
        self._attempt(which, Process.keep_house, crash)
        self._check_stores()

    def snapshot(self, which: int, crash: CrashPoint | None = None, *, torn: bool = False) -> None:
        """A snapshot; ``torn``: the disk did not keep what was written."""
        if not torn:
            self.act(which, Process.snapshot, crash)
            return
        original = snapshot_files.write_snapshot

        def tearing(*arguments: Any, **options: Any) -> Path:
            path = original(*arguments, **options)
            self._damage(path)
            return path

        with mock.patch.object(snapshot_files, "write_snapshot", tearing):
            try:
                self.act(which, Process.snapshot, crash)
            except StoreCorrupt:
                self.tally["torn snapshots found"] += 1

    def damage_newest(self) -> None:
        """The newest snapshot goes bad on the disk, while another of those that are kept is good.

        One that is older than those may still be there, but the journal is not kept for it.
        """
        with closing(sqlite3.connect(self.directory / "journal.db")) as connection:
            kept = connection.execute("SELECT seq FROM cursor WHERE store = 'snapshots'").fetchone()
        oldest = 0 if kept is None else int(kept[0])
        good = [
            path
            for path in snapshot_files.newest_snapshots(self.directory / "snapshots")
            if path.name not in self.damaged and int(path.name.split("-")[1]) >= oldest
        ]
        if len(good) >= 2:
            self._damage(good[0])
            self.tally["snapshots gone bad"] += 1

    def _damage(self, path: Path) -> None:
        """Change one letter: everything can still be parsed."""
        self.damaged.add(path.name)
        records = path / "records.jsonl"
        content = bytearray(records.read_bytes())
        at = content.find(b'"text":"')
        if at < 0:
            content += b" "
        else:
            content[at + 8] ^= 1
        records.write_bytes(bytes(content))

    def backfill(
        self,
        which: int,
        crash: CrashPoint | None = None,
        *,
        meanwhile: Sequence[Callable[[], None]] = (),
    ) -> None:
        """The command, while other things happen between its blocks."""
        pending = list(meanwhile)

        def on_rows(done: int, total: int) -> None:
            if pending:
                pending.pop(0)()

        def run(process: Process) -> None:
            process.backfill(on_rows)
            self.tally["backfills"] += 1

        self._attempt(which, run, crash)
        self._check_stores()

    def _attempt(
        self, which: int, action: Callable[[Process], Any], crash: CrashPoint | None
    ) -> None:
        """An action that may be refused while PostgreSQL is away or another process decides."""
        try:
            self.act(which, action, crash)
        except (StoreUnavailable, CutoverRefused):
            self.tally["refused"] += 1
        except StoreCorrupt:
            if not self.foreign:
                raise

    # -- decisions ---------------------------------------------------------------------------------

    def ask(self, which: int, wanted: Wanted) -> None:
        """An operator's wish."""
        request = Request(wanted, "test", "test", "forced" if wanted is Wanted.POSTGRESQL else None)
        self.process(which).migration.routes.ask(request)

    def ramp(self, which: int, share: float, crash: CrashPoint | None = None) -> None:
        """A share of the reads for PostgreSQL."""
        process = self.process(which)
        if process.migration.routes.current().phase in (Phase.SHADOW, Phase.RAMP):
            self.act(
                which,
                lambda process: process.migration.cutover.ramp(share, who="test", why="test"),
                crash,
            )

    def outdated_change(self, which: int) -> None:
        """A decision that rests on a route that is no longer in force must not be made."""
        routes = self.process(which).migration.routes
        old = self.process(which).router.route
        if old.version == routes.current().version:
            return
        try:
            routes.change(old, who="test", why="test", phase=Phase.FAISS)
        except RouteConflict:
            self.tally["conflicts"] += 1
        else:
            raise AssertionError("a change that rested on an old route was made")

    def _note_routes(self) -> None:
        living = next(iter(self.processes.values()), None)
        if living is None:
            return
        route = living.migration.routes.current()
        if route.version in self.oracle.flips:
            return
        before = self._phase
        self.oracle.flips[route.version] = self.oracle.head
        if route.phase is Phase.POSTGRESQL and before is not Phase.POSTGRESQL:
            self.tally["flips"] += 1
        if before is Phase.POSTGRESQL and route.phase is not Phase.POSTGRESQL:
            self.tally["rollbacks"] += 1
        self._phase = route.phase

    _phase = Phase.FAISS

    # -- the world ---------------------------------------------------------------------------------

    def tick(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    def switch(self, up: bool) -> None:
        """PostgreSQL goes away or comes back."""
        self.server.switch(up)
        self.tally["outages"] += not up

    def become_foreign(self) -> None:
        """PostgreSQL is replaced by one that follows another journal; appliers notice in a second.

        One that this migration left: a backfill may fill it again.
        """
        keep_histories(self.directory, {FOREIGN: False})
        self.server.become_foreign()
        self._notice()
        self.tally["foreign servers"] += 1

    def repair(self, which: int, name: str, text: str | None) -> None:
        """A row of PostgreSQL is damaged, and repaired: at its own seq, in that store alone."""
        process = self.process(which)
        process.poll()
        process.apply()
        if self.server.state_and_seq() != ("following", self.oracle.head):
            return
        self.server.damage(name, text)
        faiss = process.faiss
        done = repair(
            [name],
            journal=process.migration.journal,
            faiss=faiss,
            postgresql=process.migration.link.open(),
            truth_from="faiss",
        )
        assert not done.faiss, "the store that was right was changed"
        self.tally["repairs"] += bool(done.postgresql)
        self._look_around()

    def save(self) -> None:
        """Keep a copy of PostgreSQL as it is now."""
        if not self.foreign:
            self.server.save()

    def fail_over(self) -> None:
        """PostgreSQL is replaced by an older copy of itself."""
        if self.server.fail_over():
            self._notice()
            self.tally["failovers"] += 1

    def follows(self) -> bool:
        """Whether PostgreSQL is there and follows this journal."""
        server = self.server
        return server.up and not self.foreign and server.state_and_seq()[0] == "following"

    def _notice(self) -> None:
        for which in list(self.processes):
            self.act(which, Process.apply)
        self._look_around()

    def drain(self) -> None:
        """I1: when all is well again, both stores hold the highest seq of every id."""
        self.switch(True)
        for which in (0, 1):
            self.process(which)
        for _ in range(DRAIN_ROUNDS_MAX):
            for process in self.processes.values():
                process.poll()
                process.apply()
            state, seq = self.server.state_and_seq()
            if state == "following" and not self.foreign and seq == self.oracle.head:
                break
            if self.foreign or state != "following" or seq < self._base():
                self.backfill(0)
        standings = [process.migration.postgresql.standing for process in self.processes.values()]
        reached = f"PostgreSQL never caught up: {state} {seq} of {self.oracle.head}, {standings}"
        assert (state, seq) == ("following", self.oracle.head), reached
        self._check_stores()
        expected = {
            name: record_of(name, held.text).embedding
            for name, held in self.oracle.state(self.oracle.head).items()
        }
        for process in self.processes.values():
            for store in (process.faiss.store, process.migration.link.open()):
                rows = {row.id: row.embedding for row in store.scan()}
                assert rows.keys() == expected.keys()
                for name, vector in rows.items():
                    wanted = expected[name] / np.linalg.norm(expected[name])
                    assert np.allclose(vector, wanted, atol=1e-6), f"{store.name}: {name}"
            process.keep_house()
        assert "backfill" not in self.processes[0].migration.journal.holds(), "a hold was left"
        self.tally["drained"] += 1

    def close(self) -> None:
        """Remove everything."""
        for which in list(self.processes):
            self.kill(which)
        self._stack.close()

    # -- checks ------------------------------------------------------------------------------------

    def _journal_head(self) -> int:
        return self._journal_state("head")

    def _base(self) -> int:
        return self._journal_state("base")

    def _journal_state(self, column: str) -> int:
        """Read from outside, since every process may be dead."""
        path = self.directory / "journal.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            return int(connection.execute(f"SELECT {column} FROM state").fetchone()[0])

    def _check_journal(self) -> None:
        """I7: no gap, no number twice, and every entry is what was written."""
        living = next(iter(self.processes.values()), None)
        if living is None:
            return
        journal = living.migration.journal
        base, head = journal.base(), journal.head()
        assert head == self.oracle.head, f"the head is {head}, not {self.oracle.head}"
        entries = [(e.seq, e.id, e.record and e.record.text) for e in journal.read(base, 10_000)]
        assert entries == [(w.seq, w.id, w.text) for w in self.oracle.log[base:]]

    def _look_around(self) -> None:
        """Every living process reads, and both stores are held against the journal."""
        self._check_stores()
        for which in list(self.processes):
            self.read(which, "search")

    def _check_stores(self) -> None:
        for process in self.processes.values():
            self._check_faiss(process)
        assert not self.server.fallen(), "I2: PostgreSQL's cursor fell"
        if self.server.up and not self.foreign:
            state, seq = self.server.state_and_seq()
            if state == "following":
                # I2, I3, I4: the rows are exactly those of the cursor.
                assert seq <= self.oracle.head
                _same(self.server.rows(), self.oracle.state(seq), f"postgresql at {seq}")

    def _check_faiss(self, process: Process) -> None:
        store = process.faiss.store
        seq = store.applied_seq()
        found = {row.id: Held(row.seq, row.text) for row in store.scan()}
        _same(found, self.oracle.state(seq), f"faiss at {seq}")


def _same(found: dict[str, Held], expected: dict[str, Held], where: str) -> None:
    assert found == expected, f"{where} holds {found} instead of {expected}"


@contextmanager
def _silence() -> Iterator[None]:
    """The log of thousands of simulated disasters is not worth reading."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        yield
    finally:
        structlog.configure(**before)
