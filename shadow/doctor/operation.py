"""Traps 13 to 15: a sick secondary, the cost of mirroring, and the way back."""

from __future__ import annotations

from collections.abc import Iterator

from shadow.core.phases import POSTGRESQL, Phase
from shadow.doctor.finding import Finding, Severity
from shadow.doctor.subject import Running, Subject

__all__ = ["check_operation"]

CPU_SHARE_SANE_MAX = 0.5
FOREIGN_FIX = (
    "if state_directory was changed (a relative one starts at the folder that a program runs in), set it "
    "back: the table belongs to the migration there. If both are meant, give this one a postgresql.table "
    "of its own. After a restore, run `shadow backfill`, which replaces the table's rows"
)


def check_operation(subject: Subject) -> Iterator[Finding]:
    """Findings about how the migration runs."""
    running = subject.running
    if running is None:
        return
    yield from _secondary(subject, running)
    yield from _mirror(running)
    if running.primary == POSTGRESQL and not running.rehearsed:
        yield Finding(
            15,
            "the way back",
            Severity.WARNING,
            "PostgreSQL answers, and going back was not rehearsed under these settings",
            ("the audit log has no rehearsal that succeeded in this era",),
            "roll back and forward once at a quiet hour, or keep FAISS until `shadow rehearse` was run",
        )


def _secondary(subject: Subject, running: Running) -> Iterator[Finding]:
    if running.phase is Phase.FAISS and running.standing_state == "empty":
        yield Finding(
            13,
            "a sick secondary",
            Severity.NOTE,
            "PostgreSQL holds no copy yet",
            ("its table is empty",),
            "run `shadow backfill`",
        )
        return
    problems = []
    if subject.postgresql is None:
        problems.append(f"PostgreSQL cannot be reached: {subject.why}")
    elif running.standing_state not in ("following", "final"):
        problems.append(f"PostgreSQL's table is {running.standing_state} and follows no writes")
    if running.standing_trouble and subject.postgresql is not None:
        problems.append(running.standing_trouble)
    age_ms = running.lag_oldest_ms
    if age_ms is not None and age_ms > running.staleness_ms_max and not problems:
        problems.append(
            f"PostgreSQL lacks {running.lag_entries:,} writes, the oldest {age_ms / 1e3:.1f} s old"
        )
    if problems:
        yield Finding(
            13,
            "a sick secondary",
            Severity.FAULT,
            "PostgreSQL does not follow; no write fails or is lost by it, and none reaches it",
            tuple(problems),
            FOREIGN_FIX
            if running.standing_state == "foreign"
            else "bring the server back, or run `shadow backfill` if the table is detached or empty; "
            "a running router catches up by itself",
        )


def _mirror(running: Running) -> Iterator[Finding]:
    problems = []
    if running.dropped > running.drops_share_max * max(1, running.sampled):
        problems.append(f"{running.dropped:,} of {running.sampled:,} sampled queries were dropped")
    if running.cpu_share_max > CPU_SHARE_SANE_MAX:
        problems.append(
            f"mirror.cpu_share_max is {running.cpu_share_max:g}: mirroring may take that share of a "
            "core from the readers of the same process"
        )
    if problems:
        yield Finding(
            14,
            "the cost of mirroring",
            Severity.WARNING,
            "mirroring costs the application more than it should, or cannot keep up",
            tuple(problems),
            "lower mirror.rate, keep mirror.cpu_share_max at 0.25, or gather evidence with `shadow replay`",
        )
