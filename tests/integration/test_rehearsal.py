"""A rehearsal rests on the route that it was planned on, and yields to whoever moves meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from shadow.core.gate import Pass
from shadow.core.phases import Phase, Request, Wanted
from shadow.cutover import Cutover
from shadow.opening import Migration
from tests.plugins.migrations import SmallMigration


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


def _to_faiss(migration: Migration) -> None:
    migration.routes.change(
        migration.routes.current(),
        who="operator",
        why="trouble",
        phase=Phase.FAISS,
        request=Request(Wanted.FAISS, "operator", "trouble"),
    )


def _cutover(migration: Migration, desk: PassingDesk, **options: Any) -> Cutover:
    found: Any = desk
    migration.postgresql.look()
    migration.routes.change(
        migration.routes.current(),
        who="test",
        why="test",
        phase=Phase.SHADOW,
        request=Request(Wanted.AUTO, "test", "test"),
    )
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
