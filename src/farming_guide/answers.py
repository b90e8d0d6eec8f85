"""A question to an answer with its sources.

The store finds passages; what is nearer than the threshold is quoted, or worded by a chat model from
those passages alone. Below the threshold the bot says that it does not know: a farmer who is guessed at
may lose a harvest.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from farming_guide.catalogue import ANY, Catalogue, Wish
from farming_guide.chunks import sentences
from farming_guide.embeddings import Embedder
from farming_guide.errors import ProviderError
from farming_guide.passages import Passage
from vectorstore.errors import ConfigurationError
from vectorstore.port import VectorStore
from vectorstore.types import Query

__all__ = ["Advisor", "Reply", "Writer"]

log = structlog.get_logger("farming_guide")

# Scores of unrelated text lie elsewhere for every model; below these a passage proves nothing.
THRESHOLDS = {
    "all-MiniLM-L6-v2-onnx-int8": 0.42,
    "text-embedding-3-small": 0.35,
    "text-embedding-3-large": 0.35,
    "text-embedding-ada-002": 0.78,
}
THRESHOLD_OTHERWISE = 0.35
# Passages beyond the first are quoted only this near to it.
SCORE_GAP_MAX = 0.15
PASSAGES_QUOTED_MAX = 3
# How much the share of the question's words that a passage has counts beside its score: names and
# numbers, which embeddings blur, decide between passages that are about equally near.
WORDS_WEIGHT = 0.2

DO_NOT_KNOW = (
    "I do not know. The guides that I have say nothing near enough to your question. Try other words, "
    "name the crop, or ask your extension worker."
)
LIBRARY_EMPTY = (
    "My library is empty: nobody has given me guides yet. Whoever runs me fills it with "
    "`farming-guide ingest` or, for FAISS, `farming-guide build`."
)
_WORD = re.compile(r"[a-z]{3,}")
_COMMON = frozenset(
    [
        "the",
        "and",
        "for",
        "are",
        "how",
        "what",
        "when",
        "which",
        "who",
        "why",
        "does",
        "should",
        "can",
        "with",
        "from",
        "that",
        "this",
        "have",
        "has",
        "not",
        "you",
        "your",
        "was",
        "were",
        "will",
        "into",
        "about",
        "they",
        "them",
        "their",
        "there",
        "than",
        "then",
        "much",
        "many",
    ]
)


class Writer(Protocol):
    """Words an answer from numbered passages; raises ProviderError."""

    def __call__(self, question: str, passages: Sequence[str]) -> str: ...


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its text with ``[1]`` marks, the passages they mean, and who found them.

    ``known`` is False when the bot said that it does not know.
    """

    text: str
    passages: tuple[Passage, ...]
    store: str
    known: bool


class Advisor:
    """Answers questions from a store. Safe to share between threads.

    Raises ConfigurationError at once if the embedding model does not fit the store.
    """

    def __init__(
        self,
        store: VectorStore,
        embedder: Embedder,
        catalogue: Catalogue,
        *,
        writer: Writer | None = None,
        top_k: int = 5,
        threshold: float | None = None,
    ) -> None:
        if embedder.dimension != store.dimension:
            raise ConfigurationError(
                f"the embedding model {embedder.model!r} makes vectors of {embedder.dimension} "
                f"dimensions, the store holds {store.dimension}: use the model that the store was "
                "filled with, or fill it anew"
            )
        self.store = store
        self.embedder = embedder
        self.catalogue = catalogue
        self._writer = writer
        self._top_k = top_k
        chosen = THRESHOLDS.get(embedder.model, THRESHOLD_OTHERWISE)
        self.threshold = threshold if threshold is not None else chosen

    def passages(
        self, question: str, *, wish: Wish = ANY, top_k: int | None = None
    ) -> tuple[list[Passage], str]:
        """The nearest passages, nearest first, whatever their score; and the store that answered.

        Raises InvalidInput for a wish that no guide fits, ProviderError, or the store's errors.
        """
        only = self.catalogue.filter(wish)
        # "how do I plant crop:groundnuts" is a question about groundnuts, though it does not say so.
        named = not wish.crop or wish.crop.lower() in question.lower()
        asked = question if named else f"{question} ({wish.crop})"
        started = time.perf_counter()
        vector = self.embedder.embed([asked])[0]
        spent_ms = (time.perf_counter() - started) * 1e3
        answer = self.store.search(
            Query(vector, k=top_k or self._top_k, filter=only, spent_ms=spent_ms)
        )
        return [Passage.of(hit) for hit in answer.hits], answer.store

    def answer(self, question: str, *, wish: Wish = ANY) -> Reply:
        """Answer a question, or say that the guides do not; raises as :meth:`passages` does."""
        found, store = self.passages(question, wish=wish)
        near = tuple(passage for passage in found if passage.score >= self.threshold)
        if not near:
            empty = not found and self.store.count() == 0
            return Reply(LIBRARY_EMPTY if empty else DO_NOT_KNOW, (), store, known=False)
        close = _distinct(p for p in near if p.score >= near[0].score - SCORE_GAP_MAX)
        wanted = _words(question)
        close.sort(key=lambda p: -(p.score + WORDS_WEIGHT * _share(wanted, _words(p.text))))
        text, quoted = self._worded(question, close[:PASSAGES_QUOTED_MAX])
        return Reply(text, tuple(quoted), store, known=True)

    def cited(self, reply: Reply) -> str:
        """The reply's text with its list of sources."""
        if not reply.passages:
            return reply.text
        lines = [
            f"[{number}] {self.catalogue.title(passage.source_document) or 'source unknown'}"
            + (f", page {passage.page}" if passage.page else "")
            + f" (relevance {passage.relevance})"
            for number, passage in enumerate(reply.passages, 1)
        ]
        return reply.text + "\n\nSources:\n" + "\n".join(lines)

    def _worded(self, question: str, passages: Sequence[Passage]) -> tuple[str, Sequence[Passage]]:
        if self._writer is not None:
            try:
                return self._writer(question, [passage.text for passage in passages]), passages
            except ProviderError as error:
                log.warning("chat_failed", error=type(error).__name__, reason=str(error))
        return _extracted(question, passages)


def _extracted(question: str, passages: Sequence[Passage]) -> tuple[str, Sequence[Passage]]:
    """The first passage in full; of the others the sentence that shares most words with the question.

    Returns the text and the passages that it quotes.
    """
    wanted = _words(question)
    quoted = [passages[0]]
    parts = [f"{passages[0].body} [1]"]
    said = {sentence.lower() for sentence in _lines(passages[0].body)}
    for passage in passages[1:]:
        fresh = [s for s in _lines(passage.body) if s.lower() not in said]
        best = max(fresh, key=lambda sentence: len(wanted & _words(sentence)), default="")
        if wanted & _words(best):
            quoted.append(passage)
            parts.append(f"{best} [{len(quoted)}]")
            said.add(best.lower())
    return "\n\n".join(parts), quoted


def _distinct(passages: Iterable[Passage]) -> list[Passage]:
    """Without passages whose words were seen before: guides repeat each other."""
    by_text: dict[str, Passage] = {}
    for passage in passages:
        by_text.setdefault(passage.body, passage)
    return list(by_text.values())


def _share(wanted: set[str], words: set[str]) -> float:
    return len(wanted & words) / len(wanted) if wanted else 0.0


def _lines(text: str) -> list[str]:
    return [sentence for line in text.splitlines() for sentence in sentences(line)]


def _words(text: str) -> set[str]:
    return {word.rstrip("s") for word in _WORD.findall(text.lower()) if word not in _COMMON}
