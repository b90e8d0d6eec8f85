"""The knowledge base in the FAISS-only bot's own layout."""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path

import faiss
import numpy as np
import pytest

from farming_guide import bot_layout
from farming_guide.knowledge_base import build, different_queries, questions
from farming_guide.local_embedder import LocalEmbedder
from vectorstore.errors import ConfigurationError, InvalidInput

DIMENSION = 24


def vectors(count: int) -> np.ndarray:
    return (np.random.default_rng(7).normal(size=(count, DIMENSION)) * 3).astype(np.float32)


def chunks(count: int) -> list[dict[str, object]]:
    return [
        {"text": f"t{i}", "chunk_id": i % 5, "source_document": "a.pdf", "char_count": 2}
        for i in range(count)
    ]


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_each_kind_is_what_that_bot_wrote(tmp_path: Path, kind: bot_layout.Kind) -> None:
    """Index class, metric and vectors as documented; the side file has its four keys."""
    raw = vectors(100)
    index_path, metadata_path = bot_layout.write(tmp_path, chunks(100), raw, kind=kind)
    assert (index_path.name, metadata_path.name) == (
        f"faiss_index_{kind}.index",
        f"faiss_index_{kind}.metadata",
    )
    read = faiss.read_index(str(index_path))
    index = faiss.downcast_index(read)  # a view: `read` must outlive it
    assert index.ntotal == 100
    if kind == "flat":
        assert isinstance(index, faiss.IndexFlatIP)
        expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        np.testing.assert_allclose(index.reconstruct_n(0, 100), expected, atol=1e-6)
    else:
        assert index.metric_type == faiss.METRIC_L2
        if kind == "ivf":
            assert index.quantizer.metric_type == faiss.METRIC_INNER_PRODUCT
            index.make_direct_map()
        np.testing.assert_array_equal(index.reconstruct_n(0, 100), raw)
    side = pickle.loads(metadata_path.read_bytes())
    assert set(side) == {"metadata", "id_to_chunk", "dimension", "index_type"}
    assert side["metadata"] == chunks(100)
    assert side["id_to_chunk"][42] == chunks(100)[42]
    assert (side["dimension"], side["index_type"]) == (DIMENSION, kind)


def test_the_side_file_is_protocol_4_and_plain(tmp_path: Path) -> None:
    """No class is named in it, so an unpickler that allows only plain values can read it."""
    _, metadata_path = bot_layout.write(tmp_path, chunks(3), vectors(3))
    names = [name.name for name, _, _ in pickletools.genops(metadata_path.read_bytes())]
    assert metadata_path.read_bytes()[:2] == b"\x80\x04"
    assert not {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"} & set(names)


def test_a_mismatch_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """One vector a chunk, or no files."""
    with pytest.raises(InvalidInput, match="one vector a chunk"):
        bot_layout.write(tmp_path, chunks(3), vectors(4))
    with pytest.raises(ConfigurationError, match="flat, ivf, hnsw"):
        bot_layout.write(tmp_path, chunks(3), vectors(3), kind="pq")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_build_goes_from_guides_to_the_layout(tmp_path: Path) -> None:
    """Markdown to PDF to chunks to vectors: both shapes are there, and the right passage is nearest."""
    handbook = tmp_path / "handbook"
    handbook.mkdir()
    (handbook / "a.md").write_text(
        "---\ntitle: Maize\n---\n## Rain\nPlant maize with the first rains.\n"
    )
    (handbook / "b.md").write_text(
        "---\ntitle: Hens\n---\n## Health\nVaccinate chickens each year.\n"
    )
    steps: list[tuple[str, int, int]] = []
    embedder = LocalEmbedder()
    summary = build(handbook, tmp_path / "kb", embedder, lambda *step: steps.append(step))
    assert (summary.documents, summary.pages, summary.chunks, summary.dimension) == (2, 2, 2, 384)
    assert steps == [("read", 1, 2), ("read", 2, 2), ("embed", 2, 2)]
    assert (tmp_path / "kb" / "documents" / "a.pdf").is_file()
    side = pickle.loads(summary.metadata_path.read_bytes())
    assert side["metadata"][0]["metadata"]["source_document"] == "a.pdf"
    assert side["metadata"][1]["source_document"] == "b.pdf"
    index = faiss.read_index(str(summary.index_path))
    _, found = index.search(embedder.embed(["How do I keep poultry healthy?"]), 1)
    assert found[0][0] == 1
    before = summary.metadata_path.read_bytes(), summary.index_path.read_bytes()
    again = build(handbook, tmp_path / "kb", embedder)
    assert before == (again.metadata_path.read_bytes(), again.index_path.read_bytes())


def test_there_is_enough_different_traffic() -> None:
    """At least 60 questions, at least 300 different texts, the plain questions first."""
    plain = questions()
    texts = list(different_queries())
    assert len(set(plain)) == len(plain) >= 60
    assert len(set(texts)) == len(texts) >= 300
    assert texts[: len(plain)] == plain
