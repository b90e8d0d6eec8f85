"""Texts embedded anew, into a folder that ``faiss.path`` can point to.

For an index whose vectors cannot be taken out, and for a change of the model. The vectors are kept
batch by batch in the folder (:mod:`shadow.reembedded`), so a run that was killed goes on where it was,
and a later run pays only for texts that are new.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shadow.embedders import Embedder, may_pass
from shadow.reembedded import ReembeddedTexts
from vectorstore.durable import sync_directory, sync_file, write_durably
from vectorstore.errors import ConfigurationError
from vectorstore.faiss.engine import faiss, write_index
from vectorstore.faiss.intake.sides import SideRow
from vectorstore.faiss.store import FaissStore
from vectorstore.types import Vector

__all__ = ["PRICES_USD_PER_MILLION", "Estimate", "Pace", "estimate", "reembed", "texts_of_store"]

# OpenAI, "Pricing", embeddings, standard rate per million tokens; prices change, so the estimate says so.
PRICES_USD_PER_MILLION = {
    "text-embedding-3-small": 0.02,
    "text-embedding-3-large": 0.13,
    "text-embedding-ada-002": 0.10,
}
# OpenAI, "What are tokens": about four characters of English; bytes, so that other scripts count more.
BYTES_PER_TOKEN = 4
BATCH_TEXTS = 64
# OpenAI's limit for one request is 300,000; half of it leaves room for a poor estimate.
BATCH_TOKENS_MAX = 150_000
RETRIES_MAX = 5
RETRY_S_MAX = 60.0
BLOCK_ROWS = 4096

INDEX_NAME = "index.faiss"
RECORDS_NAME = "records.jsonl"
MODEL_NAME = "model.json"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would embed. ``known``: texts of which the folder holds the vector already.

    ``cost_usd``: ``None`` if no price is known.
    """

    records: int
    texts: int
    known: int
    tokens: int
    cost_usd: float | None


class Pace:
    """Holds batches back so that no more than so many texts a second and tokens a minute are sent."""

    def __init__(
        self,
        *,
        texts_per_s: float = math.inf,
        tokens_per_min: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.tokens_per_min = tokens_per_min
        self._texts_per_s = texts_per_s
        self._clock = clock
        self._free_at = clock()
        self.sleep = sleep

    def wait(self, texts: int, tokens: int) -> None:
        """Return when a batch of this size may be sent."""
        now = self._clock()
        if self._free_at > now:
            self.sleep(self._free_at - now)
        taken_s = max(texts / self._texts_per_s, tokens * 60.0 / self.tokens_per_min)
        self._free_at = max(now, self._free_at) + taken_s


def texts_of_store(store: FaissStore) -> list[SideRow]:
    """Id, text and metadata of every record of a migration's own FAISS copy, in order of the ids."""
    found: list[SideRow] = []
    while block := store.scan(after=found[-1].id if found else "", limit=BLOCK_ROWS):
        found += [SideRow(one.id, one.text, one.metadata) for one in block]
    return found


def estimate(
    records: Sequence[SideRow], kept: ReembeddedTexts, *, price_usd_per_million: float | None
) -> Estimate:
    """What it would take to embed these records; tokens and cost are estimates."""
    texts = list(dict.fromkeys(record.text for record in records))
    missing = kept.missing(texts)
    tokens = sum(map(_tokens, missing))
    price = price_usd_per_million
    return Estimate(
        len(records),
        len(texts),
        len(texts) - len(missing),
        tokens,
        None if price is None else tokens * price / 1e6,
    )


def reembed(
    records: Sequence[SideRow],
    *,
    target: Path,
    kept: ReembeddedTexts,
    embedder: Embedder,
    source: str,
    pace: Pace | None = None,
    on_done: Callable[[int], None] | None = None,
) -> None:
    """Embed what ``kept`` lacks and write a bare layout: flat index, ``records.jsonl``, ``model.json``.

    ``source``: where the records come from, for ``model.json``. Vectors are scaled to unit length.
    Raises what the embedder raises once it was tried ``RETRIES_MAX`` times more, ConfigurationError for
    vectors of another shape or that are not numbers; what was embedded until then stays.
    """
    if not records:
        raise ConfigurationError(f"{source} holds no record: there is nothing to embed")
    pace = pace or Pace()
    missing = kept.missing(list(dict.fromkeys(record.text for record in records)))
    done = 0
    for batch in _batches(missing, tokens_max=min(BATCH_TOKENS_MAX, pace.tokens_per_min)):
        pace.wait(len(batch), sum(map(_tokens, batch)))
        kept.add(batch, _embedded(embedder, batch, pace.sleep))
        done += len(batch)
        if on_done is not None:
            on_done(done)
    _write(records, target, kept, embedder, source)


def _tokens(text: str) -> int:
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)


def _batches(texts: Sequence[str], *, tokens_max: float) -> Iterator[list[str]]:
    batch: list[str] = []
    tokens = 0
    for text in texts:
        more = _tokens(text)
        if batch and (len(batch) >= BATCH_TEXTS or tokens + more > tokens_max):
            yield batch
            batch, tokens = [], 0
        batch.append(text)
        tokens += more
    if batch:
        yield batch


def _embedded(embedder: Embedder, texts: Sequence[str], sleep: Callable[[float], None]) -> Vector:
    for attempt in itertools.count():
        try:
            found = np.asarray(embedder.embed(texts), dtype=np.float32)
            break
        except Exception as error:
            if attempt >= RETRIES_MAX or not may_pass(error):
                raise
        sleep(min(2.0**attempt, RETRY_S_MAX))
    if found.shape != (len(texts), embedder.dimension):
        raise ConfigurationError(
            f"the model {embedder.model!r} answered an array of shape {found.shape} for {len(texts)} "
            f"texts, not ({len(texts)}, {embedder.dimension}): check the embedder's dimension"
        )
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise ConfigurationError(
            f"the model {embedder.model!r} answered zero, NaN or infinite vectors"
        )
    return np.asarray(found / lengths, dtype=np.float32)


def _write(
    records: Sequence[SideRow],
    target: Path,
    kept: ReembeddedTexts,
    embedder: Embedder,
    source: str,
) -> None:
    index = faiss.IndexFlatIP(embedder.dimension)
    for start in range(0, len(records), BLOCK_ROWS):
        block = [record.text for record in records[start : start + BLOCK_ROWS]]
        vectors = kept.vectors(block)
        index.add(np.stack([vectors[text] for text in block]))
    parts = {name: target / f"{name}.part" for name in (INDEX_NAME, RECORDS_NAME)}
    for part in parts.values():
        part.unlink(missing_ok=True)
        part.touch(mode=0o600)
    write_index(index, parts[INDEX_NAME])
    with parts[RECORDS_NAME].open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(_line(record), ensure_ascii=False) + "\n")
    for part in parts.values():
        with part.open("rb") as written:
            sync_file(written.fileno())
    # The index goes first and comes last: no intake can meet an index beside another run's records.
    (target / INDEX_NAME).unlink(missing_ok=True)
    about = {
        "model": embedder.model,
        "dimension": embedder.dimension,
        "records": len(records),
        "source": source,
    }
    write_durably(target / MODEL_NAME, json.dumps(about, indent=2).encode())
    sync_directory(target)
    for name in (RECORDS_NAME, INDEX_NAME):
        parts[name].replace(target / name)
        sync_directory(target)


def _line(record: SideRow) -> dict[str, Any]:
    return {"id": record.id, "text": record.text, "metadata": record.metadata or {}}
