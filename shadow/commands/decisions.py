"""The commands that decide: ramp, cutover, rollback, rehearse, finalize."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from shadow.commands.running import (
    FAILED,
    HOLD,
    UNDECIDED,
    ConfigOption,
    err,
    migration,
    out,
    stop,
)

if TYPE_CHECKING:
    from shadow.opening import Migration

__all__ = ["cutover", "finalize", "ramp", "rehearse", "rollback"]

LOOK_AGAIN_S = 0.25

ReasonOption = Annotated[str, typer.Option("--why", help="Why, for the audit log.")]


def ramp(
    percent: Annotated[float, typer.Argument(min=0.0, max=100.0, help="Share of reads, 0 to 100.")],
    config: ConfigOption = None,
    why: ReasonOption = "by command",
    force: Annotated[
        str | None, typer.Option(help="Reason to ramp although the verdict is hold.")
    ] = None,
) -> None:
    """Let PostgreSQL answer a share of the reads; 0 goes back to answering from FAISS alone.

    Refused while the evidence says hold, unless forced with a reason. The read rule holds in any case.
    """
    from shadow import decisions
    from shadow.opening import who

    with migration(config) as opened:
        opened.postgresql.look()
        decisions.ramp(opened, percent / 100, who=who("ramp"), why=why, force=force)
        out.print(f"PostgreSQL answers {percent:g} % of the reads")


def cutover(
    config: ConfigOption = None,
    why: ReasonOption = "by command",
    force: Annotated[
        str | None,
        typer.Option(
            help="Reason to flip although the gate does not say pass; never skips the read rule."
        ),
    ] = None,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0.0, help="Seconds to wait for the flip; the wish stays.")
    ] = 30.0,
) -> None:
    """Make PostgreSQL the primary, without a restart, as soon as the gate says pass.

    Every running process follows within a second. What the flip waits for is printed. Exit code 0: it
    is in force. 3: the evidence says hold. 4: there is not enough evidence yet. In the last two the
    wish stays and a running router flips by itself once it may; `shadow rollback` takes it back.
    """
    from shadow.core.gate import Hold
    from shadow.core.phases import Phase, Request, Wanted
    from shadow.opening import who

    with migration(config) as opened:
        if opened.routes.current().phase is Phase.FINAL:
            out.print("PostgreSQL is the primary for good: the migration is final")
            return
        try:
            opened.routes.ask(Request(Wanted.POSTGRESQL, who("cutover"), why, force))
            waiting = _wait_for(opened, Phase.POSTGRESQL, wait_s)
        except KeyboardInterrupt:
            if opened.routes.request().wanted is Wanted.POSTGRESQL:
                err.print(
                    "the wish stays: a router flips when the gate passes; `shadow rollback` takes it "
                    "back"
                )
            raise
        verdict = opened.desk.ready()
        if opened.routes.current().phase is Phase.POSTGRESQL:
            out.print("PostgreSQL is the primary; FAISS follows, and `shadow rollback` goes back")
            return
    for sentence in waiting:
        err.print(f"  waiting for: {sentence}", markup=False)
    stop(
        "not flipped yet; a running router flips when it may",
        code=HOLD if isinstance(verdict, Hold) else UNDECIDED,
    )


def rollback(
    config: ConfigOption = None,
    why: ReasonOption = "by command",
    clear_latch: Annotated[
        bool, typer.Option("--clear-latch", help="Allow flips again after an automatic rollback.")
    ] = False,
) -> None:
    """Make FAISS the primary again; it followed every write, so nothing is lost.

    To go back to a moment in the past, losing what came after it, there is `shadow restore`.
    """
    from shadow import decisions
    from shadow.core.phases import Phase
    from shadow.opening import who

    with migration(config) as opened:
        decisions.rollback(opened, who=who("rollback"), why=why, clear_latch=clear_latch)
        if clear_latch:
            out.print("the latch is cleared")
        waiting = _wait_for(opened, Phase.SHADOW, 10.0)
        phase = opened.routes.current().phase
        if phase in (Phase.FAISS, Phase.SHADOW):
            out.print("FAISS is the primary")
            return
    stop("; ".join(waiting) or f"the phase is still {phase.value}", code=FAILED)


def rehearse(config: ConfigOption = None) -> None:
    """Flip to PostgreSQL for two seconds and back, on live data, and time both.

    Refused unless the gate says pass, and while flips are latched. Exit code 3: the evidence says hold. 4:
    there is not enough of it yet. 1: refused for another reason, or it failed, and flips are latched.
    """
    from shadow import decisions
    from shadow.opening import who

    with migration(config) as opened:
        opened.postgresql.look()
        opened.lag.refresh()
        result = decisions.rehearse(opened, who=who("rehearse"))
    out.print(
        f"flipped in {result.flip_ms:.1f} ms, held for {result.held_s:.0f} s, back in "
        f"{result.back_ms:.1f} ms: {result.why}"
    )
    if not result.ok:
        raise typer.Exit(FAILED)


def finalize(
    config: ConfigOption = None,
    why: ReasonOption = "by command",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """End the migration: PostgreSQL takes writes itself, FAISS goes into the archive.

    After this `rollback` is impossible.
    """
    from shadow.core.phases import Phase
    from shadow.finalize import finalize as run
    from shadow.opening import who

    with migration(config) as opened:
        if opened.routes.current().phase is Phase.FINAL:
            out.print("the migration is final already")
            return
        if not yes and not typer.confirm(
            "End dual running for good? There is no rollback after this"
        ):
            raise typer.Exit(FAILED)
        opened.postgresql.look()
        archive = run(opened, who=who("finalize"), why=why)
    out.print(f"the migration is final; the FAISS files are in {archive}")


def _wait_for(opened: Migration, phase: object, wait_s: float) -> tuple[str, ...]:
    """Take steps until the phase is reached or time is up; what is still waited for."""
    from shadow.opening import who

    deadline = time.monotonic() + wait_s
    while True:
        opened.postgresql.look()
        opened.lag.refresh()
        waiting = opened.cutover.step(who=who("command"))
        if opened.routes.current().phase is phase:
            return ()
        if time.monotonic() >= deadline:
            return waiting
        time.sleep(LOOK_AGAIN_S)
