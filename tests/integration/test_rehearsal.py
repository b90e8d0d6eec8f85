"""A rehearsal rests on the route that it was planned on, and yields to whoever moves meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from shadow import decisions
from shadow.core.gate import Pass
from shadow.core.phases import Phase, Request, Wanted
from shadow.cutover import Cutover
from shadow.errors import CutoverRefused
from shadow.evidence_view import Verification
from shadow.opening import Migration
from tests.plugins.migrations import SmallMigration, record


@dataclass
class PassingDesk:
    """The gate says pass; while it is asked, somebody may act."""

    acts: list[Callable[[], object]] = field(default_factory=list)

    def ready(self) -> Pass:
        return Pass(())

    def automatic(self) -> Pass:
        while self.acts:
            self.acts.pop()()
        return Pass(())

    def behind(self) -> None:
        return None


def _move(migration: Migration, phase: Phase, wanted: Wanted) -> None:
    migration.routes.change(
        migration.routes.current(),
        who="operator",
        why="test",
        phase=phase,
        request=Request(wanted, "operator", "test"),
    )


def _to_faiss(migration: Migration) -> None:
    _move(migration, Phase.FAISS, Wanted.FAISS)


def _cutover(migration: Migration, desk: PassingDesk, **options: Any) -> Cutover:
    found: Any = desk
    migration.postgresql.look()
    _move(migration, Phase.SHADOW, Wanted.AUTO)
    return Cutover(
        routes=migration.routes,
        evidence=migration.evidence,
        desk=found,
        postgresql=migration.postgresql,
        **options,
    )


def _rehearsed(migration: Migration) -> list[str]:
    return [one.why for one in migration.routes.audit() if one.why == "rehearsal"]


@pytest.mark.parametrize("when", ["before the flip", "while it is held"])
def test_an_operator_who_moves_to_faiss_is_not_overruled_by_a_rehearsal(
    small_migration: SmallMigration, when: str
) -> None:
    """Between plan and flip: nothing is rehearsed. While PostgreSQL answers: the move stands, and the
    step that lost says so to nobody but the log."""
    small_migration.filled()
    with small_migration.opened() as migration:
        desk = PassingDesk()
        before = when == "before the flip"
        cutover = _cutover(
            migration, desk, sleep=lambda _: None if before else _to_faiss(migration)
        )
        if before:
            desk.acts.append(lambda: _to_faiss(migration))
        assert cutover.step(who="steward") == ()
        route = migration.routes.current()
        assert (route.phase, route.rehearsing_until) == (Phase.FAISS, None)
        assert len(_rehearsed(migration)) == (0 if before else 1)


def test_what_else_changes_the_route_makes_no_flip_of_a_rehearsal(
    small_migration: SmallMigration,
) -> None:
    """An operator sets the mirror rate while PostgreSQL answers for two seconds: it still goes back."""
    small_migration.filled()
    with small_migration.opened() as migration:

        def set_rate(_: float) -> None:
            current = migration.routes.current()
            migration.routes.change(current, who="operator", why="load", mirror_rate=0.1)

        cutover = _cutover(migration, PassingDesk(), sleep=set_rate)
        assert cutover.step(who="steward") == ()
        assert migration.routes.current().rehearsing_until is not None
        later = Cutover(
            routes=migration.routes,
            evidence=migration.evidence,
            desk=migration.desk,
            postgresql=migration.postgresql,
            clock=lambda: 1e12,
        )
        later.step(who="steward")
        route = migration.routes.current()
        assert (route.phase, route.rehearsing_until) == (Phase.SHADOW, None)
        assert route.mirror_rate == 0.1


def test_a_rehearsal_that_failed_says_that_it_latched_and_no_other_follows(
    small_migration: SmallMigration,
) -> None:
    """PostgreSQL is lost while it is held: result, status and the next rehearsal name the way out."""
    way_out = "`shadow rollback --clear-latch`"
    small_migration.filled()
    with small_migration.opened() as migration:
        passing: Any = PassingDesk()
        cutover = _cutover(
            migration, passing, sleep=lambda _: migration.link.open().detach() and None
        )
        passes = replace(migration, desk=passing, cutover=cutover)
        result = decisions.rehearse(passes, who="operator")
        assert not result.ok
        assert f"flips are latched: {way_out}" in result.why
    status = small_migration.command("status")
    printed, _ = status.communicate(timeout=60)
    assert way_out in next(line for line in printed.splitlines() if line.startswith("latched"))
    small_migration.backfilled()
    with small_migration.opened() as migration:
        cutover = _cutover(migration, passing, sleep=lambda _: None)
        passes = replace(migration, desk=passing, cutover=cutover)
        with pytest.raises(CutoverRefused, match="latched") as refused:
            decisions.rehearse(passes, who="operator")
        assert way_out in str(refused.value)
        migration.routes.clear_latch(who="operator", why="mended")
        assert decisions.rehearse(passes, who="operator").ok


def test_a_rehearsal_is_refused_in_the_words_and_with_the_code_of_a_cutover(
    small_migration: SmallMigration,
) -> None:
    """Without a copy that alone is named; with one, what the gate misses. Not enough evidence: 4; evidence
    against it: 3, as for a ramp."""
    with small_migration.routed() as router:
        router.upsert([record("r-0")])

    def refused(*words: str) -> tuple[int, str]:
        command = small_migration.command(*words)
        _, said = command.communicate(timeout=60)
        return command.returncode, said

    code, said = refused("rehearse")
    assert (code, said.count("\n")) == (4, 1)
    assert "cannot rehearse now: PostgreSQL holds no complete copy" in said
    small_migration.backfilled()
    with small_migration.opened() as migration:
        migration.postgresql.look()
        migration.cutover.step(who="test")
    code, said = refused("rehearse")
    assert code == 4
    assert "a verify of both stores; none has been made" in said
    with small_migration.opened() as migration:
        found = Verification(time.time(), "differs", 1, 1, "md5", "r-0", migration.copy())
        migration.evidence.record_verification(found)
    assert refused("rehearse")[0] == 3
    assert refused("ramp", "10")[0] == 3


def test_a_latch_holds_a_ramp_too_whatever_the_reason(small_migration: SmallMigration) -> None:
    """A reason goes over the verdict, as for a cutover, and not over a rollback that nobody has looked
    into; to go back to 0 is always allowed."""
    small_migration.filled()
    with small_migration.opened() as migration:
        migration.postgresql.look()
        migration.cutover.step(who="test")
        route = migration.routes.current()
        migration.routes.change(route, who="steward", why="worse", latch="recall fell")
        with pytest.raises(CutoverRefused, match=r"latched .*rollback --clear-latch"):
            decisions.ramp(migration, 0.1, who="operator", why="trial", force="I know better")
        assert decisions.ramp(migration, 0.0, who="operator", why="none").phase is Phase.SHADOW
        migration.routes.clear_latch(who="operator", why="mended")
        ramped = decisions.ramp(migration, 0.1, who="operator", why="trial", force="no traffic yet")
        assert ramped.phase is Phase.RAMP
