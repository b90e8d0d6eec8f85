"""From a folder of guides to a knowledge base that the FAISS-only bot could have written.

Markdown is typeset to PDF and read back from it, because that is how such a bot meets its documents.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TypeAlias

import numpy as np

from farming_guide import bot_layout
from farming_guide.catalogue import HANDBOOK, guide_paths
from farming_guide.chunks import Chunk, TokenCounter, chunk_document, estimate_tokens
from farming_guide.documents import Document, read_pdf
from farming_guide.embeddings import Embedder
from farming_guide.errors import DocumentRefused
from farming_guide.local_embedder import LocalEmbedder
from farming_guide.typesetting import render_pdf

__all__ = ["HANDBOOK", "Progress", "Summary", "build", "different_queries", "questions"]

EMBED_TEXTS = 32

# Called with (stage, done, total) after each step.
Progress: TypeAlias = Callable[[str, int, int], None]

# The ways in which people put the same question; `{}` is the question itself.
TEMPLATES = (
    "{}",
    "Please help: {}",
    "I farm near Lilongwe. {}",
    "My neighbour asks: {}",
    "{} I have one acre and no tractor.",
    "Good morning. {} Thank you.",
)


@dataclass(frozen=True, slots=True)
class Summary:
    """What was built, and where."""

    documents: int
    pages: int
    chunks: int
    dimension: int
    model: str
    index_path: Path
    metadata_path: Path


def build(
    handbook_dir: Path,
    out_dir: Path,
    embedder: Embedder,
    progress: Progress = lambda _stage, _done, _total: None,
    *,
    kind: bot_layout.Kind = "flat",
) -> Summary:
    """Typeset, read back, chunk, embed and write ``out_dir`` (PDFs in ``out_dir/documents``).

    Every second document is stored in the flat shape of chunk, the others in the nested one, as in a
    knowledge base that grew over two versions of a bot. Raises DocumentRefused if there is no guide.
    """
    documents = _documents(handbook_dir, out_dir / "documents", progress)
    counter = embedder.count_tokens if isinstance(embedder, LocalEmbedder) else estimate_tokens
    chunks, shapes = _chunks(documents, counter)
    vectors = np.zeros((len(chunks), embedder.dimension), dtype=np.float32)
    for start in range(0, len(chunks), EMBED_TEXTS):
        part = [chunk.text for chunk in chunks[start : start + EMBED_TEXTS]]
        vectors[start : start + len(part)] = embedder.embed(part)
        progress("embed", start + len(part), len(chunks))
    index_path, metadata_path = bot_layout.write(out_dir, shapes, vectors, kind=kind)
    return Summary(
        documents=len(documents),
        pages=sum(len(document.pages) for document in documents),
        chunks=len(chunks),
        dimension=embedder.dimension,
        model=embedder.model,
        index_path=index_path,
        metadata_path=metadata_path,
    )


def questions() -> list[str]:
    """Plain questions of the kind that farmers ask: traffic for a demonstration or a load test."""
    text = resources.files("farming_guide").joinpath("questions.txt").read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip()]


def different_queries() -> Iterator[str]:
    """Every question in every way of putting it, no text twice; the plain ones come first."""
    for template, question in itertools.product(TEMPLATES, questions()):
        yield template.format(question)


def _documents(handbook_dir: Path, pdf_dir: Path, progress: Progress) -> list[Document]:
    guides = guide_paths(handbook_dir)
    if not guides:
        raise DocumentRefused(f"{handbook_dir} holds no Markdown guide (*.md)")
    documents: list[Document] = []
    for guide in guides:
        pdf_path = pdf_dir / f"{guide.stem}.pdf"
        render_pdf(guide, pdf_path)
        # A relative path, so that the same handbook gives the same files on every machine.
        documents.append(replace(read_pdf(pdf_path), path=f"documents/{pdf_path.name}"))
        progress("read", len(documents), len(guides))
    return documents


def _chunks(
    documents: list[Document], count_tokens: TokenCounter
) -> tuple[list[Chunk], list[dict[str, object]]]:
    chunks: list[Chunk] = []
    shapes: list[dict[str, object]] = []
    for number, document in enumerate(documents):
        for chunk in chunk_document(document, count_tokens=count_tokens):
            chunks.append(chunk)
            shapes.append(chunk.flat() if number % 2 else chunk.nested())
    return chunks, shapes
