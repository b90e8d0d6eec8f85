"""Where a migration stands, what is wanted, and the next step between the two.

======================  ======================  ==============  ================================
phase                   answers                 mirrored to     writes
======================  ======================  ==============  ================================
``faiss``               faiss                   nobody          journal, faiss
``shadow``              faiss                   postgresql      journal, both
``ramp``                a share from postgresql the other one   journal, both
``postgresql``          postgresql              faiss           journal, both
``final``               postgresql              nobody          postgresql alone
======================  ======================  ==============  ================================
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property

__all__ = [
    "NO_COPY",
    "Facts",
    "Move",
    "Phase",
    "Rehearse",
    "Request",
    "Route",
    "Stay",
    "Step",
    "Wanted",
    "plan",
]

FAISS = "faiss"
POSTGRESQL = "postgresql"


class Phase(enum.StrEnum):
    """Where the migration stands."""

    FAISS = "faiss"
    SHADOW = "shadow"
    RAMP = "ramp"
    POSTGRESQL = "postgresql"
    FINAL = "final"


class Wanted(enum.StrEnum):
    """What the operator asks for: a store to answer, a ramp, or ``auto`` to flip on evidence."""

    FAISS = "faiss"
    RAMP = "ramp"
    POSTGRESQL = "postgresql"
    AUTO = "auto"

    @property
    def leaves_faiss(self) -> bool:
        """Whether it asks for PostgreSQL to become the primary."""
        return self in (Wanted.POSTGRESQL, Wanted.AUTO)


@dataclass(frozen=True)
class Route:
    """Who answers and who is mirrored to; replaced whole, never changed.

    ``ramp_share`` is the share of reads that PostgreSQL answers in the phase ``ramp``; ``flip_seq``
    is the journal's head when this route was made: no store may answer that has applied less.
    ``rehearsing_until`` (seconds since the epoch) marks a flip that is to be taken back.
    """

    version: int
    phase: Phase
    ramp_share: float = 0.0
    mirror_rate: float = 1.0
    flip_seq: int = 0
    rehearsing_until: float | None = None

    # Worked out once: every read asks.
    @cached_property
    def primary(self) -> str:
        """The store that answers (in the phase ``ramp``: the one that answers the rest)."""
        return POSTGRESQL if self.phase in (Phase.POSTGRESQL, Phase.FINAL) else FAISS

    @cached_property
    def postgresql_share(self) -> float:
        """The share of reads that PostgreSQL answers."""
        if self.phase is Phase.RAMP:
            return self.ramp_share
        return 1.0 if self.primary == POSTGRESQL else 0.0

    @cached_property
    def mirrors(self) -> bool:
        """Whether queries are mirrored to the store that does not answer."""
        return self.phase in (Phase.SHADOW, Phase.RAMP, Phase.POSTGRESQL) and self.mirror_rate > 0


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted, by whom, and why. ``force_reason`` overrides the verdict, nothing else."""

    wanted: Wanted
    who: str
    why: str
    force_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the plan is decided on. ``blocked_ready`` and ``blocked_automatic`` are the sentences that
    keep the gate from Pass at the operator's and at the automatic level: empty means Pass.
    ``postgresql_following`` is ``None`` while it cannot be asked; ``postgresql_empty``: the table that
    this process is told to use was never filled; ``behind`` says how far PostgreSQL lags, ``None`` when
    the read rule lets it answer."""

    postgresql_following: bool | None
    behind: str | None
    blocked_ready: tuple[str, ...]
    blocked_automatic: tuple[str, ...]
    rehearsed: bool
    rehearsal_over: bool
    latch: str | None
    alarm: str | None
    postgresql_empty: bool = False


@dataclass(frozen=True, slots=True)
class Stay:
    """Nothing to do now; ``waiting_for`` says why the wish is not yet in force."""

    waiting_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Move:
    """Go to another phase; ``latch`` says that this is an automatic rollback that must hold."""

    phase: Phase
    why: str
    latch: bool = False


@dataclass(frozen=True, slots=True)
class Rehearse:
    """Flip and flip back on live data before the first automatic flip."""


Step = Stay | Move | Rehearse

EMPTY_HERE = (
    "the table that this process is told to use was never filled, and the migration has a copy somewhere: "
    "give every process the same DATABASE_URL and postgresql.table, or run `shadow backfill` if the copy "
    "was dropped"
)
NO_COPY = "PostgreSQL holds no complete copy that follows the journal: run `shadow backfill`"


def plan(route: Route, request: Request, facts: Facts) -> Step:
    """The next step from ``route`` towards ``request``, or why there is none.

    A rollback never waits. A flip to PostgreSQL waits for a complete copy, for its applier to be
    level, and for Pass (or ``force_reason``). ``auto`` also waits for a rehearsal. A latch set by an
    automatic rollback holds both until an operator clears it.
    """
    if route.phase is Phase.FINAL:
        if request.wanted is Wanted.FAISS:
            return Stay(("the migration is final: FAISS no longer follows; use `shadow restore`",))
        return Stay()
    if facts.rehearsal_over:
        return Move(Phase.SHADOW, "the rehearsal is over")
    if facts.alarm is not None and route.phase in (Phase.POSTGRESQL, Phase.RAMP):
        return Move(Phase.SHADOW, f"automatic rollback: {facts.alarm}", latch=True)
    if route.rehearsing_until is not None:
        return Stay(("the rehearsal, which is under way",))
    if request.wanted is Wanted.FAISS and route.phase in (Phase.POSTGRESQL, Phase.RAMP):
        return Move(Phase.SHADOW, request.why)
    if facts.postgresql_following is None:
        waits = ("PostgreSQL cannot be reached",)
        return Stay(waits if request.wanted.leaves_faiss else ())
    if not facts.postgresql_following:
        return _without_copy(route, request, facts)
    if route.phase is Phase.FAISS:
        return Move(Phase.SHADOW, "the copy in PostgreSQL is complete and follows the journal")
    if route.phase is Phase.POSTGRESQL or not request.wanted.leaves_faiss:
        return Stay()
    return _towards_postgresql(request, facts)


def _without_copy(route: Route, request: Request, facts: Facts) -> Step:
    if route.phase in (Phase.SHADOW, Phase.RAMP):
        if facts.postgresql_empty:
            # Some other process filled another one. If each moved to what it sees of its own, the route
            # would go to and fro for ever.
            return Stay((EMPTY_HERE,))
        # Mirroring to a store that holds nothing would only count errors.
        return Move(Phase.FAISS, "PostgreSQL does not follow the journal: it needs a backfill")
    if not request.wanted.leaves_faiss:
        return Stay()
    return Stay((NO_COPY,))


def _towards_postgresql(request: Request, facts: Facts) -> Step:
    if facts.latch is not None:
        return Stay(
            (
                f"an automatic rollback is latched ({facts.latch}): clear it with "
                "`shadow rollback --clear-latch`",
            )
        )
    if request.wanted is Wanted.AUTO:
        if facts.blocked_automatic:
            return Stay(facts.blocked_automatic)
        if not facts.rehearsed:
            return Rehearse()
        return _when_level(Move(Phase.POSTGRESQL, "automatic: the gate says pass"), facts)
    if facts.blocked_ready and request.force_reason is None:
        return Stay(facts.blocked_ready)
    why = request.why if request.force_reason is None else f"forced: {request.force_reason}"
    return _when_level(Move(Phase.POSTGRESQL, why), facts)


def _when_level(move: Move, facts: Facts) -> Step:
    return move if facts.behind is None else Stay((facts.behind,))
