"""Documents into a store: only what changed is embedded, written or deleted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from farming_guide.errors import DocumentRefused
from farming_guide.ingestion import ingest, remove_document, stored_ids
from vectorstore.memory import MemoryStore
from vectorstore.types import Record, Vector


class CountingEmbedder:
    """Vectors by length of text; counts the texts it was given."""

    dimension = 4
    model = "counting"

    def __init__(self) -> None:
        self.texts = 0

    def embed(self, texts: Sequence[str]) -> Vector:
        self.texts += len(texts)
        rows = [[1.0, len(text), text.count("a"), text.count("e")] for text in texts]
        vectors = np.array(rows, dtype=np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def guide(folder: Path, name: str, sections: dict[str, str]) -> Path:
    path = folder / name
    body = "\n\n".join(f"## {title}\n{text}" for title, text in sections.items())
    path.write_text(f"---\ntitle: {name}\n---\n{body}\n", encoding="utf-8")
    return path


SECTIONS = {"Planting": "Plant early.", "Weeding": "Weed twice.", "Harvest": "Harvest dry."}


def test_a_second_run_costs_nothing(tmp_path: Path) -> None:
    """Unchanged documents are neither embedded nor written."""
    store, embedder = MemoryStore(dimension=4), CountingEmbedder()
    paths = [guide(tmp_path, "a.md", SECTIONS), guide(tmp_path, "b.md", SECTIONS)]
    steps: list[tuple[int, int]] = []
    first = ingest(paths, store, embedder, lambda *step: steps.append(step))
    assert (first.changed, first.removed, first.unchanged) == (6, 0, 0)
    assert steps[-1] == (6, 6)
    seq = store.applied_seq()
    again = ingest(paths, store, embedder)
    assert (again.changed, again.removed, again.unchanged) == (0, 0, 6)
    assert (embedder.texts, store.applied_seq()) == (6, seq)
    assert ingest(paths, store, embedder, all_again=True).changed == 6
    assert store.count() == 6


def test_an_edit_touches_its_own_chunk(tmp_path: Path) -> None:
    """One changed section is one embedding and one deletion; the other document is left alone."""
    store, embedder = MemoryStore(dimension=4), CountingEmbedder()
    paths = [guide(tmp_path, "a.md", SECTIONS), guide(tmp_path, "b.md", SECTIONS)]
    ingest(paths, store, embedder)
    guide(tmp_path, "a.md", {**SECTIONS, "Weeding": "Weed three times."})
    done = ingest(paths[:1], store, embedder)
    assert (done.changed, done.removed, done.unchanged) == (1, 1, 2)
    texts = [record.text for record in store.scan()]
    assert sum("Weed three times." in text for text in texts) == 1
    assert sum("Weed twice." in text for text in texts) == 1


def test_records_of_another_origin_are_replaced(tmp_path: Path) -> None:
    """What a FAISS-only bot stored of the same document gives way to the new chunks."""
    store, embedder = MemoryStore(dimension=4), CountingEmbedder()
    old = Record(
        "0", np.ones(4, dtype=np.float32), "old", {"metadata": {"source_document": "a.md"}}
    )
    other = Record("1", np.ones(4, dtype=np.float32), "other", {"source_document": "z.pdf"})
    store.upsert([old, other])
    done = ingest([guide(tmp_path, "a.md", SECTIONS)], store, embedder)
    assert done.removed == 1
    assert [record.text for record in store.get(["0", "1"])] == ["other"]
    assert remove_document(store, "a.md") == 3
    assert list(stored_ids(store)) == ["z.pdf"]


def test_one_bad_document_changes_nothing(tmp_path: Path) -> None:
    """All files are read before the first is written."""
    store, embedder = MemoryStore(dimension=4), CountingEmbedder()
    bad = tmp_path / "bad.pdf"
    bad.write_bytes(b"no pdf")
    with pytest.raises(DocumentRefused, match=r"bad\.pdf"):
        ingest([guide(tmp_path, "a.md", SECTIONS), bad], store, embedder)
    assert (store.count(), embedder.texts) == (0, 0)
