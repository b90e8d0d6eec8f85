"""Documents to chunks: a few whole sentences, with their heading, that one vector can stand for.

A chunk never crosses a heading. Its text begins with a line that names the guide and the section,
because "plant 25 cm apart" alone does not say what to plant; the sentences follow. Neighbouring chunks
share a sentence, so that a thought on the seam is whole in one of them.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from farming_guide.documents import Document
from farming_guide.markdown import row_sentences

__all__ = [
    "CHARACTERS",
    "OVERLAP_CHARACTERS_MAX",
    "Chunk",
    "Difference",
    "TokenCounter",
    "chunk_document",
    "difference",
    "estimate_tokens",
    "sentences",
]

CHARACTERS = 300
OVERLAP_CHARACTERS_MAX = 120

# A list of sources answers no question, but shares words with many.
SECTIONS_SKIPPED = frozenset({"bibliography", "further reading", "references", "sources"})

TokenCounter: TypeAlias = Callable[[str], int]

_ABBREVIATIONS = frozenset(
    (
        "e.g.",
        "i.e.",
        "etc.",
        "approx.",
        "ca.",
        "cf.",
        "vs.",
        "dr.",
        "mr.",
        "mrs.",
        "st.",
        "fig.",
        "var.",
    )
)
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])")
_TOKEN = re.compile(r"[^\W_]{1,6}|[^\w\s]|_")


@dataclass(frozen=True, slots=True)
class Chunk:
    """One passage and its place.

    ``id`` follows from the document's name, the section, the text and, among equal passages, the
    occurrence: it stays when other parts of the document change. ``number`` counts from 0 within the
    document. ``start_token`` and ``end_token`` bound the sentences in the document's token stream.
    """

    id: str
    text: str
    number: int
    source_document: str
    file_path: str
    document_type: str
    title: str
    section: str
    page: int
    start_token: int
    end_token: int

    @property
    def token_count(self) -> int:
        """Tokens of the sentences, without the line that names guide and section."""
        return self.end_token - self.start_token

    def nested(self) -> dict[str, Any]:
        """The chunk as the FAISS-only bot's document processor stored it, plus the page."""
        return {
            "text": self.text,
            "chunk_id": self.number,
            "start_token": self.start_token,
            "end_token": self.end_token,
            "token_count": self.token_count,
            "metadata": {
                "source_document": self.source_document,
                "file_path": self.file_path,
                "document_type": self.document_type,
                "page": self.page,
            },
        }

    def flat(self) -> dict[str, Any]:
        """The chunk as the FAISS-only bot's quick loader stored it, plus the page."""
        return {
            "text": self.text,
            "chunk_id": self.number,
            "source_document": self.source_document,
            "char_count": len(self.text),
            "page": self.page,
        }

    def metadata(self) -> dict[str, Any]:
        """The metadata of a new record: flat, so that every field can be filtered on."""
        return {
            "source_document": self.source_document,
            "file_path": self.file_path,
            "document_type": self.document_type,
            "title": self.title,
            "section": self.section,
            "page": self.page,
            "chunk_id": self.number,
            "start_token": self.start_token,
            "end_token": self.end_token,
            "token_count": self.token_count,
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """What re-processing a document has to do: embed ``changed``, delete the ids in ``removed``."""

    changed: tuple[Chunk, ...]
    removed: tuple[str, ...]
    unchanged: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class _Unit:
    """One sentence, with its block's number (sentences of one block share a line)."""

    text: str
    block: int
    page: int
    start_token: int
    end_token: int


def estimate_tokens(text: str) -> int:
    """An estimate that needs no model: one token per started six letters or digits of a word, and one
    per mark. On English farming text it is within about a tenth of a WordPiece tokenizer's count."""
    return len(_TOKEN.findall(text))


def sentences(text: str) -> list[str]:
    """The sentences of a paragraph; abbreviations and decimal points do not end one."""
    found: list[str] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        last_word = text[start : match.end()].split()[-1].lower()
        if last_word in _ABBREVIATIONS:
            continue
        found.append(text[start : match.end()].strip())
        start = match.end()
    found.append(text[start:].strip())
    return [sentence for sentence in found if sentence]


def chunk_document(
    document: Document,
    *,
    characters: int = CHARACTERS,
    overlap_characters_max: int = OVERLAP_CHARACTERS_MAX,
    count_tokens: TokenCounter = estimate_tokens,
) -> list[Chunk]:
    """The document's chunks in reading order, each with about ``characters`` of sentences.

    A sentence of at most ``overlap_characters_max`` that ends one chunk also begins the next of the
    same section. A sentence longer than ``characters`` is split at a clause, or between words. Sections
    in ``SECTIONS_SKIPPED`` give no chunks.
    """
    chunks: list[Chunk] = []
    occurrences: Counter[str] = Counter()
    for section, units in _sections(document, characters, count_tokens):
        if section.lower() in SECTIONS_SKIPPED:
            continue
        lead = _lead(document.title, section)
        for group in _packed(units, characters, overlap_characters_max):
            text = f"{lead}\n{_written(group)}"
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            occurrences[digest] += 1
            chunks.append(
                Chunk(
                    id=f"{document.source}:{digest}:{occurrences[digest]}",
                    text=text,
                    number=len(chunks),
                    source_document=document.source,
                    file_path=document.path,
                    document_type=document.document_type,
                    title=document.title,
                    section=section,
                    page=group[0].page,
                    start_token=group[0].start_token,
                    end_token=group[-1].end_token,
                )
            )
    return chunks


def difference(stored_ids: Iterable[str], chunks: Sequence[Chunk]) -> Difference:
    """What changed between the ids that a store holds of a document and the document's chunks now."""
    stored = set(stored_ids)
    wanted = {chunk.id for chunk in chunks}
    return Difference(
        changed=tuple(chunk for chunk in chunks if chunk.id not in stored),
        removed=tuple(sorted(stored - wanted)),
        unchanged=tuple(chunk for chunk in chunks if chunk.id in stored),
    )


def _lead(title: str, section: str) -> str:
    return f"{title}: {section}" if section and section != title else title


def _sections(
    document: Document, characters: int, count_tokens: TokenCounter
) -> Iterator[tuple[str, list[_Unit]]]:
    section = ""
    units: list[_Unit] = []
    token, block_number = 0, 0
    for page in document.pages:
        for block in page.blocks:
            block_number += 1
            if block.kind == "heading":
                if units:
                    yield section, units
                section, units = block.text, []
                continue
            texts = row_sentences(block) if block.kind == "table" else sentences(block.text)
            for text in texts:
                for piece in _pieces(text, characters):
                    end = token + count_tokens(piece)
                    units.append(_Unit(piece, block_number, page.number, token, end))
                    token = end
    if units:
        yield section, units


def _packed(
    units: Sequence[_Unit], characters: int, overlap_characters_max: int
) -> Iterator[list[_Unit]]:
    group: list[_Unit] = []
    fresh = 0
    for unit in units:
        size = sum(len(u.text) + 1 for u in group)
        if fresh and size + len(unit.text) > characters:
            yield group
            last = group[-1]
            carries = len(last.text) <= overlap_characters_max
            group, fresh = ([last] if carries else []), 0
        group.append(unit)
        fresh += 1
    if fresh:
        yield group


def _written(group: Sequence[_Unit]) -> str:
    text = group[0].text
    for before, unit in itertools.pairwise(group):
        text += (" " if unit.block == before.block else "\n") + unit.text
    return text


def _pieces(sentence: str, characters: int) -> Iterator[str]:
    """The sentence in parts of at most ``characters``, cut at a clause if one is in the second half."""
    while len(sentence) > characters:
        window = sentence[:characters]
        cut = max(window.rfind(mark) + 1 for mark in (";", ",", ":"))
        if cut < characters // 2:
            cut = window.rfind(" ") if " " in window else characters
        yield sentence[:cut].strip()
        sentence = sentence[cut:].strip()
    if sentence:
        yield sentence
