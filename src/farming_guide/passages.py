"""What a store found, as a passage that can be quoted with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vectorstore.types import Hit

__all__ = ["Passage", "source_document"]


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk that was found: its words, its guide and page (0 if unknown), and how near it is."""

    text: str
    source_document: str
    page: int
    score: float

    @classmethod
    def of(cls, hit: Hit) -> Passage:
        """Read a hit, whichever shape its chunk was stored in."""
        page = _field(hit.metadata, "page")
        return cls(
            text=hit.text,
            source_document=source_document(hit.metadata),
            page=page if isinstance(page, int) else 0,
            score=hit.score,
        )

    @property
    def lead(self) -> str:
        """The line that names guide and section, if the chunk has one."""
        first, newline, _ = self.text.partition("\n")
        return first if newline else ""

    @property
    def body(self) -> str:
        """The sentences, without the line that names guide and section."""
        first, newline, rest = self.text.partition("\n")
        return rest if newline else first

    @property
    def relevance(self) -> str:
        """`high`, `medium` or `low`: how sure a reader may be that this is to the point."""
        return "high" if self.score >= 0.6 else "medium" if self.score >= 0.45 else "low"


def source_document(metadata: Mapping[str, Any]) -> str:
    """The document's file name from flat or nested metadata; empty if there is none."""
    value = _field(metadata, "source_document")
    return value if isinstance(value, str) else ""


def _field(metadata: Mapping[str, Any], name: str) -> Any:
    nested = metadata.get("metadata")
    if name not in metadata and isinstance(nested, Mapping):
        return nested.get(name)
    return metadata.get(name)
