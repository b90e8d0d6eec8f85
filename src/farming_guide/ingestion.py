"""Documents into a store, doing only what changed since the last time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from farming_guide.chunks import (
    CHARACTERS,
    OVERLAP_CHARACTERS_MAX,
    Chunk,
    chunk_document,
    difference,
)
from farming_guide.documents import read_document
from farming_guide.embeddings import Embedder
from farming_guide.passages import source_document
from vectorstore.port import VectorStore
from vectorstore.types import Record

__all__ = ["Ingested", "all_records", "delete_all", "ingest", "remove_document", "stored_ids"]

EMBED_TEXTS = 32
PAGE_RECORDS = 1_000


@dataclass(frozen=True, slots=True)
class Ingested:
    """Chunks that were embedded and written, deleted, and left as they were."""

    changed: int
    removed: int
    unchanged: int


def ingest(
    paths: Sequence[Path],
    store: VectorStore,
    embedder: Embedder,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    characters: int = CHARACTERS,
    overlap_characters_max: int = OVERLAP_CHARACTERS_MAX,
    all_again: bool = False,
) -> Ingested:
    """Bring each document in the store to what its file says now.

    All files are read before anything is written, so that one that is refused changes nothing. New
    chunks are written before old ones are deleted: a question meanwhile finds one or the other.
    ``progress``: called with chunks embedded and chunks to embed. ``all_again`` embeds unchanged
    chunks as well. Raises DocumentRefused, ProviderError or the store's errors.
    """
    documents = [
        chunk_document(
            read_document(path),
            characters=characters,
            overlap_characters_max=overlap_characters_max,
        )
        for path in paths
    ]
    held = stored_ids(store)
    differences = [
        difference([] if all_again else held.get(path.name, []), chunks)
        for path, chunks in zip(paths, documents, strict=True)
    ]
    total = sum(len(found.changed) for found in differences)
    done = removed = 0
    for path, chunks, found in zip(paths, documents, differences, strict=True):
        for start in range(0, len(found.changed), EMBED_TEXTS):
            part = found.changed[start : start + EMBED_TEXTS]
            store.upsert(_records(part, embedder))
            done += len(part)
            progress(done, total)
        gone = sorted(set(held.get(path.name, [])) - {chunk.id for chunk in chunks})
        for ids in _batches(gone):
            store.delete(ids)
        removed += len(gone)
    return Ingested(total, removed, sum(len(found.unchanged) for found in differences))


def stored_ids(store: VectorStore) -> dict[str, list[str]]:
    """The ids that the store holds, by document. Reads every record: costs time on a large store."""
    held: dict[str, list[str]] = {}
    for record in all_records(store):
        held.setdefault(source_document(record.metadata), []).append(record.id)
    return held


def remove_document(store: VectorStore, name: str) -> int:
    """Delete every record of a document, and return how many there were."""
    ids = stored_ids(store).get(name, [])
    for batch in _batches(ids):
        store.delete(batch)
    return len(ids)


def delete_all(store: VectorStore) -> None:
    """Delete every record."""
    for batch in _batches([record.id for record in all_records(store)]):
        store.delete(batch)


def all_records(store: VectorStore) -> Iterator[Record]:
    """Every record in byte order of ids, a page at a time."""
    after = ""
    while records := store.scan(after=after, limit=PAGE_RECORDS):
        yield from records
        after = records[-1].id


def _records(chunks: Sequence[Chunk], embedder: Embedder) -> list[Record]:
    vectors = embedder.embed([chunk.text for chunk in chunks])
    return [
        Record(chunk.id, vector, chunk.text, chunk.metadata())
        for chunk, vector in zip(chunks, vectors, strict=True)
    ]


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), PAGE_RECORDS):
        yield ids[start : start + PAGE_RECORDS]
