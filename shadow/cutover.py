"""From what is wanted to what is in force: one step at a time, by whoever is there to take it.

A flip is routing only: a compare-and-set of the route. Any process may take the next step (a router's
steward, or a command that waits); two that try at once cannot both succeed, and the second looks again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from shadow.core.gate import Verdict
from shadow.core.phases import Facts, Move, Phase, Rehearse, Request, Route, Stay, Wanted, plan
from shadow.errors import RouteConflict
from shadow.events import EventLog
from shadow.evidence import EvidenceBook
from shadow.routes import RouteBook
from shadow.verdict import VerdictDesk, open_sentences, verdict_facts
from shadow.writes.postgresql_follower import PostgresqlFollower

__all__ = ["Cutover", "Rehearsal"]

REHEARSAL_S = 2.0
# A rehearsal whose process died is taken back by the next steward after this time.
REHEARSAL_GRACE_S = 10.0

log = EventLog()


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A flip and the way back, timed; ``ok`` if PostgreSQL answered throughout without an alarm."""

    ok: bool
    flip_ms: float
    back_ms: float
    held_s: float
    why: str


class Cutover:
    """Takes the migration from phase to phase."""

    def __init__(
        self,
        *,
        routes: RouteBook,
        evidence: EvidenceBook,
        desk: VerdictDesk,
        postgresql: PostgresqlFollower,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._routes = routes
        self._evidence = evidence
        self._desk = desk
        self._postgresql = postgresql
        self._clock = clock
        self._sleep = sleep

    def step(self, *, who: str) -> tuple[str, ...]:
        """Take the next step towards what is wanted; return what it still waits for."""
        route, request = self._routes.current(), self._routes.request()
        next_step = plan(route, request, self._facts(request))
        if isinstance(next_step, Stay):
            return next_step.waiting_for
        try:
            if isinstance(next_step, Rehearse):
                self.rehearse(route, who=who)
                return ("the rehearsal before the first automatic flip",)
            self._move(route, next_step, who)
        except RouteConflict:
            log.info("route_conflict", planned=type(next_step).__name__.lower())
        return ()

    def waiting_for(self, request: Request | None = None) -> tuple[str, ...]:
        """What the wish in force (or ``request``) waits for, without taking a step."""
        route, wish = self._routes.current(), request or self._routes.request()
        next_step = plan(route, wish, self._facts(wish))
        if isinstance(next_step, Stay):
            return next_step.waiting_for
        if isinstance(next_step, Rehearse):
            return ("the rehearsal before the first automatic flip",)
        if request is not None and next_step.phase is Phase.POSTGRESQL:
            return ()
        return (f"the move to the phase {next_step.phase.value}, which is about to be made",)

    def _move(self, route: Route, move: Move, who: str) -> None:
        """Make the move that was planned on ``route``; RouteConflict if that is not in force any more."""
        verdict = self._desk.ready()
        changed = self._routes.change(
            route,
            who=who,
            why=move.why,
            phase=move.phase,
            ramp_share=0.0,
            evidence=verdict_facts(verdict),
            latch=move.why if move.latch else None,
        )
        era = self._evidence.era()
        if era is not None and (move.phase is Phase.POSTGRESQL or move.latch):
            self._evidence.clear_watches(era.number)
        log.info(
            "route_changed",
            phase=changed.phase.value,
            version=changed.version,
            who=who,
            why=move.why,
        )

    def ramp(self, share: float, *, who: str, why: str, expected: Route | None = None) -> Route:
        """Let PostgreSQL answer a share of the reads; 0 goes back to the phase ``shadow``.

        This is a wish as well as a step, so that no earlier wish undoes it.
        """
        return self._routes.change(
            expected or self._routes.current(),
            who=who,
            why=why,
            phase=Phase.RAMP if share > 0 else Phase.SHADOW,
            ramp_share=share,
            evidence=verdict_facts(self._desk.ready()),
            request=Request(Wanted.RAMP if share > 0 else Wanted.FAISS, who, why),
        )

    def rehearse(self, route: Route, *, who: str) -> Rehearsal:
        """Flip to PostgreSQL for a moment and back, on live data; noted in the audit log.

        RouteConflict if ``route`` is not in force any more, or if somebody moved before it was over:
        then that move stands, and nothing was rehearsed.
        """
        era = self._evidence.era()
        number = 0 if era is None else era.number
        started = time.perf_counter()
        flipped = self._routes.change(
            route,
            who=who,
            why="rehearsal",
            phase=Phase.POSTGRESQL,
            evidence=verdict_facts(self._desk.automatic()),
            rehearsing_until=self._clock() + REHEARSAL_S + REHEARSAL_GRACE_S,
        )
        flip_ms = (time.perf_counter() - started) * 1e3
        self._sleep(REHEARSAL_S)
        standing = self._postgresql.look()
        alarm = self._evidence.alarm(number)
        trouble = alarm and f"the change detector on {alarm} went off"
        if not standing.following:
            trouble = (
                f"PostgreSQL stopped following the journal: {standing.error or standing.state}"
            )
        back_at = time.perf_counter()
        self._routes.change(
            flipped,
            who=who,
            why="the rehearsal is over",
            phase=Phase.SHADOW,
            latch=None if trouble is None else f"the rehearsal failed: {trouble}",
        )
        result = Rehearsal(
            ok=trouble is None,
            flip_ms=flip_ms,
            back_ms=(time.perf_counter() - back_at) * 1e3,
            held_s=REHEARSAL_S,
            why="PostgreSQL answered, and FAISS answered again after it"
            if trouble is None
            else f"{trouble}; flips are latched: `shadow rollback --clear-latch`",
        )
        self._routes.note(
            who=who,
            what="rehearsed",
            why=result.why,
            evidence={
                "era": number,
                "ok": result.ok,
                "flip_ms": round(result.flip_ms, 3),
                "back_ms": round(result.back_ms, 3),
                "held_s": result.held_s,
            },
        )
        return result

    def _facts(self, request: Request) -> Facts:
        wanted = request.wanted
        standing = self._postgresql.standing
        era = self._evidence.era()
        number = 0 if era is None else era.number
        route = self._routes.current()
        alarm = self._evidence.alarm(number)
        return Facts(
            postgresql_following=None if standing.state == "unavailable" else standing.following,
            behind=self._desk.behind(),
            blocked_ready=_blocked(wanted is Wanted.POSTGRESQL, self._desk.ready),
            blocked_automatic=_blocked(wanted is Wanted.AUTO, self._desk.automatic),
            rehearsed=self._routes.rehearsed(era=number),
            rehearsal_over=self._is_over(route.rehearsing_until),
            latch=self._routes.latch(),
            alarm=None if alarm is None else f"PostgreSQL's {alarm} has become worse",
            postgresql_empty=standing.state == "empty",
        )

    def _is_over(self, rehearsing_until: float | None) -> bool:
        """Whether a rehearsal should have been taken back by its process, which must have died.

        So should one that has more time left than any is given: the machine's clock was set back.
        """
        if rehearsing_until is None:
            return False
        return not 0.0 <= rehearsing_until - self._clock() <= REHEARSAL_S + REHEARSAL_GRACE_S


def _blocked(asked: bool, verdict: Callable[[], Verdict]) -> tuple[str, ...]:
    """What keeps the gate from Pass. The gate takes a millisecond or two, four times a second beside the
    readers: it is asked where the wish depends on it, and elsewhere nothing passes."""
    return open_sentences(verdict()) if asked else ("the gate was not asked",)
