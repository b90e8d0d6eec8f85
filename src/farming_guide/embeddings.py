"""Text to vectors: the port, and the choice between its two implementations."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from vectorstore.errors import ConfigurationError
from vectorstore.types import Vector

__all__ = ["Embedder", "embedder_from_environment"]


class Embedder(Protocol):
    """Turns texts into unit vectors. Safe to share between threads."""

    @property
    def dimension(self) -> int:
        """Length of every vector."""

    @property
    def model(self) -> str:
        """The model's name: vectors of two models cannot be compared."""

    def embed(self, texts: Sequence[str]) -> Vector:
        """Float32 vectors of length 1, shape (len(texts), dimension), in the texts' order."""


def embedder_from_environment(environment: Mapping[str, str] | None = None) -> Embedder:
    """OpenAI if ``OPENAI_API_KEY`` is set, else the offline model.

    ``OPENAI_BASE_URL``, ``OPENAI_EMBEDDING_MODEL``, ``OPENAI_EMBEDDING_DIMENSION`` and
    ``EMBEDDING_CACHE`` (a file) are read as well. Raises ConfigurationError if neither can be used.
    """
    settings = os.environ if environment is None else environment
    api_key = settings.get("OPENAI_API_KEY", "").strip()
    if api_key:
        from farming_guide.openai_embedder import OpenAIEmbedder

        cache = settings.get("EMBEDDING_CACHE")
        return OpenAIEmbedder(
            api_key=api_key,
            model=settings.get("OPENAI_EMBEDDING_MODEL") or "text-embedding-3-small",
            base_url=settings.get("OPENAI_BASE_URL") or None,
            dimension=_dimension(settings.get("OPENAI_EMBEDDING_DIMENSION")),
            cache_path=Path(cache) if cache else None,
        )
    from farming_guide.local_embedder import LocalEmbedder

    try:
        return LocalEmbedder()
    except ConfigurationError as error:
        raise ConfigurationError(
            f"no embedding model: set OPENAI_API_KEY, or install the offline one ({error})"
        ) from error


def _dimension(value: str | None) -> int | None:
    if not value:
        return None
    if not value.isdigit() or int(value) < 1:
        raise ConfigurationError(
            f"OPENAI_EMBEDDING_DIMENSION is {value!r}; it must be a whole number"
        )
    return int(value)
