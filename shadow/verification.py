"""What a verify found, as it is kept among the evidence."""

from __future__ import annotations

from shadow.evidence_view import Verification
from shadow.writes.verify import Clean, CouldNotCheck, Differs, Verified

__all__ = ["IDS_SHOWN", "verification_of"]

IDS_SHOWN = 20
STATES: dict[type[Verified], str] = {
    Clean: "clean",
    Differs: "differs",
    CouldNotCheck: "could not check",
}


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
