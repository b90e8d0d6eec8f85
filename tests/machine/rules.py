"""The state machine: which operations Hypothesis may choose, and when."""

from __future__ import annotations

import sys
import threading
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from shadow.core.phases import Phase, Wanted
from tests.machine.crashes import CrashPoint
from tests.machine.server import Doubled
from tests.machine.world import IDS, World

__all__ = ["MigrationMachine"]

STEWARD_THREADS = ("shadow-watcher", "shadow-applier", "shadow-steward")

processes = st.sampled_from((0, 1))
names = st.lists(st.sampled_from(IDS), min_size=1, max_size=3)
seldom = st.sampled_from((False, False, False, True))


def deaths(*points: str) -> st.SearchStrategy[CrashPoint | None]:
    """Mostly no crash; else one at the first few calls of the functions named."""
    crash = st.builds(
        CrashPoint, st.sampled_from(points), st.booleans(), st.sampled_from((1, 1, 2, 3))
    )
    return st.one_of(st.none(), st.none(), crash)


def require_no_other_router() -> None:
    """A crash strikes whoever calls the function next: a router that another test left open would take it
    for the world's, and the run would not be the same twice."""
    threads = [one.name for one in threading.enumerate() if one.name in STEWARD_THREADS]
    if threads:
        raise RuntimeError(f"a test before this one left a router open: {', '.join(threads)}")


class MigrationMachine(RuleBasedStateMachine):
    """Everything happens to a :class:`World`; ``make_world`` says with which PostgreSQL."""

    def __init__(self) -> None:
        super().__init__()
        require_no_other_router()
        self.world = self.make_world()
        self._operations = 0

    def make_world(self) -> World:
        """A world on the double."""
        return World(Doubled())

    def teardown(self) -> None:
        """I1 at the end of every run that did not fail."""
        try:
            if sys.exc_info()[0] is None:
                self.world.drain()
        finally:
            self.world.close()
            self.reached(self.world)

    def reached(self, world: World) -> None:
        """Told of every world at its end."""

    @initialize(
        before=st.integers(0, 3), filled=st.booleans(), primary=st.booleans(), which=processes
    )
    def begin(self, before: int, filled: bool, primary: bool, which: int) -> None:
        """Some records, and perhaps a migration that is already on its way."""
        self.world.process(which)
        for at in range(before):
            self.world.write(which, IDS[at : at + 3])
        if filled or primary:
            self.world.backfill(which)
            self.world.apply(which)
        if primary:
            self._flip(which, Wanted.POSTGRESQL)

    # -- writes and reads

    @rule(
        which=processes,
        names=names,
        delete=seldom,
        crash=deaths("append", "faiss apply", "postgresql"),
    )
    def write(self, which: int, names: list[str], delete: bool, crash: CrashPoint | None) -> None:
        self.world.write(which, list(dict.fromkeys(names)), delete=delete, crash=crash)

    @rule(which=processes, names=names, crash=deaths("append", "faiss apply", "postgresql"))
    def write_once(self, which: int, names: list[str], crash: CrashPoint | None) -> None:
        self._operations += 1
        op_id = f"operation {self._operations}"
        self.world.write(which, list(dict.fromkeys(names)), op_id=op_id, crash=crash)

    @rule(which=processes, names=names)
    def write_in_a_blip(self, which: int, names: list[str]) -> None:
        """PostgreSQL is away for the length of one write."""
        self.world.switch(False)
        self.world.write(which, list(dict.fromkeys(names)))
        self.world.switch(True)
        self.world.read(which, "search")

    @precondition(lambda self: self.world.operations)
    @rule(which=processes, data=st.data(), crash=deaths("append", "faiss apply"))
    def retry(self, which: int, data: Any, crash: CrashPoint | None) -> None:
        self.world.retry(which, data.draw(st.sampled_from(sorted(self.world.operations))), crash)

    @rule(which=processes)
    def bad_write(self, which: int) -> None:
        self.world.bad_write(which)

    @rule(
        which=processes,
        how=st.sampled_from(("search", "search", "search_many", "get", "scan", "count")),
        other=seldom,
    )
    def read(self, which: int, how: str, other: bool) -> None:
        self.world.read(which, how, self.world.oracle.head if other else 0)

    # -- background

    @rule(which=processes, crash=deaths("faiss apply"))
    def poll(self, which: int, crash: CrashPoint | None) -> None:
        self.world.poll(which, crash)

    @rule(which=processes, names=names, race=st.booleans(), crash=deaths("postgresql"))
    def write_and_apply(
        self, which: int, names: list[str], race: bool, crash: CrashPoint | None
    ) -> None:
        """Another process has written; both may try to bring it to PostgreSQL."""
        for _ in range(2):
            self.world.write(1 - which, list(dict.fromkeys(names)))
        self.world.apply(which, crash, race=race)

    @rule(which=processes, crash=deaths("postgresql"), race=st.booleans())
    def apply(self, which: int, crash: CrashPoint | None, race: bool) -> None:
        self.world.apply(which, crash, race=race)

    @rule(which=processes, crash=deaths("cursor", "write snapshot", "prune", "truncate"))
    def keep_house(self, which: int, crash: CrashPoint | None) -> None:
        self.world.keep_house(which, crash)

    @rule(
        which=processes,
        crash=deaths("write snapshot", "verify snapshot", "prune", "cursor"),
        torn=seldom,
    )
    def snapshot(self, which: int, crash: CrashPoint | None, torn: bool) -> None:
        self.world.snapshot(which, crash, torn=torn)

    @rule()
    def damage_newest(self) -> None:
        self.world.damage_newest()

    @precondition(lambda self: self.world.foreign or self.world._phase is not Phase.POSTGRESQL)
    @rule(
        which=processes,
        crash=deaths("hold", "begin load", "load block", "finish load", "release", "cursor"),
        live=st.booleans(),
    )
    def backfill(self, which: int, crash: CrashPoint | None, live: bool) -> None:
        other = 1 - which
        meanwhile = [
            lambda: self.world.write(other, [IDS[0]]),
            lambda: self.world.write(other, [IDS[1]], delete=True),
        ]
        self.world.backfill(which, crash, meanwhile=meanwhile if live else ())

    # -- decisions

    @precondition(lambda self: self.world._phase is Phase.SHADOW)
    @rule(which=processes, crash=deaths("route"))
    def flip(self, which: int, crash: CrashPoint | None) -> None:
        self._flip(which, Wanted.POSTGRESQL, crash)

    @precondition(lambda self: self.world._phase in (Phase.POSTGRESQL, Phase.RAMP))
    @rule(which=processes, crash=deaths("route"))
    def roll_back(self, which: int, crash: CrashPoint | None) -> None:
        self._flip(which, Wanted.FAISS, crash)

    def _flip(self, which: int, wanted: Wanted, crash: CrashPoint | None = None) -> None:
        self.world.ask(which, wanted)
        self.world.step(which, crash)
        self.world.step(which)

    @rule(which=processes, share=st.sampled_from((0.0, 0.5)), crash=deaths("route"))
    def ramp(self, which: int, share: float, crash: CrashPoint | None) -> None:
        self.world.ramp(which, share, crash)

    @rule(which=processes)
    def outdated_change(self, which: int) -> None:
        """The other process decides, and this one decides on what it knew before."""
        self.world.ramp(1 - which, 0.5)
        self.world.outdated_change(which)

    # -- the world

    @rule(which=processes)
    def kill(self, which: int) -> None:
        self.world.kill(which)

    @rule(seconds=st.sampled_from((0.3, 0.8, 5.0)))
    def tick(self, seconds: float) -> None:
        self.world.tick(seconds)

    @precondition(lambda self: not self.world.server.up or self.world.foreign)
    @rule(which=processes)
    def recover(self, which: int) -> None:
        """What an operator does about PostgreSQL."""
        self.world.switch(True)
        if self.world.foreign:
            self.world.backfill(which)

    @rule(up=st.sampled_from((True, True, False)))
    def switch(self, up: bool) -> None:
        self.world.switch(up)

    @rule()
    def save(self) -> None:
        self.world.save()

    @precondition(lambda self: self.world.follows())
    @rule(
        which=processes,
        name=st.sampled_from(IDS),
        text=st.sampled_from((None, "damaged")),
    )
    def repair(self, which: int, name: str, text: str | None) -> None:
        self.world.repair(which, name, text)

    @precondition(lambda self: self.world.follows())
    @rule()
    def fail_over(self) -> None:
        self.world.fail_over()

    @precondition(lambda self: self.world.follows())
    @rule()
    def become_foreign(self) -> None:
        self.world.become_foreign()
