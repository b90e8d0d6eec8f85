"""Change alarms: what the change detectors have seen of an era, kept with the evidence.

One detector a watched figure, for all processes together. When it goes off, the alarm stands until the
detector that begins anew was quiet for ``QUIET_QUERIES`` queries.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from shadow.core.change_detector import CusumState, step

__all__ = ["watch"]

# About as many queries as the detector takes to notice that .98 has become .90 (docs/gate.md).
QUIET_QUERIES = 200


def watch(
    connection: sqlite3.Connection,
    era: int,
    batch: Sequence[Mapping[str, float]],
    *,
    means: Mapping[str, float],
    at: float,
) -> list[str]:
    """Show the detectors of an era the watched figures of a batch; return those that went off.

    Within a transaction of the caller's. ``means``: for each watched figure, the mean below which its
    detector looks. ``at``: when an alarm begins to stand, Unix seconds.
    """
    alarms: list[str] = []
    states: dict[str, CusumState] = {}
    for one in batch:
        for figure, value in one.items():
            if figure not in means:
                continue
            if figure not in states:
                states[figure] = _state(connection, era, figure)
            states[figure] = step(states[figure], value, means[figure])
    for figure, state in states.items():
        # A detector that went off starts anew, and the alarm stands until that one was quiet.
        quiet = state.observations >= QUIET_QUERIES
        if state.alarm:
            alarms.append(figure)
        kept = CusumState() if state.alarm else state
        connection.execute(
            "INSERT INTO watches VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " state = excluded.state, alarm_at = CASE WHEN ? THEN NULL"
            " ELSE coalesce(alarm_at, excluded.alarm_at) END",
            (
                era,
                figure,
                json.dumps(_fields(kept)),
                at if state.alarm else None,
                quiet and not state.alarm,
            ),
        )
    return alarms


def _fields(state: CusumState) -> dict[str, Any]:
    # Written for every batch: dataclasses.asdict would copy each float.
    return {
        "wealths": state.wealths,
        "observations": state.observations,
        "alarm_at": state.alarm_at,
    }


def _state(connection: sqlite3.Connection, era: int, figure: str) -> CusumState:
    row = connection.execute(
        "SELECT state FROM watches WHERE era = ? AND figure = ?", (era, figure)
    ).fetchone()
    if row is None:
        return CusumState()
    fields = json.loads(row[0])
    return CusumState(tuple(fields["wealths"]), fields["observations"], fields["alarm_at"])
