"""When there is something to verify, and what a verify found, as it is kept among the evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shadow.core.phases import NO_COPY, Phase
from shadow.evidence_view import Verification
from shadow.writes.verify import Clean, CouldNotCheck, Differs, Verified

if TYPE_CHECKING:
    from shadow.opening import Migration

__all__ = ["IDS_SHOWN", "nothing_to_compare", "verification_of"]

IDS_SHOWN = 20
STATES: dict[type[Verified], str] = {
    Clean: "clean",
    Differs: "differs",
    CouldNotCheck: "could not check",
}


def nothing_to_compare(migration: Migration) -> CouldNotCheck | None:
    """Why the stores need not be compared: that they differ now would be no finding.

    Not to be kept among the evidence. Raises what opening PostgreSQL raises.
    """
    final = CouldNotCheck("the migration is final: FAISS is archived, there is nothing to compare")
    if migration.routes.current().phase is Phase.FINAL:
        return final
    migration.link.open()
    match migration.postgresql.look().state:
        case "final":
            return final
        case "following" | "unavailable":
            return None
        case _:
            return CouldNotCheck(NO_COPY)


def verification_of(result: Verified, *, at: float, copy: str) -> Verification:
    """The verification to keep; ``at`` in seconds since the epoch. The detail lists the first ids.

    ``copy``: what PostgreSQL held before the verify began, so that of one which was loaded meanwhile
    nothing is said.
    """
    detail, differing = "", 0
    if isinstance(result, CouldNotCheck):
        detail = result.why
    elif isinstance(result, Differs):
        differing = len(result.ids)
        detail = "; ".join(
            f"{len(ids)} {kind}: {', '.join(ids[:IDS_SHOWN])}"
            for kind in ("missing", "extra", "stale", "different")
            if (ids := getattr(result, kind))
        )
    return Verification(
        at, STATES[type(result)], result.rows, differing, result.method, detail, copy
    )
