"""What may enter a store, decided before anything is written.

Limits are part of the contract: a refusal names the limit that was passed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vectorstore.canonical import canonical_json
from vectorstore.errors import InvalidInput
from vectorstore.types import Metric, Query, Record, Vector

__all__ = [
    "BATCH_RECORDS_MAX",
    "ID_BYTES_MAX",
    "K_MAX",
    "METADATA_BYTES_MAX",
    "TEXT_BYTES_MAX",
    "check_batch",
    "check_id",
    "normalised_record",
    "query_vector",
]

ID_BYTES_MAX = 512
TEXT_BYTES_MAX = 1_000_000
METADATA_BYTES_MAX = 100_000
BATCH_RECORDS_MAX = 10_000
K_MAX = 1_000


def check_id(record_id: str) -> str:
    """Return the id, or raise InvalidInput saying what is wrong with it."""
    if not isinstance(record_id, str) or not record_id:
        raise InvalidInput(f"an id must be text that is not empty, not {record_id!r}")
    _check_text(record_id, "an id", ID_BYTES_MAX)
    return record_id


def normalised_record(record: Record, *, dimension: int, metric: Metric) -> Record:
    """The record as every store will hold it, or InvalidInput and no trace.

    The embedding becomes float32 (d,); under cosine it is scaled to unit length, once, here.
    """
    check_id(record.id)
    if not isinstance(record.text, str):
        raise InvalidInput(f"record {record.id!r}: text must be a string")
    _check_text(record.text, f"the text of {record.id!r}", TEXT_BYTES_MAX)
    if len(canonical_json(record.metadata).encode()) > METADATA_BYTES_MAX:
        raise InvalidInput(
            f"record {record.id!r}: metadata is larger than {METADATA_BYTES_MAX:,} bytes"
        )
    vector = _vector(record.embedding, dimension, metric, f"record {record.id!r}")
    return replace(record, embedding=vector)


def query_vector(query: Query, *, dimension: int, metric: Metric) -> Vector:
    """The query's vector as float32 (d,), of unit length under cosine; checks k as well."""
    if not 1 <= query.k <= K_MAX:
        raise InvalidInput(f"k is {query.k}; it must be from 1 to {K_MAX}")
    return _vector(query.vector, dimension, metric, "query")


def check_batch(records: Sequence[object]) -> None:
    """Refuse a batch that is larger than one transaction should be."""
    if len(records) > BATCH_RECORDS_MAX:
        raise InvalidInput(
            f"batch has {len(records):,} items; at most {BATCH_RECORDS_MAX:,} are allowed: split it"
        )


def _vector(values: object, dimension: int, metric: Metric, what: str) -> Vector:
    try:
        vector = np.ascontiguousarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{what}: the vector is not an array of numbers") from error
    if vector.shape != (dimension,):
        raise InvalidInput(
            f"{what}: the vector has shape {vector.shape}; this store holds {dimension} dimensions"
        )
    squared = float(np.dot(vector, vector))
    if not math.isfinite(squared):
        # The square may overflow where the values do not.
        if not np.isfinite(vector).all():
            raise InvalidInput(f"{what}: the vector holds NaN or infinity")
        raise InvalidInput(f"{what}: the vector is too long for float32 (|x|^2 overflows)")
    if metric is not Metric.COSINE:
        return vector
    if squared == 0.0:
        raise InvalidInput(f"{what}: a zero vector has no direction, so cosine cannot rank it")
    if abs(squared - 1.0) <= 2e-7:
        return vector
    return vector / np.float32(np.sqrt(squared))


def _check_text(text: str, what: str, bytes_max: int) -> None:
    if "\0" in text:
        raise InvalidInput(f"{what} holds a NUL character, which PostgreSQL cannot store")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{what} holds a lone surrogate, which UTF-8 cannot encode") from error
    if size > bytes_max:
        raise InvalidInput(f"{what} is {size:,} bytes; at most {bytes_max:,} are allowed")
