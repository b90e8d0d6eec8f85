"""Documents in: Markdown or PDF to pages of blocks.

Both readers end in the same :class:`Document`, so that what follows does not care where a guide came
from. A PDF carries a guide's front matter in its information dictionary: title, subject (document
type) and keywords (``crops=maize, beans; season=rainy``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farming_guide.errors import DocumentRefused
from farming_guide.markdown import Block, FrontMatter, parse, row_sentences
from farming_guide.page_text import (
    Line,
    blocks_of,
    joined,
    repeating_lines,
    tidy,
    vocabulary,
    without_furniture,
)
from vectorstore.errors import ConfigurationError

if TYPE_CHECKING:
    from pypdf import PageObject, PdfReader

__all__ = ["SUFFIXES", "Document", "Page", "read_document", "read_markdown", "read_pdf"]

SUFFIXES = (".md", ".pdf")
PAGES_MAX = 5_000
_TERMINAL = (".", "!", "?", ":", ";")


@dataclass(frozen=True, slots=True)
class Page:
    """One page, numbered from 1 as a reader would count; a Markdown text is one page."""

    number: int
    blocks: tuple[Block, ...]

    @property
    def text(self) -> str:
        """The page's words, a block a line."""
        return "\n".join(_block_text(block) for block in self.blocks)


@dataclass(frozen=True, slots=True)
class Document:
    """A guide: ``source`` is its file name, which names it in citations and filters."""

    source: str
    path: str
    title: str
    document_type: str
    pages: tuple[Page, ...]
    crops: tuple[str, ...] = ()
    season: str = "all"
    properties: FrontMatter = field(default_factory=dict)

    @property
    def text(self) -> str:
        """All pages' words."""
        return "\n".join(page.text for page in self.pages)


def read_document(path: Path) -> Document:
    """Read a ``.md`` or ``.pdf`` file; raises DocumentRefused for other kinds or unreadable files."""
    suffix = path.suffix.lower()
    if suffix == ".md":
        return read_markdown(path)
    if suffix == ".pdf":
        return read_pdf(path)
    raise DocumentRefused(f"{path.name}: only {' and '.join(SUFFIXES)} files can be read")


def read_markdown(path: Path) -> Document:
    """Read a Markdown guide with optional front matter (title, crops, season, document_type)."""
    try:
        properties, blocks = parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentRefused(f"{path.name} cannot be read as UTF-8 text: {error}") from error
    heading = next((b.text for b in blocks if b.kind == "heading"), path.stem)
    return Document(
        source=path.name,
        path=str(path),
        title=str(properties.get("title") or heading),
        document_type=str(properties.get("document_type", "guide")),
        pages=(Page(1, tuple(blocks)),),
        crops=tuple(_listed(properties.get("crops", []))),
        season=str(properties.get("season", "all")),
        properties=properties,
    )


def read_pdf(path: Path) -> Document:
    """Read a PDF's pages without what typesetting added.

    Raises DocumentRefused for files that are damaged, encrypted, longer than ``PAGES_MAX`` pages or
    without any text (a scan: run text recognition first).
    """
    reader, pages = _open_pdf(path)
    properties = _information(reader)
    title = str(properties.get("title") or path.stem)
    body_size = _body_size(pages)
    known = vocabulary(pages)
    repeated = repeating_lines(pages)
    read: list[Page] = []
    for number, lines in enumerate(pages, 1):
        kept = without_furniture(lines, repeated, title)
        blocks = blocks_of(kept, body_size=body_size, known=known)
        read.append(Page(number, tuple(blocks)))
    if not any(page.blocks for page in read):
        raise DocumentRefused(
            f"{path.name} holds no text, so it is probably a scan: run text recognition on it first"
        )
    return Document(
        source=path.name,
        path=str(path),
        title=title,
        document_type=str(properties.get("document_type", "guide")),
        pages=tuple(_rejoined(read, known)),
        crops=tuple(_listed(properties.get("crops", []))),
        season=str(properties.get("season", "all")),
        properties=properties,
    )


def _open_pdf(path: Path) -> tuple[PdfReader, list[list[Line]]]:
    try:
        from pypdf import PdfReader
        from pypdf.errors import PyPdfError
    except ImportError as error:
        raise ConfigurationError(
            "reading PDF needs pypdf: pip install 'shadow-cutover[documents]'"
        ) from error
    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise DocumentRefused(f"{path.name} is encrypted: save it without a password")
        if len(reader.pages) > PAGES_MAX:
            raise DocumentRefused(
                f"{path.name} has {len(reader.pages):,} pages; at most {PAGES_MAX:,} are read: split it"
            )
        return reader, [_lines(page) for page in reader.pages]
    # pypdf lets plain Python errors escape from damaged files.
    except (
        PyPdfError,
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
    ) as error:
        if isinstance(error, DocumentRefused):
            raise
        raise DocumentRefused(f"{path.name} cannot be read as a PDF: {error}") from error


def _lines(page: PageObject) -> list[Line]:
    """The page's lines in reading order, each with the size of its largest run."""
    lines: list[Line] = []
    text, size = "", 0.0

    def visit(run: str, _cm: Any, matrix: Any, _font: Any, font_size: Any) -> None:
        nonlocal text, size
        scale = abs(float(matrix[3])) or 1.0
        for position, part in enumerate(run.split("\n")):
            if position:
                lines.append(Line(tidy(text), round(size, 1)))
                text, size = "", 0.0
            text += part
            if part.strip():
                size = max(size, float(font_size) * scale)

    page.extract_text(visitor_text=visit)
    lines.append(Line(tidy(text), round(size, 1)))
    return [line for line in lines if line.text]


def _body_size(pages: Sequence[Sequence[Line]]) -> float:
    """The type size that most characters of the document are set in, in points."""
    characters: Counter[float] = Counter()
    for lines in pages:
        for line in lines:
            characters[line.size] += len(line.text)
    return characters.most_common(1)[0][0] if characters else 0.0


def _rejoined(pages: Sequence[Page], known: frozenset[str]) -> list[Page]:
    """Pages with a paragraph that runs over a page's end made whole, on the page where it begins."""
    whole: list[Page] = []
    for page in pages:
        before = next((p for p in reversed(whole) if p.blocks), None)
        if before is not None and page.blocks:
            last, first = before.blocks[-1], page.blocks[0]
            runs_on = last.kind != "heading" and not last.text.endswith(_TERMINAL)
            if runs_on and first.kind == "paragraph" and first.text[:1].islower():
                block = Block(last.kind, joined(last.text, first.text, known), marker=last.marker)
                whole[whole.index(before)] = Page(before.number, (*before.blocks[:-1], block))
                page = Page(page.number, page.blocks[1:])
        whole.append(page)
    return whole


def _information(reader: PdfReader) -> FrontMatter:
    found = reader.metadata
    properties: FrontMatter = {}
    if found is None:
        return properties
    if found.title:
        properties["title"] = tidy(str(found.title))
    if found.subject:
        properties["document_type"] = tidy(str(found.subject))
    for part in str(found.get("/Keywords", "")).split(";"):
        key, equals, value = part.partition("=")
        if equals and key.strip() in {"crops", "season"}:
            properties[key.strip()] = tidy(value)
    return properties


def _listed(value: str | list[str]) -> list[str]:
    items = value if isinstance(value, list) else re.split(r"\s*,\s*", value)
    return [item.strip().lower() for item in items if item.strip()]


def _block_text(block: Block) -> str:
    if block.kind == "table":
        return "\n".join(row_sentences(block))
    return block.text
