"""What may enter a store, decided before anything is written.

Limits are part of the contract: a refusal names the limit that was passed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence

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
    "check_ids",
    "check_page",
    "check_text",
    "encoded_record",
    "normalised_record",
    "possible_ids",
    "query_vector",
]

ID_BYTES_MAX = 512
TEXT_BYTES_MAX = 1_000_000
METADATA_BYTES_MAX = 100_000
BATCH_RECORDS_MAX = 10_000
K_MAX = 1_000
SQUARE_MIN = 1e-30

_parse = json.JSONDecoder().raw_decode


def check_id(record_id: str) -> str:
    """Return the id, or raise InvalidInput saying what is wrong with it."""
    if not isinstance(record_id, str) or not record_id:
        raise InvalidInput(f"an id must be text that is not empty, not {record_id!r}")
    check_text(record_id, "an id", ID_BYTES_MAX)
    return record_id


def normalised_record(record: Record, *, dimension: int, metric: Metric) -> Record:
    """The record as every store will hold it, or InvalidInput and no trace.

    The embedding becomes float32 (d,); under cosine it is scaled to unit length, once, here. The
    metadata is what its canonical text says: the caller keeps its mapping, and may change it.
    """
    return encoded_record(record, dimension=dimension, metric=metric)[0]


def encoded_record(record: Record, *, dimension: int, metric: Metric) -> tuple[Record, str]:
    """:func:`normalised_record`, and the canonical text of its metadata."""
    name, text = check_id(record.id), record.text
    try:
        if not isinstance(text, str):
            raise InvalidInput("text must be a string")
        check_text(text, "the text", TEXT_BYTES_MAX)
        metadata = canonical_json(record.metadata)
        if not metadata.startswith("{"):
            raise InvalidInput("metadata must be a JSON object")
        if len(metadata.encode()) > METADATA_BYTES_MAX:
            raise InvalidInput(f"metadata is larger than {METADATA_BYTES_MAX:,} bytes")
        vector = _vector(record.embedding, dimension, metric)
    except InvalidInput as error:
        raise InvalidInput(f"record {name!r}: {error}") from error
    return Record(name, vector, text, _parse(metadata)[0], record.seq), metadata


def query_vector(query: Query, *, dimension: int, metric: Metric) -> Vector:
    """The query's vector as float32 (d,), of unit length under cosine; checks k as well."""
    if not 1 <= query.k <= K_MAX:
        raise InvalidInput(f"k is {query.k}; it must be from 1 to {K_MAX}")
    try:
        return _vector(query.vector, dimension, metric)
    except InvalidInput as error:
        raise InvalidInput(f"query: {error}") from error


def check_ids(ids: Sequence[str]) -> None:
    """Refuse what is no list of ids; an id that nothing could be called is no error in a question."""
    _check_list(ids)
    for one in ids:
        if not isinstance(one, str):
            raise InvalidInput(f"an id is text, not {one!r}")


def possible_ids(ids: Sequence[str]) -> list[str]:
    """Those of ``ids`` that can be sent: text in UTF-8 without NUL. The others are simply not there."""
    return [str.__str__(one) for one in ids if "\0" not in one and _encodable(one)]


def check_page(after: str, limit: int) -> None:
    """Refuse a page that no scan can give."""
    if not isinstance(after, str) or "\0" in after or not _encodable(after):
        raise InvalidInput(f"after is the last id of the page before, or empty, not {after!r}")
    if not isinstance(limit, int | np.integer) or limit < 0:
        raise InvalidInput(f"limit must be a whole number from 0, not {limit!r}")


def check_batch(records: Sequence[object]) -> None:
    """Refuse a batch that is larger than one transaction should be, or is no batch."""
    _check_list(records)
    if len(records) > BATCH_RECORDS_MAX:
        raise InvalidInput(
            f"batch has {len(records):,} items; at most {BATCH_RECORDS_MAX:,} are allowed: split it"
        )


def _check_list(values: Collection[object]) -> None:
    if type(values) is list:
        return
    if isinstance(values, str | bytes) or not isinstance(values, Collection):
        # Each character of a text would pass for an id.
        raise InvalidInput(f"a list is wanted, not one {type(values).__name__}: write [it]")


def _vector(values: object, dimension: int, metric: Metric) -> Vector:
    vector: Vector
    try:
        if isinstance(values, np.ndarray) and values.dtype == np.float32:
            vector = np.ascontiguousarray(values)
        else:
            # What does not fit becomes infinity, which is refused below in words.
            with np.errstate(over="ignore"):
                vector = np.ascontiguousarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInput("the vector is not an array of numbers") from error
    if vector.shape != (dimension,):
        raise InvalidInput(
            f"the vector has shape {vector.shape}; this store holds {dimension} dimensions"
        )
    # Not dot, which warns of an overflow, and under `python -W error` raises instead of what is raised here.
    squared = float(np.vdot(vector, vector))
    if not math.isfinite(squared):
        # The square may overflow where the values do not.
        if not np.isfinite(vector).all():
            raise InvalidInput("the vector holds NaN, infinity or a number beyond float32")
        raise InvalidInput("the vector is too long for float32 (|x|^2 overflows)")
    if metric is not Metric.COSINE:
        return vector
    if abs(squared - 1.0) <= 2e-7:
        return vector
    if squared > SQUARE_MIN:
        return vector / np.float32(np.sqrt(squared))
    # In float32 the squares of so short a vector lose their digits, or vanish.
    wide = vector.astype(np.float64)
    length = float(np.sqrt(np.dot(wide, wide)))
    if length == 0.0:
        raise InvalidInput("a zero vector has no direction, so cosine cannot rank it")
    return (wide / length).astype(np.float32)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_text(text: str, what: str, bytes_max: int) -> None:
    """Refuse a text that not every store can hold; ``what`` names it in the refusal."""
    if "\0" in text:
        raise InvalidInput(f"{what} holds a NUL character, which PostgreSQL cannot store")
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{what} holds a lone surrogate, which UTF-8 cannot encode") from error
    if size > bytes_max:
        raise InvalidInput(f"{what} is {size:,} bytes; at most {bytes_max:,} are allowed")
