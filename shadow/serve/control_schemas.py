"""What decisions and their answers look like, for the OpenAPI description."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from shadow.serve.schemas import INTEGER_MAX, Model

__all__ = [
    "CutoverRequest",
    "DecisionRequest",
    "MirrorRateRequest",
    "RampRequest",
    "RollbackRequest",
    "StandingAnswer",
]


class DecisionRequest(Model):
    """A decision: on which version of the route it was taken, why, and by whom."""

    route_version: int = Field(
        ge=0, le=INTEGER_MAX, description="As `status` told it; if it has changed since, 409."
    )
    why: str = Field(min_length=1, max_length=500, description="For the audit log.")
    operator: str = Field(
        "", max_length=100, description="Who decides, for the audit log; taken at its word."
    )


class CutoverRequest(DecisionRequest):
    """Make PostgreSQL the primary."""

    force: str | None = Field(
        None, min_length=1, max_length=500, description="Reason to go without the gate's pass."
    )
    wait: bool = Field(
        False, description="Keep the wish until it may come true, instead of refusing it now."
    )


class RollbackRequest(DecisionRequest):
    """Make FAISS the primary again."""

    clear_latch: bool = Field(False, description="Allow flips again after an automatic rollback.")


class RampRequest(DecisionRequest):
    """Let PostgreSQL answer a share of the reads."""

    share: float = Field(ge=0, le=1)
    force: str | None = Field(
        None,
        min_length=1,
        max_length=500,
        description="Reason to ramp although the verdict is hold.",
    )


class MirrorRateRequest(DecisionRequest):
    """Mirror this share of the queries."""

    rate: float = Field(ge=0, le=1)


class StandingAnswer(BaseModel):
    """Where the migration stands after a decision."""

    phase: str
    primary: str
    route_version: int
    waiting_for: list[str]
    result: dict[str, Any] | None = None
