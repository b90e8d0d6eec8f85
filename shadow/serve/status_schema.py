"""What `/v1/status` looks like, for the OpenAPI description."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

__all__ = ["StatusAnswer"]


class FaissOut(BaseModel):
    """The store in this process, and its newest snapshot."""

    dimension: int
    snapshot_seq: int | None
    snapshot_age_s: float | None


class PostgresqlOut(BaseModel):
    """The store on the server; unknown is null."""

    state: str
    applied_seq: int
    lag_entries: int | None
    lag_oldest_ms: float | None
    halted: str | None
    trouble: str | None


class StoresOut(BaseModel):
    """Both stores."""

    faiss: FaissOut
    postgresql: PostgresqlOut


class JournalOut(BaseModel):
    """The log of writes."""

    head: int
    entries: int
    bytes: int
    bytes_max: int
    near_limit: bool


class EvidenceOut(BaseModel):
    """From traffic to evidence, in this era."""

    offered: int
    sampled: int
    compared: int
    dropped: int
    lost: int
    distinct_queries: int
    eras: int


class FigureOut(BaseModel):
    """One figure of the gate with its bounds."""

    name: str
    stratum: str
    queries: int
    mean: float | None
    lower_bound: float
    upper_bound: float
    threshold: float
    passed: bool
    queries_needed: int | None


class VerifyOut(BaseModel):
    """The last verify."""

    state: str
    age_s: float
    rows: int
    differing: int


class ActionOut(BaseModel):
    """A decision that may be taken, or why it is refused now."""

    name: str
    title: str
    will: list[str]
    refused: str
    forcible: bool
    takes: str


class StatusAnswer(BaseModel):
    """Where the migration stands."""

    phase: Literal["faiss", "shadow", "ramp", "postgresql", "final"]
    primary: Literal["faiss", "postgresql"]
    rehearsing: bool
    postgresql_share: float
    mirror_rate: float
    route_version: int = Field(description="Every decision must name it.")
    wanted: str
    wanted_by: str
    waiting_for: list[str]
    latch: str | None
    verdict: Literal["pass", "hold", "undecided"]
    may_flip: str = Field(description="Whether one may flip, in a sentence.")
    open: list[str] = Field(description="What keeps the verdict from pass.")
    figures: list[FigureOut]
    era: int
    stores: StoresOut
    server: dict[str, Any] | None = Field(description="PostgreSQL's own figures.")
    growth_bytes_per_h: float | None
    index_build_left_s: float | None
    pool: dict[str, int]
    backfill: dict[str, Any] | None
    journal: JournalOut
    evidence: EvidenceOut
    verify: VerifyOut | None
    actions: list[ActionOut]
    at: float = Field(description="Seconds since the epoch.")
