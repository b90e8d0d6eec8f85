"""The small part of Markdown that farming guides use, as blocks.

Front matter (``key: value`` lines between two ``---``; a value in brackets is a list), ATX headings,
paragraphs, bulleted and numbered lists, and pipe tables. Inline marks are removed: a guide is read as
plain text by the embedding model and by a farmer's phone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from farming_guide.errors import DocumentRefused

__all__ = ["Block", "FrontMatter", "parse", "row_sentences"]

FrontMatter = dict[str, str | list[str]]

_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*$")
_ITEM = re.compile(r"\s*(?:[-*+]|(\d{1,3})[.)])\s+(.*)$")
_RULE = re.compile(r"\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*$")
_LINK = re.compile(r"!?\[([^\]]*)\]\(([^)]*)\)")
_AUTOLINK = re.compile(r"<(https?://[^>\s]+)>")
_STRONG = re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1")
_EMPHASIS = re.compile(r"(?<![\w*])([*_])(?=[^\s*_])(.+?)(?<=[^\s*_])\1(?![\w*])")
_CODE = re.compile(r"`([^`]+)`")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """One block: a heading (``level`` 1 to 6), a paragraph, a list item or a table.

    ``marker`` is what stands before a list item (``-`` or ``3.``). ``rows`` is a table, header first.
    """

    kind: Literal["heading", "paragraph", "item", "table"]
    text: str = ""
    level: int = 0
    marker: str = ""
    rows: tuple[tuple[str, ...], ...] = ()


def parse(source: str) -> tuple[FrontMatter, list[Block]]:
    """Front matter and blocks of a Markdown text; raises DocumentRefused if front matter never ends."""
    lines = _COMMENT.sub("", source.removeprefix("\ufeff")).splitlines()
    properties: FrontMatter = {}
    if lines and lines[0].strip() == "---":
        end = next((i for i, line in enumerate(lines[1:], 1) if line.strip() == "---"), None)
        if end is None:
            raise DocumentRefused("the front matter has no closing '---' line: add one")
        properties = _front_matter(lines[1:end])
        lines = lines[end + 1 :]
    return properties, list(_blocks(lines))


def row_sentences(table: Block) -> list[str]:
    """Each row of a table as one sentence: ``Variety SC 403: days to maturity 90-100; yield 3-4.``"""
    header, *rows = table.rows
    sentences: list[str] = []
    for row in rows:
        cells = [f"{name} {cell}" for name, cell in zip(header[1:], row[1:], strict=False) if cell]
        sentence = f"{header[0]} {row[0]}: {'; '.join(cells)}" if cells else row[0]
        sentences.append(sentence if sentence.endswith(".") else sentence + ".")
    return sentences


def _front_matter(lines: list[str]) -> FrontMatter:
    properties: FrontMatter = {}
    key = ""
    for line in lines:
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if stripped.startswith("- ") and key:
            listed = properties.get(key)
            items = listed if isinstance(listed, list) else []
            properties[key] = [*items, _unquoted(stripped[2:])]
            continue
        name, colon, value = stripped.partition(":")
        if not colon:
            raise DocumentRefused(f"front matter line {line!r} is not 'key: value'")
        key, value = name.strip(), value.strip()
        if value.startswith("[") and value.endswith("]"):
            properties[key] = [_unquoted(v) for v in value[1:-1].split(",") if v.strip()]
        else:
            properties[key] = _unquoted(value)
    return properties


def _unquoted(value: str) -> str:
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value


def _blocks(lines: list[str]) -> Iterator[Block]:
    pending: list[str] = []
    item_marker = ""

    def flush() -> Iterator[Block]:
        nonlocal item_marker
        if pending:
            text = _plain(" ".join(part.strip() for part in pending))
            kind: Literal["item", "paragraph"] = "item" if item_marker else "paragraph"
            if text:
                yield Block(kind, text, marker=item_marker)
        pending.clear()
        item_marker = ""

    position = 0
    while position < len(lines):
        line = lines[position]
        heading, item = _HEADING.match(line), _ITEM.match(line)
        table_ahead = "|" in line and position + 1 < len(lines) and _RULE.match(lines[position + 1])
        if not line.strip():
            yield from flush()
        elif heading:
            yield from flush()
            yield Block("heading", _plain(heading[2]), level=len(heading[1]))
        elif table_ahead:
            yield from flush()
            end = position + 2
            while end < len(lines) and "|" in lines[end]:
                end += 1
            body = [lines[position], *lines[position + 2 : end]]
            yield Block("table", rows=tuple(_cells(row) for row in body))
            position = end
            continue
        elif item:
            yield from flush()
            item_marker = f"{item[1]}." if item[1] else "-"
            pending.append(item[2])
        elif line.strip() in {"---", "***", "___"}:
            yield from flush()
        else:
            pending.append(line.removeprefix("> ").removeprefix(">"))
        position += 1
    yield from flush()


def _cells(row: str) -> tuple[str, ...]:
    return tuple(_plain(cell.strip()) for cell in row.strip().strip("|").split("|"))


def _plain(text: str) -> str:
    text = _LINK.sub(lambda m: m[1] if m[1] else m[2], text)
    text = _AUTOLINK.sub(r"\1", text)
    text = _CODE.sub(r"\1", text)
    text = _STRONG.sub(r"\2", text)
    text = _EMPHASIS.sub(r"\2", text)
    return re.sub(r"\s+", " ", text).strip()
