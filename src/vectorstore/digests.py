"""Order-free digests of records, the same on either side of the wire.

A row's digest is a signed 64-bit number over its id, seq, vector bytes, text and canonical metadata; a
range's is the count, sum and exclusive-or of its rows'. Two stores with equal digests hold the same
rows unless differences cancel out, which for accidents has a chance of about 2^-64 a range.

What each method can show: ``crc32c`` (two checksums of 32 bits: head and vector) finds accidents and
is the fastest; ``md5`` is for servers before PostgreSQL 18; ``sha256`` makes it hard to craft a
single row that hides. None of them proves the absence of forgery: the sums are cut to 64 bits.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import google_crc32c

from vectorstore.canonical import canonical_json
from vectorstore.types import Record

__all__ = ["METHODS", "Digest", "DigestMethod", "digest_of", "row_digest"]

DigestMethod = Literal["crc32c", "md5", "sha256"]
METHODS: tuple[DigestMethod, ...] = get_args(DigestMethod)

_SEQ_AND_LENGTHS = struct.Struct(">qii")
_SIGNED = struct.Struct(">q")
_VECTOR_HEAD = struct.Struct(">HH")
_SIGN = 1 << 63


@dataclass(frozen=True, slots=True)
class Digest:
    """Count, sum and exclusive-or of row digests. ``+`` joins the digests of disjoint ranges."""

    rows: int = 0
    total: int = 0
    mixed: int = 0

    def __add__(self, other: Digest) -> Digest:
        return Digest(self.rows + other.rows, self.total + other.total, self.mixed ^ other.mixed)


def row_digest(record: Record, method: DigestMethod) -> int:
    """The record's digest, from -2^63 to 2^63 - 1.

    The bytes are: seq (int64), lengths of id and text in bytes (int32 each), id, text, canonical
    metadata; then the vector as pgvector sends it. All integers and floats are big-endian.
    """
    record_id, text = record.id.encode(), record.text.encode()
    head = b"".join(
        (
            _SEQ_AND_LENGTHS.pack(record.seq, len(record_id), len(text)),
            record_id,
            text,
            canonical_json(record.metadata).encode(),
        )
    )
    vector = (
        _VECTOR_HEAD.pack(record.embedding.shape[0], 0) + record.embedding.astype(">f4").tobytes()
    )
    if method == "crc32c":
        joined: int = google_crc32c.value(head) << 32 | google_crc32c.value(vector)
        return (joined ^ _SIGN) - _SIGN
    hashed = hashlib.new(method, head + vector, usedforsecurity=False).digest()
    number: int = _SIGNED.unpack(hashed[:8])[0]
    return number


def digest_of(digests: Iterable[int]) -> Digest:
    """The digest of a range from its rows' digests."""
    rows = total = mixed = 0
    for digest in digests:
        rows += 1
        total += digest
        mixed ^= digest
    return Digest(rows, total, mixed)
