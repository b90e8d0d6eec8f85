"""Chunks: whole sentences under their heading, with ids that outlive other people's edits."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from farming_guide.chunks import chunk_document, difference, estimate_tokens, sentences
from farming_guide.documents import Document, Page
from farming_guide.markdown import Block


def document(*blocks: Block, source: str = "maize.pdf") -> Document:
    return Document(
        source, f"documents/{source}", "Growing maize", "crop guide", (Page(1, blocks),)
    )


def paragraph(topic: str, count: int) -> Block:
    text = " ".join(
        f"Sentence {i} on {topic} says what a farmer should do then." for i in range(count)
    )
    return Block("paragraph", text)


GUIDE = document(
    Block("heading", "Planting", level=2),
    paragraph("planting", 12),
    Block("heading", "Weeding", level=2),
    paragraph("weeding", 9),
    Block("item", "Hoe early.", marker="-"),
    Block("item", "Hoe again.", marker="-"),
)


def test_chunks_are_about_300_characters_of_whole_sentences() -> None:
    """No chunk's sentences exceed the length, and all but a section's last come near it."""
    chunks = chunk_document(GUIDE)
    for chunk in chunks:
        lead, _, body = chunk.text.partition("\n")
        assert lead == f"Growing maize: {chunk.section}"
        assert len(body) <= 300
        assert body.endswith(".")
        assert body.startswith(("Sentence", "Hoe"))
    bodies = [chunk.text.partition("\n")[2] for chunk in chunks]
    assert sum(len(body) > 200 for body in bodies) >= len(bodies) - 2


def test_no_sentence_is_lost_and_neighbours_share_one() -> None:
    """Every sentence is in some chunk; within a section each chunk repeats the one before's last."""
    chunks = chunk_document(GUIDE)
    text = "\n".join(chunk.text for chunk in chunks)
    for i in range(12):
        assert f"Sentence {i} on planting" in text
    planting = [chunk for chunk in chunks if chunk.section == "Planting"]
    for before, after in itertools.pairwise(planting):
        last = sentences(before.text.partition("\n")[2])[-1]
        assert after.text.partition("\n")[2].startswith(last)
        assert after.start_token < before.end_token


def test_a_chunk_never_crosses_a_heading() -> None:
    """The overlap stops at a heading as well."""
    for chunk in chunk_document(GUIDE):
        assert not ("on planting" in chunk.text and "on weeding" in chunk.text)


def test_tokens_bound_the_sentences_in_the_document() -> None:
    """Token places rise, and the count is the counter's own over the sentences."""
    chunks = chunk_document(GUIDE, count_tokens=lambda text: len(text.split()))
    for chunk in chunks:
        assert chunk.token_count == len(chunk.text.partition("\n")[2].split())
    assert chunks[0].start_token == 0
    assert [c.end_token for c in chunks] == sorted(c.end_token for c in chunks)


def test_a_change_elsewhere_changes_no_other_id() -> None:
    """A section that is inserted costs its own chunks and no others: that is incremental work."""
    before = chunk_document(GUIDE)
    blocks = (Block("heading", "Seed", level=2), paragraph("seed", 5), *GUIDE.pages[0].blocks)
    after = chunk_document(document(*blocks))
    found = difference([chunk.id for chunk in before], after)
    assert {chunk.section for chunk in found.changed} == {"Seed"}
    assert found.removed == ()
    assert len(found.unchanged) == len(before)


def test_an_edit_and_a_removal_are_told_apart() -> None:
    """Edited text is new and its old id goes; the rest is unchanged."""
    before = chunk_document(GUIDE)
    blocks = list(GUIDE.pages[0].blocks)
    blocks[-1] = Block("item", "Hoe a third time.", marker="-")
    found = difference([chunk.id for chunk in before], chunk_document(document(*blocks)))
    assert len(found.changed) == 1
    assert len(found.removed) == 1
    assert len(found.unchanged) == len(before) - 1


def test_ids_are_unique_even_for_equal_passages_and_differ_by_document() -> None:
    """The same words at two places are two records; the same guide gives the same ids again."""
    twice = document(*([Block("heading", "A"), Block("paragraph", "Same words.")] * 2))
    ids = [chunk.id for chunk in chunk_document(twice)]
    assert len(set(ids)) == 2
    assert ids == [chunk.id for chunk in chunk_document(twice)]
    other = chunk_document(replace(twice, source="beans.pdf"))
    assert not set(ids) & {chunk.id for chunk in other}


def test_the_two_shapes_of_the_faiss_bot() -> None:
    """Nested and flat chunks carry the fields that such a bot reads."""
    chunk = chunk_document(GUIDE)[1]
    assert chunk.nested() == {
        "text": chunk.text,
        "chunk_id": 1,
        "start_token": chunk.start_token,
        "end_token": chunk.end_token,
        "token_count": chunk.end_token - chunk.start_token,
        "metadata": {
            "source_document": "maize.pdf",
            "file_path": "documents/maize.pdf",
            "document_type": "crop guide",
            "page": 1,
        },
    }
    assert chunk.flat() == {
        "text": chunk.text,
        "chunk_id": 1,
        "source_document": "maize.pdf",
        "char_count": len(chunk.text),
        "page": 1,
    }


def test_a_sentence_longer_than_a_chunk_is_split_without_loss() -> None:
    """A list that runs on for a page still becomes passages, cut at its commas."""
    long = ", ".join(f"item {i} of the list" for i in range(80)) + "."
    chunks = chunk_document(document(Block("paragraph", long)))
    assert all(len(chunk.text.partition("\n")[2]) <= 300 for chunk in chunks)
    assert all(f"item {i} of" in "".join(c.text for c in chunks) for i in range(80))
    unbroken = chunk_document(document(Block("paragraph", "x" * 1000)))
    assert sum(chunk.text.count("x") for chunk in unbroken) == 1000 + sum(
        chunk.text.partition("\n")[0].count("x") for chunk in unbroken
    )


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Use 2.5 kg per ha. Then wait.", 2),
        ("Legumes, e.g. Soya, fix nitrogen. They help.", 2),
        ("Is it dry? Yes! Store it.", 3),
        ('He said "Plant now." She did.', 2),
        ("One sentence without an end", 1),
        ("", 0),
    ],
)
def test_sentences(text: str, count: int) -> None:
    """Decimal points and abbreviations end no sentence."""
    assert len(sentences(text)) == count


def test_the_token_estimate_is_near_the_models_count() -> None:
    """The estimate that needs no model stays within a fifth of the tokenizer's own figure."""
    from farming_guide.local_embedder import LocalEmbedder

    text = (
        "Maize should be planted with the first good rains. Apply 23:21:0 as basal fertiliser, one "
        "cup per planting station, and top dress with urea three weeks after emergence. Groundnuts "
        "that dry too slowly are attacked by aflatoxin-producing moulds."
    )
    counted = LocalEmbedder().count_tokens(text)
    assert abs(estimate_tokens(text) - counted) <= 0.2 * counted
