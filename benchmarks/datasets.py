"""The data that is measured on: real-text embeddings, and rows made around them.

**Seeds.** The handbook's chunks (``src/farming_guide/handbook``), embedded by the offline model: 384
dimensions, real covariance. Without the model: unit vectors in 40 clusters whose spectrum falls off
like 1/i, from a fixed seed; the environment record says which it was.

**More dimensions.** 1,536-dimensional vectors are the 384-dimensional ones times a fixed matrix with
orthonormal rows: every inner product stays what it was, so recall and neighbourhoods are those of the
real texts, while storage and the work per distance are those of 1,536 dimensions.

**More rows.** A row is ``normalise(a + t (b - a) + e)``: ``a`` a random seed, ``b`` one of its eight
nearest seeds, ``t`` uniform on [0, 1), and ``e`` a difference of two random seeds scaled to length .35,
so that noise has the covariance of the data. The first rows are the seeds themselves.

**Queries** are made like rows, from another random stream: none of them is in the index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vectorstore.errors import ConfigurationError
from vectorstore.types import Query, Record

__all__ = ["QUERIES", "SEED_ROWS", "Dataset", "Seeds", "dataset", "seeds"]

SEED_ROWS = 382
SEED_DIMENSION = 384
NEIGHBOURS = 8
NOISE_LENGTH = 0.35
CLUSTERS = 40
QUERIES = 512
BLOCK_ROWS = 20_000
HANDBOOK = Path(__file__).parent.parent / "src" / "farming_guide" / "handbook"
CACHE = Path(__file__).parent / "results" / "cache"

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Seeds:
    """Unit vectors (n, 384), their texts, and where they come from."""

    vectors: Matrix
    texts: tuple[str, ...]
    origin: str


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """``vectors`` (rows, dimension) and ``queries`` (512, dimension), float32 of unit length."""

    vectors: Matrix
    queries: Matrix
    texts: tuple[str, ...]
    origin: str

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.vectors)

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return int(self.vectors.shape[1])

    @property
    def name(self) -> str:
        """``382 x 1536``, as the tables say it."""
        return f"{self.rows:,} x {self.dimension:,}"

    def record(self, row: int) -> Record:
        """Row ``row`` as a record with text and metadata of the size that the bot's have."""
        text = self.texts[row % len(self.texts)]
        metadata = {"source_document": f"guide-{row % 17}.pdf", "chunk_id": row, "page": row % 40}
        return Record(f"guide-{row:08d}", self.vectors[row], text, metadata)

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        """The records of a range of rows."""
        return (self.record(row) for row in range(start, self.rows if stop is None else stop))

    def query(self, number: int, k: int = 10) -> Query:
        """Query ``number``, counted around."""
        return Query(self.queries[number % len(self.queries)], k)

    def nearest(self, k: int = 10, queries: int = QUERIES) -> list[list[str]]:
        """The exact answer to each of the first ``queries`` queries, in float64, as ids."""
        wanted = self.queries[:queries].astype(np.float64)
        best = np.empty((len(wanted), 0))
        rows = np.empty((len(wanted), 0), dtype=np.int64)
        for start in range(0, self.rows, BLOCK_ROWS):
            block = self.vectors[start : start + BLOCK_ROWS].astype(np.float64)
            scores = np.concatenate([best, wanted @ block.T], axis=1)
            numbers = np.arange(start, start + len(block))
            places = np.concatenate(
                [rows, np.broadcast_to(numbers, (len(wanted), len(block)))], axis=1
            )
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            best = np.take_along_axis(scores, order, axis=1)
            rows = np.take_along_axis(places, order, axis=1)
        return [[f"guide-{row:08d}" for row in found] for found in rows.tolist()]


def dataset(rows: int, dimension: int) -> Dataset:
    """The dataset of this size: the same on every machine that has the same seeds."""
    origin = seeds()
    lift = _lift(dimension)
    vectors = np.empty((rows, dimension), dtype=np.float32)
    first = min(rows, len(origin.vectors))
    vectors[:first] = origin.vectors[:first] @ lift
    random = np.random.default_rng(20_240_611)
    near = _near(origin.vectors)
    for start in range(first, rows, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, rows)
        vectors[start:stop] = _around(origin.vectors, near, stop - start, random) @ lift
    queries = _around(origin.vectors, near, QUERIES, np.random.default_rng(7)) @ lift
    return Dataset(_unit(vectors), _unit(queries), origin.texts, origin.origin)


@cache
def seeds() -> Seeds:
    """The handbook's chunks under the offline model, or the stated stand-in without it."""
    texts = _handbook_texts()
    try:
        from farming_guide.local_embedder import LocalEmbedder

        embedder = LocalEmbedder()
    except ConfigurationError:
        return Seeds(_stand_in(len(texts)), texts, "synthetic seeds (no offline model)")
    digest = hashlib.sha256("\0".join((embedder.model, *texts)).encode()).hexdigest()[:16]
    kept = CACHE / f"seeds-{digest}.npy"
    if not kept.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        np.save(kept, embedder.embed(texts))
    return Seeds(_unit(np.load(kept)), texts, f"handbook chunks under {embedder.model}")


def _handbook_texts() -> tuple[str, ...]:
    """The first 382 chunks, in order of the guides' names."""
    from farming_guide.chunks import chunk_document
    from farming_guide.documents import read_markdown

    texts: list[str] = []
    for path in sorted(HANDBOOK.glob("*.md")):
        texts += [chunk.text for chunk in chunk_document(read_markdown(path))]
    if len(texts) < SEED_ROWS:
        raise ConfigurationError(
            f"the handbook has {len(texts)} chunks; {SEED_ROWS} are needed as seeds"
        )
    return tuple(texts[:SEED_ROWS])


def _stand_in(rows: int) -> Matrix:
    random = np.random.default_rng(42)
    scale = 1.0 / np.sqrt(np.arange(1, SEED_DIMENSION + 1))
    centres = random.normal(size=(CLUSTERS, SEED_DIMENSION)) * scale
    spread = random.normal(size=(rows, SEED_DIMENSION)) * scale * 0.6
    return _unit((centres[random.integers(0, CLUSTERS, rows)] + spread).astype(np.float32))


def _near(vectors: Matrix) -> npt.NDArray[np.int64]:
    """The eight nearest other seeds of each seed."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1)[:, :NEIGHBOURS]


def _around(
    vectors: Matrix, near: npt.NDArray[np.int64], rows: int, random: np.random.Generator
) -> Matrix:
    one = random.integers(0, len(vectors), rows)
    other = near[one, random.integers(0, NEIGHBOURS, rows)]
    share = random.random((rows, 1), dtype=np.float32)
    noise = (
        vectors[random.integers(0, len(vectors), rows)]
        - vectors[random.integers(0, len(vectors), rows)]
    )
    length = np.linalg.norm(noise, axis=1, keepdims=True)
    noise *= NOISE_LENGTH / np.maximum(length, 1e-6)
    return vectors[one] + share * (vectors[other] - vectors[one]) + noise


def _lift(dimension: int) -> Matrix:
    """A fixed (384, dimension) matrix with orthonormal rows; the identity for 384."""
    if dimension == SEED_DIMENSION:
        return np.eye(dimension, dtype=np.float32)
    if dimension < SEED_DIMENSION:
        # The leading directions of a random rotation: distances are kept up to a random error.
        shape = (SEED_DIMENSION, dimension)
        return np.linalg.qr(np.random.default_rng(11).normal(size=shape))[0].astype(np.float32)
    shape = (dimension, SEED_DIMENSION)
    return np.linalg.qr(np.random.default_rng(11).normal(size=shape))[0].T.astype(np.float32)


def _unit(vectors: Matrix) -> Matrix:
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors
