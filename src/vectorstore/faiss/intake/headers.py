"""The first bytes of a FAISS file, checked before FAISS reads it: it trusts sizes that it finds.

Source of the format: faiss/impl/index_write.cpp. A four-letter code, then little-endian: dimension
(int32), row count, two unused numbers (int64 each), trained flag (1 byte), metric (int32).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from vectorstore.errors import IntakeRefused
from vectorstore.faiss.intake.outside_lists import names_outside_lists, outside_lists_refused

__all__ = ["DIMENSION_MAX", "IndexHeader", "checked_header", "is_index_file", "rows_of"]

DIMENSION_MAX = 65_536

_HEADER = struct.Struct("<4siqqqBi")
_FLAT_CODES = {b"IxFI", b"IxF2", b"IxFl"}
_MAP_CODES = {b"IxMp", b"IxM2"}
_WHOLE_CODES = _FLAT_CODES | _MAP_CODES | {b"IwFl", b"IHNf"}
_LOSSY = {
    b"IxPQ": "product quantisation",
    b"IxPq": "product quantisation",
    b"IxPo": "product quantisation",
    b"IwPQ": "IVF with product quantisation",
    b"IwQR": "IVF with product quantisation",
    b"IwPf": "IVF with product quantisation",
    b"IxSQ": "scalar quantisation",
    b"IwSQ": "IVF with scalar quantisation",
    b"IwSq": "IVF with scalar quantisation",
    b"IHNp": "HNSW over product quantisation",
    b"IHNs": "HNSW over scalar quantisation",
    b"IHN2": "HNSW over two-level quantisation",
    b"IHc2": "HNSW over two-level quantisation",
    b"IxRQ": "residual quantisation",
    b"IxHE": "locality-sensitive hashing",
    b"IxHe": "locality-sensitive hashing",
    b"IxPT": "a transformation before the index",
    b"IxRF": "refinement of a lossy index",
}


@dataclass(frozen=True, slots=True)
class IndexHeader:
    """What the head of an index file says: four-letter code, dimension, row count."""

    code: str
    dimension: int
    rows: int


def is_index_file(path: Path) -> bool:
    """Whether a file begins as a FAISS index does, of any kind."""
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
    if len(head) < 4 or head[:2] not in (b"Ix", b"Iw", b"IH", b"IN"):
        return False
    return head[:4] in _WHOLE_CODES or head[:4] in _LOSSY or len(head) == _HEADER.size


def checked_header(path: Path) -> IndexHeader:
    """Check kind, dimension and row count against the file's size; IntakeRefused otherwise."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(2 * _HEADER.size)
    header, whole = _checked(path, head, size, offset=0)
    if header.code.encode() in _FLAT_CODES and whole != size:
        _refuse_size(path, size, whole)
    return header


def rows_of(path: Path) -> int:
    """How many rows the head of an index of any kind claims; IntakeRefused if it is damaged."""
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
    if len(head) == _HEADER.size:
        rows: int = _HEADER.unpack(head)[2]
        if rows >= 0:
            return rows
    raise IntakeRefused(f"{path}: its head is damaged; fetch it again from its source")


def _checked(path: Path, head: bytes, size: int, offset: int) -> tuple[IndexHeader, int]:
    if len(head) < offset + _HEADER.size:
        raise IntakeRefused(
            f"{path} is {size:,} bytes, too short to be a FAISS index: it was cut off while it was "
            "written or copied; fetch it again from its source"
        )
    code, dimension, rows, _, _, _, metric = _HEADER.unpack_from(head, offset)
    if code in _LOSSY:
        raise IntakeRefused(
            f"{path} uses {_LOSSY[code]}, which does not keep whole vectors, so they cannot be "
            "taken out without loss; embed the texts again (shadow reembed TARGET --source "
            "FOLDER --embedder NAME), or rebuild a flat index from the original vectors"
        )
    if code not in _WHOLE_CODES:
        raise IntakeRefused(
            f"{path} begins with {code!r}, which is not a FAISS index of a kind known here: flat, "
            "IVFFlat, HNSWFlat, or one of these in an IDMap; convert it to a flat index, or embed the "
            "texts again (shadow reembed TARGET --source FOLDER --embedder NAME)"
        )
    if not 1 <= dimension <= DIMENSION_MAX or rows < 0:
        raise IntakeRefused(
            f"{path} claims {rows:,} rows of {dimension:,} dimensions: its head is damaged; fetch "
            "it again from its source"
        )
    if metric not in (0, 1):
        raise IntakeRefused(
            f"{path} uses FAISS metric {metric}; only inner product (0) and L2 (1) are known here"
        )
    whole = offset + _HEADER.size + 8 + rows * dimension * 4
    if size < whole - 8:
        if code == b"IwFl" or code in _MAP_CODES:
            _refuse_outside_lists(path, dimension)
        _refuse_size(path, size, whole)
    if code in _MAP_CODES and offset == 0:
        inner, _ = _checked(path, head, size, offset=_HEADER.size)
        if (inner.rows, inner.dimension) != (rows, dimension):
            raise IntakeRefused(f"{path}: the IDMap and the index inside it differ in size")
    return IndexHeader(code.decode(), dimension, rows), whole


def _refuse_outside_lists(path: Path, dimension: int) -> None:
    if names_outside_lists(path, dimension):
        raise outside_lists_refused(path)


def _refuse_size(path: Path, size: int, whole: int) -> None:
    raise IntakeRefused(
        f"{path} is {size:,} bytes where its head promises {whole:,}: it was cut off or damaged "
        "while it was written or copied; fetch it again from its source"
    )
