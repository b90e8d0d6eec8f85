"""What an operator may decide, and when it is refused: the same from the terminal and over HTTP.

Every decision may name the ``expected_version`` of the route that it was taken on; if the route has
changed since, it is refused with RouteConflict and nothing happens.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shadow.core.gate import Hold, Pass
from shadow.core.phases import Phase, Request, Route, Wanted
from shadow.errors import CutoverRefused, GateRefused, RouteConflict
from shadow.verdict import open_sentences

if TYPE_CHECKING:
    from shadow.cutover import Rehearsal
    from shadow.opening import Migration

__all__ = ["cutover", "finalize", "ramp", "rehearse", "rollback", "set_mirror_rate"]


def cutover(
    migration: Migration,
    *,
    who: str,
    why: str,
    force: str | None = None,
    wait: bool = True,
    expected_version: int | None = None,
) -> tuple[str, ...]:
    """Ask for PostgreSQL as primary and take the first step; what it still waits for.

    With ``wait`` the wish stays and comes true as soon as it may. Without it CutoverRefused says what
    is missing, and nothing is asked for. ``force`` is the reason to go without the gate's Pass.
    """
    _expected(migration, expected_version)
    request = Request(Wanted.POSTGRESQL, who, why, force)
    if not wait and (missing := migration.cutover.waiting_for(request)):
        raise CutoverRefused(f"not now: {'; '.join(missing)}")
    migration.routes.ask(request, expected_version=expected_version)
    return migration.cutover.step(who=who)


def rollback(
    migration: Migration,
    *,
    who: str,
    why: str,
    clear_latch: bool = False,
    expected_version: int | None = None,
) -> tuple[str, ...]:
    """Ask for FAISS as primary, which never waits; what keeps it from being in force.

    CutoverRefused once the migration is final: FAISS no longer follows.
    """
    if _expected(migration, expected_version).phase is Phase.FINAL:
        raise CutoverRefused(
            "the migration is final: FAISS no longer follows; `shadow restore` goes back to a backup, "
            "and loses what came after it"
        )
    migration.routes.ask(Request(Wanted.FAISS, who, why), expected_version=expected_version)
    if clear_latch:
        migration.routes.clear_latch(who=who, why=why)
    return migration.cutover.step(who=who)


def ramp(
    migration: Migration,
    share: float,
    *,
    who: str,
    why: str,
    force: str | None = None,
    expected_version: int | None = None,
) -> Route:
    """Let PostgreSQL answer ``share`` of the reads; 0 goes back to FAISS alone.

    CutoverRefused outside the phases shadow and ramp, while a rollback is latched, and while the
    verdict is hold, the last unless ``force`` gives a reason.
    """
    route = _expected(migration, expected_version)
    if route.phase not in (Phase.SHADOW, Phase.RAMP):
        raise CutoverRefused(f"the phase is {route.phase.value}: a ramp begins in the phase shadow")
    if share > 0:
        latch = migration.routes.latch()
        if latch is not None:
            raise CutoverRefused(
                f"an automatic rollback is latched ({latch}): clear it with "
                "`shadow rollback --clear-latch`"
            )
        verdict = migration.desk.ready()
        if force is None and isinstance(verdict, Hold):
            raise GateRefused(
                f"the verdict is hold: {'; '.join(open_sentences(verdict))}. "
                "Give a reason to force the ramp all the same",
                holds=True,
            )
    return migration.cutover.ramp(share, who=who, why=force or why, expected=route)


def set_mirror_rate(
    migration: Migration,
    rate: float,
    *,
    who: str,
    why: str,
    expected_version: int | None = None,
) -> Route:
    """Mirror this share of the queries from now on."""
    route = _expected(migration, expected_version)
    if route.phase is Phase.FINAL:
        raise CutoverRefused("the migration is final: nothing is mirrored any more")
    return migration.routes.change(route, who=who, why=why, mirror_rate=rate)


def rehearse(migration: Migration, *, who: str, expected_version: int | None = None) -> Rehearsal:
    """Flip for two seconds and back.

    CutoverRefused unless the phase is shadow and nothing keeps a cutover from being in force at once;
    GateRefused if that is the gate.
    """
    route = _expected(migration, expected_version)
    missing = migration.cutover.waiting_for(Request(Wanted.POSTGRESQL, who, "rehearsal"))
    if route.phase is not Phase.SHADOW or missing:
        refused = (
            f"cannot rehearse now: {'; '.join(missing) or f'the phase is {route.phase.value}'}"
        )
        verdict = migration.desk.ready()
        if missing and not isinstance(verdict, Pass):
            raise GateRefused(refused, holds=isinstance(verdict, Hold))
        raise CutoverRefused(refused)
    return migration.cutover.rehearse(route, who=who)


def finalize(
    migration: Migration, *, who: str, why: str, expected_version: int | None = None
) -> Path:
    """End the migration; the folder that holds the FAISS files from now on."""
    from shadow.finalize import finalize as run

    return run(migration, who=who, why=why, expected=_expected(migration, expected_version))


def _expected(migration: Migration, version: int | None) -> Route:
    route = migration.routes.current()
    if version is not None and route.version != version:
        raise RouteConflict(
            f"the route is at version {route.version}, not {version}: somebody changed it "
            "meanwhile; look at `shadow status` and decide again"
        )
    return route
