"""A look as plain JSON, for programs and for the page's script."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from shadow.actions import actions, may_flip
from shadow.serve.watch import Look
from vectorstore.postgres.monitoring import hints

__all__ = ["json_status"]


def json_status(look: Look) -> dict[str, Any]:
    """Status, what may be decided, the server's figures and a backfill under way."""
    found = actions(look.status)
    return {
        **_finite(look.status),
        "at": look.at,
        "may_flip": may_flip(look.status, found),
        "actions": [asdict(action) for action in found],
        "server": None
        if look.server is None
        else {**asdict(look.server), "hints": list(hints(look.server))},
        "growth_bytes_per_h": look.growth_bytes_per_h,
        "index_build_left_s": look.build_left_s,
        "pool": dict(look.pool),
        "backfill": None if look.load is None else asdict(look.load),
    }


def _finite(value: Any) -> Any:
    """JSON has no infinity: what is beyond every bound is not known."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
