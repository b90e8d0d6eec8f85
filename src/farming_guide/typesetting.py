"""Markdown guides to PDF, the same bytes every time.

Core PDF fonts only, so that nothing needs to be installed; they know Latin-1. Other characters are
replaced by their nearest spelling, and one that has none is refused by name rather than lost.
"""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from pathlib import Path

from farming_guide.documents import Document, read_markdown
from farming_guide.errors import DocumentRefused
from farming_guide.markdown import Block, row_sentences
from vectorstore.errors import ConfigurationError

try:
    from fpdf import FPDF
    from fpdf.enums import XPos, YPos
except ImportError as error:
    raise ConfigurationError(
        "typesetting PDF needs fpdf2: pip install 'shadow-cutover[documents]'"
    ) from error

__all__ = ["latin_1", "render_pdf"]

# A fixed date makes the file reproducible; it is no statement about the guide.
CREATED = datetime(2025, 1, 1, tzinfo=UTC)
BODY_POINTS = 11
HEADING_POINTS = {1: 18, 2: 14, 3: 12.5}
MARGIN_MM = 20
LINE_MM = 5.6

_SPELLINGS = str.maketrans(
    {
        "\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201c": '"', "\u201d": '"', "\u201e": '"',
        "\u2013": "-", "\u2014": " - ", "\u2010": "-", "\u2011": "-", "\u2212": "-", "\u2022": "-",
        "\u2026": "...", "\u2264": "<=", "\u2265": ">=", "\u2248": "about ", "\u2192": "->",
        "\u2032": "'", "\u2033": '"', "\u20ac": "EUR", "\u2153": "1/3", "\u2154": "2/3",
        "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u200b": None,
    }
)  # fmt: skip


def render_pdf(markdown_path: Path, pdf_path: Path) -> None:
    """Typeset one Markdown guide; equal text gives equal bytes.

    Raises DocumentRefused if the guide cannot be read or holds a character without Latin-1 spelling.
    """
    guide = read_markdown(markdown_path)
    sheet = _Sheet(latin_1(guide.title))
    sheet.set_creation_date(CREATED)
    sheet.set_title(latin_1(guide.title))
    sheet.set_subject(latin_1(guide.document_type))
    sheet.set_keywords(latin_1(_keywords(guide)))
    sheet.add_page()
    for page in guide.pages:
        for block in page.blocks:
            sheet.set_block(block)
    pdf_path.parent.mkdir(parents=True, exist_ok=True)
    pdf_path.write_bytes(bytes(sheet.output()))


def latin_1(text: str) -> str:
    """The text in characters that the core fonts have; raises DocumentRefused for one without."""
    spelled = unicodedata.normalize("NFC", text).translate(_SPELLINGS)
    letters: list[str] = []
    for letter in spelled:
        near = letter
        if ord(letter) > 255:
            near = "".join(c for c in unicodedata.normalize("NFKD", letter) if ord(c) < 256)
        if not near:
            name = unicodedata.name(letter, f"U+{ord(letter):04X}")
            raise DocumentRefused(
                f"the character {letter!r} ({name}) has no Latin-1 spelling: write it in words"
            )
        letters.append(near)
    return "".join(letters)


def _keywords(guide: Document) -> str:
    return f"crops={', '.join(guide.crops)}; season={guide.season}"


class _Sheet(FPDF):
    """An A4 document with the title above and the page number below."""

    def __init__(self, title: str) -> None:
        super().__init__(format="A4")
        self._running_title = title
        self.set_margins(MARGIN_MM, MARGIN_MM, MARGIN_MM)
        self.set_auto_page_break(auto=True, margin=MARGIN_MM + 5)

    def header(self) -> None:
        self.set_font("Helvetica", "I", 9)
        self._line(self._running_title, align="R")
        self.ln(4)

    def footer(self) -> None:
        self.set_y(-MARGIN_MM)
        self.set_font("Helvetica", "I", 9)
        self._line(f"Page {self.page_no()}", align="C")

    def set_block(self, block: Block) -> None:
        if block.kind == "heading":
            self._heading(block)
        elif block.kind == "table":
            self._table(block)
        else:
            self.set_font("Helvetica", "", BODY_POINTS)
            lead = f"{block.marker} " if block.kind == "item" else ""
            self._text(lead + latin_1(block.text))
            self.ln(1.0 if block.kind == "item" else 2.6)

    def _heading(self, block: Block) -> None:
        points = HEADING_POINTS.get(block.level, 12.5)
        # A heading alone at a page's foot would be read as belonging to what is before it.
        if self.will_page_break(4 * LINE_MM):
            self.add_page()
        self.ln(3 if block.level > 1 else 0)
        self.set_font("Helvetica", "B", points)
        self._text(latin_1(block.text), line_mm=points * 0.5)
        self.ln(2)

    def _table(self, block: Block) -> None:
        """A row as a line in which every cell names its column.

        A grid is torn apart when text is taken out of a PDF, and does not fit a phone.
        """
        self.set_font("Helvetica", "", BODY_POINTS)
        for text in row_sentences(block):
            self._text("- " + latin_1(text))
            self.ln(1.0)
        self.ln(1.6)

    def _text(self, text: str, *, line_mm: float = LINE_MM) -> None:
        self.multi_cell(0, line_mm, text, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def _line(self, text: str, *, align: str) -> None:
        self.cell(0, LINE_MM, text, align=align, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
