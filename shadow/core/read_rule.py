"""The one read rule: when a store may answer.

A store may answer only if what it has applied reaches the floor (the highest of the seqs that this
process acknowledged, the seq of the flip in force, and the caller's ``min_seq``), and only if its
oldest entry not yet applied is younger than ``staleness_ms_max``.
"""

from __future__ import annotations

__all__ = ["refusal"]


def refusal(
    *, applied_seq: int, floor_seq: int, oldest_unapplied_ms: float | None, staleness_ms_max: float
) -> str | None:
    """Why an answer may not be given, or ``None`` if it may.

    ``oldest_unapplied_ms`` is the age of the oldest journal entry that the store has not applied,
    ``None`` if it has applied all of them.
    """
    if applied_seq < floor_seq:
        return f"it has applied write {applied_seq}, and this read needs write {floor_seq}"
    if oldest_unapplied_ms is not None and oldest_unapplied_ms > staleness_ms_max:
        return (
            f"its oldest write not yet applied is {oldest_unapplied_ms:.0f} ms old; "
            f"at most {staleness_ms_max:.0f} ms is allowed"
        )
    return None
