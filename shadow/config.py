"""Every setting: its default, unit, bounds and meaning. Where they come from: ``config_sources``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from shadow.core.strata import declared
from vectorstore.errors import ConfigurationError
from vectorstore.types import Metric

__all__ = ["Settings"]

Share = Annotated[float, Field(ge=0.0, le=1.0)]
OpenShare = Annotated[float, Field(gt=0.0, lt=1.0)]
# As much as the gate takes: beyond a half, a Pass would be wrong more often than not.
Alpha = Annotated[float, Field(gt=0.0, le=0.5)]
Milliseconds = Annotated[float, Field(gt=0.0, le=3_600_000.0)]
# A hundred years: for ever, and a number that can still be reckoned with.
SECONDS_MAX = 3_153_600_000.0
Seconds = Annotated[float, Field(ge=0.0, le=SECONDS_MAX)]


class Section(BaseModel):
    """A group of settings: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, values: Any) -> Any:
        """TOML and the environment cannot say "nothing": an empty text does, where that is allowed."""
        if not isinstance(values, dict):
            return values
        optional = {name for name, field in cls.model_fields.items() if field.default is None}
        return {name: v for name, v in values.items() if not (v == "" and name in optional)}

    @field_validator("*", mode="before")
    @classmethod
    def _is_what_it_seems(cls, value: Any, info: ValidationInfo) -> Any:
        """``true`` would be taken for 1, an empty path for the folder that the program runs in."""
        wanted = cls.model_fields[info.field_name or ""].annotation
        section = isinstance(wanted, type) and issubclass(wanted, BaseModel)
        listed = section or get_origin(wanted) is tuple
        if isinstance(value, bool) and wanted is not bool and not listed:
            raise ValueError(f"{str(value).lower()} switches nothing here: give a value")
        if value == "" and wanted is Path:
            raise ValueError("it is empty: give a folder, or leave it unset for the default")
        if isinstance(value, str) and "\0" in value:
            raise ValueError("it holds a NUL character, which nothing that is named by it can")
        return value


class FaissSettings(Section):
    """Where the FAISS store comes from."""

    path: Path | None = Field(
        None,
        description="The index to migrate: a folder in a layout that is recognised, or a file. Read once; never changed.",
    )
    metric: Metric | None = Field(
        None, description="cosine, inner_product or l2; unset: as the index says."
    )
    kind: Literal["flat", "ivf", "hnsw"] = Field(
        "flat", description="The kind of index to start when there is none to take in."
    )
    dimension: int | None = Field(
        None, ge=1, le=16_000, description="Length of every vector; unset: as the index says."
    )
    quarantine: tuple[str, ...] = Field(
        (),
        examples=["doc-7", "position:12"],
        description="Ids to leave behind because PostgreSQL cannot hold them.",
    )
    tombstones_share_max: OpenShare = Field(
        0.2,
        description="Share of dead rows in an IVF or HNSW index at which a snapshot is made of a rebuilt one.",
    )


class PostgresqlSettings(Section):
    """The PostgreSQL side."""

    dsn: SecretStr = Field(
        SecretStr("embedded"),
        description="A connection string, or `embedded` for the packaged server. Plain name: DATABASE_URL.",
    )
    table: str = Field(
        "document_embeddings",
        min_length=1,
        max_length=40,
        description="Name of the table that holds the records.",
    )
    pool_size_max: int = Field(
        8, ge=1, le=200, description="Connections that one process may hold."
    )
    connect_timeout_ms: Milliseconds = Field(
        3_000.0, description="Longest wait for a new connection, ms."
    )
    ef_search: int = Field(
        100, ge=1, le=1_000, description="Candidates that an HNSW search keeps; k if that is more."
    )
    iterative_scan: Literal["off", "strict_order", "relaxed_order"] = Field(
        "strict_order", description="How pgvector 0.8 goes on when a filter leaves too few rows."
    )
    exact_rows_max: int = Field(
        1_000,
        ge=0,
        description="Rows up to which no HNSW index is built: exact search is fast and perfect there.",
    )
    index_type: Literal["auto", "halfvec"] = Field(
        "auto",
        description="halfvec: an index of half the size, reranked; auto: only above 2,000 dimensions.",
    )
    rerank_factor: int = Field(
        2, ge=1, le=100, description="A halfvec index is asked for so many times k, then reranked."
    )
    hnsw_m: int = Field(16, ge=2, le=100, description="Links per node of the HNSW index.")
    hnsw_ef_construction: int = Field(
        64, ge=4, le=1_000, description="Candidates kept while the HNSW index is built."
    )
    maintenance_work_mem: str = Field(
        "256MB",
        pattern=r"^\d+(kB|MB|GB)$",
        examples=["512MB"],
        description="Memory for building the index; the graph should fit.",
    )


class RouterSettings(Section):
    """How reads are answered."""

    timeout_ms: Milliseconds = Field(
        2_000.0, description="Deadline of a read that brings none of its own, ms."
    )
    bulk_timeout_ms: Milliseconds = Field(
        30_000.0,
        description="How long a `count`, or a page of `scan`, that brings no deadline may take in a PostgreSQL that has said within timeout_ms how far it is, ms; timeout_ms if that is more.",
    )
    staleness_ms_max: Milliseconds = Field(
        1_000.0, description="Oldest write that a store may lack and still answer, ms."
    )
    poll_ms: Annotated[float, Field(ge=1.0, le=3_600_000.0)] = Field(
        50.0, description="How often a process looks for other processes' writes and flips, ms."
    )
    breaker_failures: int = Field(
        5, ge=1, le=1_000, description="Failures in a row after which a store is left alone."
    )
    breaker_pause_ms: Milliseconds = Field(
        1_000.0, description="How long it is left alone before one call tries it again, ms."
    )


class MirrorSettings(Section):
    """How queries are mirrored."""

    rate: Share = Field(
        1.0,
        description="Share of queries offered to the shadow at the start; `shadow status` shows the rate in force.",
    )
    queue_size_max: int = Field(
        1_000,
        ge=1,
        le=1_000_000,
        description="Observations that may wait; more are dropped and counted.",
    )
    timeout_ms: Milliseconds = Field(
        1_000.0, description="Deadline of a mirrored query; later is a miss, ms."
    )
    cpu_share_max: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.25,
        description="Share of one core that mirroring may use before it lowers its rate. To mirror nothing, set `mirror.rate` to 0.",
    )
    own_process: bool = Field(
        True,
        description="Whether a busy mirror may ask PostgreSQL from a process of its own (about 50 MB, one connection), which readers feel less than a thread.",
    )
    audit_rate: Share = Field(
        0.01,
        description="Share of mirrored queries, drawn before their results, that hold both stores against an exact scan.",
    )
    events: Literal["each", "aggregated", "off"] = Field(
        "each", description="structlog events: one per comparison, one per batch, or none."
    )


class GateSettings(Section):
    """Thresholds that evidence is held against."""

    recall_min: OpenShare = Field(
        0.95, description="Mean recall@k of PostgreSQL against FAISS that must be shown."
    )
    success_min: OpenShare = Field(
        0.95, description="Share of mirrored queries that PostgreSQL must answer at all."
    )
    top1_min: OpenShare | None = Field(
        None, description="Share of queries whose nearest hit must agree; unset: not gated."
    )
    exact_recall_min: OpenShare | None = Field(
        None,
        description="Mean recall of PostgreSQL against the exact answer, over the audit sample; unset: not gated.",
    )
    latency_budget_ms: Milliseconds = Field(
        50.0, description="A mirrored query within this is fast enough, ms."
    )
    latency_share_min: OpenShare = Field(
        0.95, description="Share of mirrored queries that must be fast enough."
    )
    latency_scope: Literal["store", "end_to_end"] = Field(
        "store",
        description="What latency counts: the store's call, or with it what the application says it spent before (Query.spent_ms: the embedding).",
    )
    latency_ratio_max: Annotated[float, Field(gt=0.0, le=1_000.0)] | None = Field(
        None,
        description="PostgreSQL's p95 must be at most this many times FAISS's; unset: not gated.",
    )
    strata: tuple[str, ...] = Field(
        (),
        examples=["filtered", "k<=10"],
        description="Shares of the traffic that must pass by themselves: filtered, unfiltered, k<=10, label:NAME.",
    )
    alpha_ready: Alpha = Field(0.05, description="Chance of a wrong Pass that an operator accepts.")
    alpha_automatic: Alpha = Field(
        0.01, description="Chance of a wrong Pass that an automatic flip accepts."
    )
    distinct_queries_min: int = Field(
        50, ge=1, le=10_000, description="Different queries that must have been compared."
    )
    duration_s_min: Seconds = Field(
        86_400.0, description="Time over which evidence must have been gathered, s."
    )
    drops_share_max: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.05, description="Share of sampled queries that may be dropped."
    )
    verify_age_s_max: Annotated[float, Field(gt=0.0, le=SECONDS_MAX)] = Field(
        86_400.0, description="Age at which a clean verify no longer counts, s."
    )
    verify_every_s: Seconds = Field(
        21_600.0,
        description="How often a verify runs in the background, in a process of its own, s; 0: never.",
    )

    @field_validator("strata")
    @classmethod
    def _strata_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            declared(value)
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        return value


class EvidenceSettings(Section):
    """What is kept of live queries so that they can be replayed; nothing unless asked for."""

    capture_max: int = Field(
        0, ge=0, le=1_000_000, description="Mirrored queries whose vectors are kept; 0: none."
    )
    capture_age_s_max: Seconds = Field(
        604_800.0, description="Age at which a captured query is deleted, s."
    )
    capture_filters: bool = Field(
        False, description="Whether filters and labels, which may hold personal data, are kept too."
    )


class JournalSettings(Section):
    """The durable log of writes and what is kept with it."""

    size_bytes_max: int = Field(
        1 << 30, ge=1 << 16, description="Size at which a store that lags is detached, bytes."
    )
    apply_batch_max: int = Field(
        500, ge=1, le=10_000, description="Entries that one transaction applies to PostgreSQL."
    )
    snapshot_entries: int = Field(
        10_000,
        ge=1,
        description="Journal entries after which a new FAISS snapshot is made; a twentieth of the rows, if that is more.",
    )
    snapshots_kept: int = Field(2, ge=1, le=100, description="Verified snapshots that are kept.")
    backups_kept: int = Field(
        7,
        ge=1,
        le=10_000,
        description="Backups of each kind (full, before a backfill) that are kept.",
    )


class ServeSettings(Section):
    """The HTTP proxy of `shadow serve`."""

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address to listen on. Beyond this machine: put TLS in front, and set the tokens.",
    )
    port: int = Field(8_080, ge=0, le=65_535, description="Port to listen on; 0: any free one.")
    hosts_allowed: tuple[str, ...] = Field(
        (),
        examples=["search.example.org"],
        description="Host names that requests may be addressed to, besides the address listened on and localhost.",
    )
    write_token: SecretStr | None = Field(
        None,
        description="What clients must bring to write. Unset: writes are taken on a loopback address only.",
    )
    write_token_file: Path | None = Field(
        None, description="A file with the write token, in place of `write_token`."
    )
    control_token: SecretStr | None = Field(
        None, description="What operators must bring to decide. Unset: control is refused."
    )
    control_token_file: Path | None = Field(
        None, description="A file with the control token, in place of `control_token`."
    )
    embedder: str | None = Field(
        None,
        pattern=r"^[\w.]+:\w+$",
        examples=["my_package.models:make_embedder"],
        description="module:function that makes the embedding model, for searches by text; unset: by vector only.",
    )
    body_bytes_max: int = Field(
        16 << 20, ge=1_024, le=1 << 30, description="Largest request body, bytes."
    )
    k_max: int = Field(1_000, ge=1, le=1_000, description="Largest k that is answered.")
    batch_max: int = Field(
        1_000, ge=1, le=10_000, description="Most queries, records or ids in one request."
    )
    concurrency_max: int = Field(
        32, ge=1, le=1_000, description="Requests worked on at the same time; more get 429."
    )
    streams_max: int = Field(
        32, ge=1, le=1_000, description="Pages that may follow the live events at the same time."
    )
    refresh_ms: Annotated[float, Field(ge=100.0, le=60_000.0)] = Field(
        1_000.0, description="Age at which status, page and metrics look anew, ms."
    )
    drain_s: Annotated[float, Field(ge=0.0, le=600.0)] = Field(
        10.0, description="Time that requests under way have to end after SIGTERM, s."
    )


class Settings(Section):
    """All settings of the router."""

    state_directory: Path = Field(
        Path(".shadow"),
        description="Where journal, evidence, snapshots and the embedded server live: one machine, one folder. A relative path starts at the folder that the program runs in: another folder is another migration.",
    )
    primary: Literal["faiss", "postgresql", "auto"] | None = Field(
        None,
        description="What is wanted when a process starts; ignored if it equals the last value seen. Plain name: PRIMARY.",
    )
    embedding_model: str | None = Field(
        None,
        description="Name of the model that makes the vectors: a change of it opens a new era.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe event that is logged."
    )
    faiss: FaissSettings = FaissSettings()  # type: ignore[call-arg]
    postgresql: PostgresqlSettings = PostgresqlSettings()  # type: ignore[call-arg]
    router: RouterSettings = RouterSettings()  # type: ignore[call-arg]
    mirror: MirrorSettings = MirrorSettings()  # type: ignore[call-arg]
    gate: GateSettings = GateSettings()  # type: ignore[call-arg]
    journal: JournalSettings = JournalSettings()  # type: ignore[call-arg]
    evidence: EvidenceSettings = EvidenceSettings()  # type: ignore[call-arg]
    serve: ServeSettings = ServeSettings()  # type: ignore[call-arg]
