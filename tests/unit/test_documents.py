"""Documents: Markdown and PDF in, the author's words out."""

from __future__ import annotations

from pathlib import Path

import pytest
from fpdf import FPDF

from farming_guide.documents import read_document, read_markdown, read_pdf
from farming_guide.errors import DocumentRefused
from farming_guide.markdown import parse
from farming_guide.page_text import (
    Line,
    blocks_of,
    joined,
    repeating_lines,
    tidy,
    without_furniture,
)
from farming_guide.typesetting import latin_1, render_pdf

GUIDE = """---
title: Growing maize
crops: [Maize, beans]
season: rainy
document_type: crop guide
---
# Growing maize

Maize is the **staple** of Malawi; plant it with the *first* good rains, see [the calendar](x.md).

## Varieties

| Variety | Days | Yield (t/ha) |
|---|---|---|
| SC 403 | 90-100 | 3–4 |
| DKC 8033 | 120 | 6 |

## Planting

1. Make ridges 75 cm apart.
2. Put one seed in each station and cover it
   with 5 cm of soil.
- Keep seed below 25 °C – it’s alive.
"""


WORDS = [a + b for a in "bcdfghjklm" for b in ("aru", "omi", "ika", "une", "eto", "alu")]


def guide(tmp_path: Path, text: str = GUIDE, name: str = "maize.md") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def typeset(tmp_path: Path, text: str = GUIDE) -> Path:
    pdf_path = tmp_path / "maize.pdf"
    render_pdf(guide(tmp_path, text), pdf_path)
    return pdf_path


def test_front_matter_and_blocks_are_read(tmp_path: Path) -> None:
    """Title, crops, season and type come from the front matter; inline marks disappear."""
    document = read_markdown(guide(tmp_path))
    assert (document.title, document.crops, document.season) == (
        "Growing maize",
        ("maize", "beans"),
        "rainy",
    )
    assert document.document_type == "crop guide"
    kinds = [block.kind for block in document.pages[0].blocks]
    assert kinds == [
        "heading", "paragraph", "heading", "table", "heading", "item", "item", "item",
    ]  # fmt: skip
    assert (
        "staple of Malawi; plant it with the first good rains, see the calendar." in document.text
    )
    assert "Variety DKC 8033: Days 120; Yield (t/ha) 6." in document.text


def test_front_matter_lists_may_be_written_a_line_each() -> None:
    """Both YAML ways of writing a list are understood."""
    properties, _ = parse("---\ncrops:\n  - maize\n  - \"beans\"\ntitle: 'A: b'\n---\nText\n")
    assert properties == {"crops": ["maize", "beans"], "title": "A: b"}


def test_front_matter_without_end_is_refused() -> None:
    """A guide whose front matter never closes is refused, not swallowed."""
    with pytest.raises(DocumentRefused, match="closing"):
        parse("---\ntitle: x\n\nText")


def test_a_guide_survives_the_pdf(tmp_path: Path) -> None:
    """What is typeset comes back: properties, headings, items and every sentence."""
    document = read_document(typeset(tmp_path))
    assert document.title == "Growing maize"
    assert document.crops == ("maize", "beans")
    assert (document.season, document.document_type) == ("rainy", "crop guide")
    headings = [b.text for page in document.pages for b in page.blocks if b.kind == "heading"]
    assert headings == ["Varieties", "Planting"]  # the title itself stands above every page
    items = [b for page in document.pages for b in page.blocks if b.kind == "item"]
    assert [item.marker for item in items] == ["-", "-", "1.", "2.", "-"]
    assert items[3].text == "Put one seed in each station and cover it with 5 cm of soil."
    assert items[4].text == "Keep seed below 25 °C - it's alive."


def test_the_same_guide_gives_the_same_bytes(tmp_path: Path) -> None:
    """A PDF can be rebuilt and compared by its checksum."""
    assert typeset(tmp_path).read_bytes() == typeset(tmp_path).read_bytes()


def test_headers_footers_and_page_numbers_are_dropped(tmp_path: Path) -> None:
    """What stands on every page is no part of the guide, and a paragraph over a page's end is one."""
    long = GUIDE + "\n\n".join(
        f"Advice {word} is that a field of {word} should be weeded twice, once within two weeks after "
        f"the crop has emerged and again before it flowers, because weeds take water from {word}."
        for word in WORDS
    )
    document = read_pdf(typeset(tmp_path, long))
    assert len(document.pages) >= 3
    assert [page.number for page in document.pages] == list(range(1, len(document.pages) + 1))
    assert "Page 2" not in document.text
    assert "Growing maize" not in document.text
    for word in WORDS:
        assert f"before it flowers, because weeds take water from {word}." in document.text
    assert document.text.count("is that a field of") == len(WORDS)


def test_words_broken_at_line_ends_are_made_whole() -> None:
    """The typesetter's hyphens go, the author's stay."""
    known = frozenset({"drought-tolerant", "drought", "tolerant", "post", "harvest"})
    assert joined("the fertil-", "iser is", known) == "the fertiliser is"
    assert joined("the fertil\u00ad", "iser is", known) == "the fertiliser is"
    assert joined("a drought-", "tolerant seed", known) == "a drought-tolerant seed"
    assert joined("a post-", "harvest loss", known) == "a post-harvest loss"
    assert joined("from 10-", "20 kg", known) == "from 10- 20 kg"
    assert joined("plain", "text", known) == "plain text"


def test_ligatures_become_letters() -> None:
    """Text that was set with ligatures can be searched."""
    assert tidy("\ufb01eld o\ufb03ce \ufb02ow\u00a0er") == "field office flow er"


def test_furniture_is_found_by_repetition_with_changing_numbers() -> None:
    """A footer with the page's number repeats although its digits differ."""
    pages = [
        [Line("Ministry guide", 9), Line(f"Body {n} text", 11), Line(f"{n} / 3", 9)]
        for n in (1, 2, 3)
    ]
    repeated = repeating_lines(
        [[p[0], *[Line(f"x{i}{p[1].text}", 11) for i in "abcd"], p[2]] for p in pages]
    )
    kept = without_furniture(pages[0], repeated)
    assert [line.text for line in kept] == ["Body 1 text"]


def test_paragraphs_end_at_short_lines() -> None:
    """A sentence's end well before the margin ends the paragraph."""
    lines = [Line("This line is as wide as the page allows it", 11), Line("and ends.", 11)]
    blocks = blocks_of([*lines, *lines], body_size=11, known=frozenset())
    assert len(blocks) == 2


def test_a_pdf_of_another_maker_is_read(tmp_path: Path) -> None:
    """No information dictionary, headings by size, hyphens at line ends: the words come out."""
    pdf = FPDF()
    pdf.add_page()
    pdf.set_font("Times", "B", 16)
    pdf.cell(0, 10, "Storing grain", new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("Times", "", 11)
    for line in ("Dry the grain well before it is stored, because mois-", "ture brings mould."):
        pdf.cell(0, 6, line, new_x="LMARGIN", new_y="NEXT")
    path = tmp_path / "store.pdf"
    pdf.output(str(path))
    document = read_pdf(path)
    assert (document.title, document.document_type) == ("store", "guide")
    assert document.text == (
        "Storing grain\nDry the grain well before it is stored, because moisture brings mould."
    )


@pytest.mark.parametrize("damage", ["truncated", "not a pdf", "empty", "missing"])
def test_unreadable_files_are_refused_by_name(tmp_path: Path, damage: str) -> None:
    """A damaged document is one clear error that names it."""
    path = typeset(tmp_path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "not a pdf":
        path.write_bytes(b"GIF89a" * 50)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(DocumentRefused, match=r"maize\.pdf"):
        read_pdf(path)


def test_a_scan_is_refused_with_advice(tmp_path: Path) -> None:
    """Pages without text are not indexed as nothing."""
    pdf = FPDF()
    pdf.add_page()
    pdf.rect(10, 10, 50, 50)
    path = tmp_path / "scan.pdf"
    pdf.output(str(path))
    with pytest.raises(DocumentRefused, match="text recognition"):
        read_pdf(path)


def test_other_kinds_of_files_are_refused(tmp_path: Path) -> None:
    """Only what can be read faithfully is taken."""
    with pytest.raises(DocumentRefused, match=r"\.md and \.pdf"):
        read_document(tmp_path / "guide.docx")


def test_characters_outside_latin_1_are_spelled_or_refused() -> None:
    """Nothing is lost in silence: Chichewa's w keeps its letter, a pictograph is refused by name."""
    assert latin_1("“ŵ” – ≥ 5 °C ½") == '"w" - >= 5 °C ½'
    with pytest.raises(DocumentRefused, match="EAR OF MAIZE"):
        latin_1("\N{EAR OF MAIZE}")
