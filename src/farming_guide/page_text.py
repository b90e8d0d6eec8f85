"""From the lines of a printed page to the words that its author wrote.

What typesetting added is taken away: ligatures, hyphens at line ends, headers, footers and page
numbers. Pure text in, pure text out.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from farming_guide.markdown import Block

__all__ = [
    "Line",
    "blocks_of",
    "joined",
    "repeating_lines",
    "tidy",
    "vocabulary",
    "without_furniture",
]

# A heading is set at least this much larger than the text that most of the document is set in.
HEADING_SIZE_RATIO = 1.1
# A line that ends this far before the widest one ends its paragraph.
SHORT_LINE_RATIO = 0.72
# A line near a page's edge is furniture if it is there on at least this share of the pages.
REPEATED_SHARE = 0.6
EDGE_LINES = 2

_LIGATURES = str.maketrans(
    {
        "ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st",
        "\u00a0": " ", "\u2007": " ", "\u202f": " ", "\u2011": "-",
        "\u200b": None, "\u200c": None, "\u200d": None, "\ufeff": None, "\0": None,
    }
)  # fmt: skip
_PAGE_NUMBER = re.compile(
    r"(?:page\s*)?[-\u2013]?\s*\d{1,4}\s*(?:(?:of|/)\s*\d{1,4})?\s*[-\u2013]?", re.I
)
_ITEM = re.compile(r"([-\u2022\u00b7\u25aa]|\d{1,3}[.)])\s+(?=\S)")
_BROKEN_WORD = re.compile(r"([^\W\d_]+)[-\u00ad\u2010]$")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")


@dataclass(frozen=True, slots=True)
class Line:
    """One printed line and the size of its type in points."""

    text: str
    size: float


def tidy(text: str) -> str:
    """Ligatures as letters, one kind of space, composed accents."""
    text = unicodedata.normalize("NFC", text.translate(_LIGATURES))
    return re.sub(r"[ \t\r\f\v]+", " ", text).strip()


def repeating_lines(pages: Sequence[Sequence[Line]]) -> frozenset[tuple[int, str]]:
    """Headers and footers: the (place, text with digits as ``#``) of lines that stand on most pages.

    Places count 0, 1 from the top and -1, -2 from the bottom.
    """
    seen: Counter[tuple[int, str]] = Counter()
    for lines in pages:
        places = [p for n in range(min(EDGE_LINES, len(lines))) for p in (n, -1 - n)]
        seen.update((place, _shape(lines[place].text)) for place in places)
    least = max(2, round(REPEATED_SHARE * len(pages)))
    return frozenset(line for line, count in seen.items() if count >= least)


def without_furniture(
    lines: Sequence[Line], repeated: frozenset[tuple[int, str]], title: str = ""
) -> list[Line]:
    """The page's lines without headers, footers, page numbers and the running title."""

    def is_furniture(place: int, text: str) -> bool:
        is_number = _PAGE_NUMBER.fullmatch(text) is not None
        return is_number or (place, _shape(text)) in repeated or (place >= 0 and text == title)

    first, last = 0, len(lines)
    while first < min(EDGE_LINES, last) and is_furniture(first, lines[first].text):
        first += 1
    while last > max(first, len(lines) - EDGE_LINES) and is_furniture(
        last - 1 - len(lines), lines[last - 1].text
    ):
        last -= 1
    return list(lines[first:last])


def vocabulary(pages: Sequence[Sequence[Line]]) -> frozenset[str]:
    """Every word that stands unbroken somewhere in the document, in lower case."""
    words: set[str] = set()
    for lines in pages:
        for line in lines:
            text = _BROKEN_WORD.sub("", line.text)
            for match in _WORD.finditer(text.lower()):
                words.add(match[0])
                words.update(match[0].split("-"))
    return frozenset(words)


def joined(first: str, second: str, known: frozenset[str]) -> str:
    """Two lines of one paragraph as one text, with a word broken between them made whole.

    ``drought-`` + ``tolerant`` stays hyphenated if the document writes it so elsewhere, or knows both
    halves but not the whole; otherwise the hyphen was the typesetter's.
    """
    broken = _BROKEN_WORD.search(first)
    head = _WORD.match(second)
    if broken is None or head is None or not second[:1].islower():
        return f"{first} {second}"
    left, right = broken[1].lower(), head[0].lower()
    compound_known = f"{left}-{right}" in known
    halves_known = left in known and right in known and left + right not in known
    if first.endswith("-") and (compound_known or halves_known):
        return first + second
    return first[:-1] + second


def blocks_of(lines: Sequence[Line], *, body_size: float, known: frozenset[str]) -> list[Block]:
    """Headings, paragraphs and list items of one page, from its lines."""
    widest = max((len(line.text) for line in lines), default=0)
    blocks: list[Block] = []
    previous: Line | None = None
    for line in lines:
        is_heading = line.size >= HEADING_SIZE_RATIO * body_size
        item = _ITEM.match(line.text)
        last = blocks[-1] if blocks else None
        if is_heading:
            if (
                last is not None
                and last.kind == "heading"
                and previous
                and previous.size == line.size
            ):
                blocks[-1] = Block("heading", joined(last.text, line.text, known), level=last.level)
            else:
                level = 1 if line.size >= 1.5 * body_size else 2
                blocks.append(Block("heading", line.text, level=level))
        elif item:
            blocks.append(Block("item", line.text[item.end() :], marker=item[1]))
        elif last is None or last.kind == "heading" or _ends_paragraph(previous, widest):
            blocks.append(Block("paragraph", line.text))
        else:
            blocks[-1] = Block(last.kind, joined(last.text, line.text, known), marker=last.marker)
        previous = line
    return blocks


def _ends_paragraph(line: Line | None, widest: int) -> bool:
    if line is None:
        return True
    return line.text[-1:] in ".!?:;" and len(line.text) < SHORT_LINE_RATIO * widest


def _shape(text: str) -> str:
    return re.sub(r"\d+", "#", text).casefold()
