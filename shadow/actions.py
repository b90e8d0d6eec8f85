"""What an operator may decide at this moment, and what each decision will do, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shadow.core.phases import Phase

__all__ = ["Action", "actions", "may_flip"]


@dataclass(frozen=True, slots=True)
class Action:
    """One decision. ``refused``: why it cannot be taken now, empty if it can. ``forcible``: whether a
    reason may override that. ``takes``: the value that it asks for besides (``share`` or ``rate``)."""

    name: str
    title: str
    will: tuple[str, ...]
    refused: str = ""
    forcible: bool = False
    takes: str = ""


def actions(status: Mapping[str, Any]) -> tuple[Action, ...]:
    """All decisions, those that cannot be taken now with the reason."""
    phase = Phase(status["phase"])
    opened = list(status["open"])
    latch, verify = status["latch"], status["verify"]
    latched = [f"an automatic rollback is latched: {latch}"] if latch else []
    away = status["stores"]["postgresql"]["state"] == "unavailable"
    unreachable = ["PostgreSQL cannot be reached"] if away else []
    missing = "; ".join(latched + unreachable + opened)
    final = "The migration is final." if phase is Phase.FINAL else ""
    answers = "PostgreSQL answers already." if phase is Phase.POSTGRESQL else ""
    copied = "" if phase is not Phase.FAISS else "PostgreSQL holds no copy yet: backfill first."
    return (
        Action(
            "cutover",
            "Flip to PostgreSQL",
            (
                "PostgreSQL answers all reads, in every process within a second and without a restart.",
                "FAISS follows every write, so that rolling back loses nothing.",
                "Queries are mirrored to FAISS from then on.",
            ),
            final or answers or copied or (f"Not yet: {missing}." if missing else ""),
            forcible=not (final or answers or copied or latch or away),
        ),
        Action(
            "rollback",
            "Roll back to FAISS",
            (
                "FAISS answers all reads again, at once. It has followed every write.",
                "The wish for PostgreSQL is withdrawn: nothing flips until somebody asks again.",
                *(
                    ("The latch of the automatic rollback is cleared if you say so.",)
                    if latch
                    else ()
                ),
            ),
            final,
        ),
        Action(
            "ramp",
            "Ramp",
            (
                "PostgreSQL answers the share of reads that you give; 0 goes back to FAISS alone.",
                "If it becomes worse, all reads go back to FAISS by themselves.",
            ),
            final
            or copied
            or ("Roll back first: PostgreSQL answers all reads." if answers else "")
            or (f"Not yet: {missing}." if status["verdict"] == "hold" or latch else ""),
            forcible=phase in (Phase.SHADOW, Phase.RAMP) and not latch,
            takes="share",
        ),
        Action(
            "rehearse",
            "Rehearse",
            (
                "PostgreSQL answers all reads for two seconds, then FAISS again. Both moves are timed.",
                "It runs on live traffic, and the result goes into the audit log.",
            ),
            final
            or copied
            or ("" if phase is Phase.SHADOW else "A rehearsal begins in the phase shadow.")
            or (f"Not yet: {missing}." if missing else ""),
        ),
        Action(
            "mirror-rate",
            "Set the mirror rate",
            ("That share of the queries is mirrored and compared from then on.",),
            final,
            takes="rate",
        ),
        Action(
            "finalize",
            "Finalize",
            (
                "The journal is sealed; PostgreSQL takes writes by itself from then on.",
                "The FAISS files go into the archive.",
                "There is no rollback after this.",
            ),
            final
            or ("" if phase is Phase.POSTGRESQL else "Only once PostgreSQL answers.")
            or (
                ""
                if verify is not None and verify["state"] == "clean"
                else "There is no clean verify: run `shadow verify`."
            ),
        ),
    )


def may_flip(status: Mapping[str, Any], found: Sequence[Action]) -> str:
    """Whether one may flip at this moment, in a sentence to be read from afar."""
    phase = Phase(status["phase"])
    if phase is Phase.FINAL:
        return "The migration is over: PostgreSQL answers alone."
    if status["rehearsing"]:
        return "A rehearsal is under way: PostgreSQL answers for a moment."
    if phase is Phase.POSTGRESQL:
        return "PostgreSQL answers. You may roll back at any time."
    if status["latch"]:
        return "Do not flip: an automatic rollback is latched."
    if phase is Phase.FAISS:
        return "Not yet: PostgreSQL holds no copy that follows."
    cutover = next(action for action in found if action.name == "cutover")
    if not cutover.refused:
        return "You may flip to PostgreSQL now."
    if status["stores"]["postgresql"]["state"] == "unavailable":
        return "Not now: PostgreSQL cannot be reached."
    if status["verdict"] == "hold":
        return "Do not flip: the evidence speaks against it."
    return "Not yet: there is not enough evidence."
