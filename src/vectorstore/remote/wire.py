"""How values travel between the proxy and its clients, in JSON.

A vector is base64 of little-endian float32, which keeps every bit and a quarter of the size of decimal
text. Everything else is plain JSON; integers may be of any size.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from vectorstore.errors import InvalidInput
from vectorstore.filters import Filter, Scalar
from vectorstore.types import Answer, Hit, Record, Vector

__all__ = [
    "answer_from_wire",
    "answer_to_wire",
    "encoded",
    "filter_to_wire",
    "record_from_wire",
    "record_to_wire",
    "vector_from_base64",
    "vector_from_bytes",
    "vector_to_base64",
]


def encoded(values: Any) -> bytes:
    """JSON text in ASCII; raises InvalidInput for what JSON cannot hold."""
    try:
        return json.dumps(values, allow_nan=False, separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"this cannot be written as JSON: {error}") from error


def vector_to_base64(vector: Vector) -> str:
    """The vector's float32 values, little-endian."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def vector_from_base64(text: str) -> Vector:
    """The vector that :func:`vector_to_base64` wrote; raises InvalidInput."""
    try:
        return vector_from_bytes(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(
            "the vector is not base64 of little-endian float32 values: encode 4 bytes a dimension"
        ) from error


def vector_from_bytes(raw: bytes) -> Vector:
    """A vector from its little-endian float32 bytes; raises InvalidInput."""
    if len(raw) % 4:
        raise InvalidInput(
            f"the vector has {len(raw):,} bytes, which is no multiple of 4: send float32 values"
        )
    # A copy of its own: the bytes may be a view on a request that goes away.
    return np.frombuffer(raw, dtype="<f4").astype(np.float32)


def filter_to_wire(filter: Filter | None) -> dict[str, list[Scalar]] | None:
    """The filter as the mapping that ``Filter.of`` takes."""
    return None if filter is None else {key: list(values) for key, values in filter.clauses}


def record_to_wire(record: Record, *, vectors: bool = True) -> dict[str, Any]:
    """A record as an object; without its vector if ``vectors`` is false."""
    values: dict[str, Any] = {
        "id": record.id,
        "text": record.text,
        "metadata": dict(record.metadata),
        "seq": record.seq,
    }
    if vectors:
        values["vector_base64"] = vector_to_base64(record.embedding)
    return values


def record_from_wire(values: Mapping[str, Any]) -> Record:
    """The record that :func:`record_to_wire` wrote."""
    return Record(
        values["id"],
        vector_from_base64(values["vector_base64"]),
        values["text"],
        values["metadata"],
        values["seq"],
    )


def answer_to_wire(answer: Answer) -> dict[str, Any]:
    """An answer as an object."""
    return {
        "hits": [
            {
                "id": hit.id,
                "score": float(hit.score),
                "text": hit.text,
                "metadata": dict(hit.metadata),
                "seq": hit.seq,
            }
            for hit in answer.hits
        ],
        "store": answer.store,
        "applied_seq": answer.applied_seq,
    }


def answer_from_wire(values: Mapping[str, Any]) -> Answer:
    """The answer that :func:`answer_to_wire` wrote."""
    hits = [Hit(**hit) for hit in values["hits"]]
    return Answer(hits, values["store"], values["applied_seq"])
