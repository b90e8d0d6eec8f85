"""What requests and responses look like; the OpenAPI description is made from these."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    WithJsonSchema,
    model_validator,
)

from vectorstore.filters import CLAUSES_MAX, VALUES_MAX

__all__ = [
    "INTEGER_MAX",
    "AnswerOut",
    "BatchAnswer",
    "BatchRequest",
    "CountAnswer",
    "CountRequest",
    "DeleteRequest",
    "GetRequest",
    "InfoAnswer",
    "Model",
    "ProblemDocument",
    "RecordsAnswer",
    "SearchRequest",
    "UpsertRequest",
    "WriteAnswer",
]

SCALAR: list[JsonValue] = [{"type": kind} for kind in ("string", "number", "boolean", "null")]
# Read as any object, so that the stores' own check words the refusal; described as what they take.
FilterIn = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {
                "anyOf": [
                    *SCALAR,
                    {"type": "array", "items": {"anyOf": SCALAR}, "maxItems": VALUES_MAX},
                ]
            },
            "maxProperties": CLAUSES_MAX,
        }
    ),
]
Id = Annotated[str, Field(max_length=512)]
# Beyond 53 bits some languages' JSON cannot follow.
INTEGER_MAX = 2**53
Seq = Annotated[int, Field(ge=0, le=INTEGER_MAX)]
TimeoutMs = Annotated[float, Field(ge=1, le=3_600_000)]


def _exactly_one(**kinds: str) -> list[JsonValue]:
    """Of these fields, by name and JSON type, one is there and not null."""
    return [
        {"required": [name], "properties": {name: {"type": kind}}} for name, kind in kinds.items()
    ]


VECTOR: list[JsonValue] = [0.12, -0.5, 0.33]
VECTOR_BASE64 = "j8L1PQAAAL/D9ag+"


class Model(BaseModel):
    """An unknown field is an error: a misspelt one would otherwise be ignored. A value of another type
    is one too: 0 is not false, and "5" is not 5."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class VectorChoice(Model):
    """A vector in one of its forms."""

    vector: list[float] | None = Field(
        None, max_length=16_000, description="The vector as numbers.", examples=[VECTOR]
    )
    vector_base64: str | None = Field(
        None,
        max_length=90_000,
        description="The vector as base64 of little-endian float32 values.",
        examples=[VECTOR_BASE64],
    )


class SearchRequest(VectorChoice):
    """One nearest-neighbour question: exactly one of `vector`, `vector_base64` and `text`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"vector": VECTOR, "k": 5, "filter": {"crop": "maize"}}],
            "oneOf": _exactly_one(vector="array", vector_base64="string", text="string"),
        }
    )

    text: str | None = Field(
        None, max_length=100_000, description="A text, where an embedding model is configured."
    )
    k: int = Field(10, ge=1, le=1_000, description="How many neighbours.")
    filter: FilterIn | None = Field(
        None,
        description="Metadata that rows must have: key to a value, or to a list of which one must fit.",
        examples=[{"crop": ["maize", "beans"]}],
    )
    min_seq: Seq = Field(0, description="The answer must include this write.")
    timeout_ms: TimeoutMs | None = Field(None, description="Deadline of this question, ms.")
    label: str | None = Field(
        None, max_length=100, description="The application's name for a stratum."
    )
    spent_ms: float | None = Field(
        None, ge=0, le=3_600_000, description="Time spent before, as on the embedding, ms."
    )

    @model_validator(mode="after")
    def _one_form(self) -> SearchRequest:
        if sum(form is not None for form in (self.vector, self.vector_base64, self.text)) != 1:
            raise ValueError("give exactly one of vector, vector_base64 and text")
        return self


class BatchRequest(Model):
    """Several questions, answered in order by one store."""

    queries: list[SearchRequest] = Field(max_length=10_000)


class RecordIn(VectorChoice):
    """A record to write: exactly one of `vector` and `vector_base64`."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": _exactly_one(vector="array", vector_base64="string")}
    )

    id: Id
    text: str = Field("", max_length=1_000_000)
    metadata: dict[str, Any] = Field(default_factory=dict, examples=[{"crop": "maize"}])

    @model_validator(mode="after")
    def _one_form(self) -> RecordIn:
        if (self.vector is None) == (self.vector_base64 is None):
            raise ValueError("give exactly one of vector and vector_base64")
        return self


OpId = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=200,
        description="Makes a retry within 24 hours the same write. Choose it at random.",
        examples=["7c0f6a5e"],
    ),
]


class UpsertRequest(Model):
    """Insert or replace by id, all or none."""

    records: list[RecordIn] = Field(max_length=10_000)
    op_id: OpId = None


class DeleteRequest(Model):
    """Remove by id, all or none; an id that is not there is no error."""

    ids: list[Id] = Field(max_length=10_000)
    op_id: OpId = None


class GetRequest(Model):
    """The records of these ids."""

    ids: list[Id] = Field(max_length=10_000)
    vectors: bool = Field(False, description="Whether to send the vectors too.")
    timeout_ms: TimeoutMs | None = Field(None, description="Deadline of this read, ms.")


class CountRequest(Model):
    """How many rows there are, or how many the filter matches."""

    filter: FilterIn | None = None
    timeout_ms: TimeoutMs | None = Field(None, description="Deadline of this count, ms.")


class HitOut(BaseModel):
    """One neighbour; a higher score is nearer."""

    id: str
    score: float
    text: str
    metadata: dict[str, Any]
    seq: int


class AnswerOut(BaseModel):
    """Neighbours from nearest to farthest, the store that answered, and how far it had applied."""

    hits: list[HitOut]
    store: str
    applied_seq: int


class BatchAnswer(BaseModel):
    """The answers in the order of the questions."""

    answers: list[AnswerOut]


class RecordOut(BaseModel):
    """A record as it is held."""

    id: str
    text: str
    metadata: dict[str, Any]
    seq: int
    vector_base64: str | None = None


class RecordsAnswer(BaseModel):
    """Records in the order asked, or in byte order of ids for a page."""

    records: list[RecordOut]


class WriteAnswer(BaseModel):
    """The acknowledgement: the write is durable, at this place in the journal."""

    seq: int


class CountAnswer(BaseModel):
    """A number of rows."""

    count: int


class InfoAnswer(BaseModel):
    """What the stores hold, and the live settings of the one that answers."""

    name: str
    dimension: int
    metric: str
    describe: dict[str, Any]


class ProblemDocument(BaseModel):
    """What went wrong, after RFC 9457. `type` tells kinds apart."""

    type: str = Field(examples=["/problems/invalid-input"])
    title: str
    status: int
    detail: str
