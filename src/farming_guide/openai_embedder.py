"""Embeddings from OpenAI or a server that speaks its interface."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from farming_guide.embedding_cache import EmbeddingCache
from farming_guide.errors import ProviderRefused
from farming_guide.openai_errors import translated
from vectorstore.errors import ConfigurationError, InvalidInput
from vectorstore.types import Vector

if TYPE_CHECKING:
    from openai import OpenAI

__all__ = ["DIMENSIONS", "OpenAIEmbedder"]

# Output sizes: OpenAI, "Vector embeddings", embedding models table.
DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
ALIASES = {"ada-002": "text-embedding-ada-002"}
BATCH_TEXTS = 128


class OpenAIEmbedder:
    """Unit vectors through the official client, which retries with exponential backoff and honours
    ``Retry-After`` on 429, 5xx, timeouts and cut connections.

    ``cache_path`` keeps what was paid for; ``dimension`` must be told for models that are not in
    ``DIMENSIONS``. Raises ProviderUnavailable or ProviderRefused.
    """

    def __init__(
        self,
        *,
        api_key: str,
        model: str = "text-embedding-3-small",
        base_url: str | None = None,
        dimension: int | None = None,
        cache_path: Path | None = None,
        timeout_s: float = 30.0,
        retries_max: int = 5,
    ) -> None:
        from openai import OpenAI

        self._model = ALIASES.get(model, model)
        known = DIMENSIONS.get(self._model, dimension)
        if known is None:
            raise ConfigurationError(
                f"the embedding model {model!r} is not known: use one of {', '.join(DIMENSIONS)}, "
                "or give its dimension"
            )
        self._dimension = known
        self._client: OpenAI = OpenAI(
            api_key=api_key, base_url=base_url, timeout=timeout_s, max_retries=retries_max
        )
        self._cache = EmbeddingCache(cache_path) if cache_path is not None else None

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def model(self) -> str:
        return self._model

    def embed(self, texts: Sequence[str]) -> Vector:
        """Float32 unit vectors, shape (len(texts), dimension); known texts cost no call."""
        if not all(text.strip() for text in texts):
            raise InvalidInput("an empty text cannot be embedded")
        wanted = list(dict.fromkeys(texts))
        known = self._cache.read(self._model, wanted) if self._cache is not None else {}
        missing = [text for text in wanted if text not in known]
        for start in range(0, len(missing), BATCH_TEXTS):
            part = missing[start : start + BATCH_TEXTS]
            fetched = dict(zip(part, self._fetch(part), strict=True))
            # Kept batch by batch, so that a failure later loses nothing that was paid for.
            if self._cache is not None:
                self._cache.write(self._model, fetched)
            known.update(fetched)
        if not texts:
            return np.zeros((0, self._dimension), dtype=np.float32)
        return np.stack([known[text] for text in texts])

    def close(self) -> None:
        """Release connections and the cache."""
        self._client.close()
        if self._cache is not None:
            self._cache.close()

    def _fetch(self, texts: list[str]) -> Vector:
        with translated("the embedding service"):
            response = self._client.embeddings.create(model=self._model, input=texts)
        rows = sorted(response.data, key=lambda item: item.index)
        if [row.index for row in rows] != list(range(len(texts))):
            raise ProviderRefused(
                f"the embedding service answered {len(rows)} vectors for {len(texts)} texts"
            )
        vectors = np.array([row.embedding for row in rows], dtype=np.float32)
        if vectors.shape != (len(texts), self._dimension):
            raise ProviderRefused(
                f"the model {self._model!r} answered vectors of shape {vectors.shape[1:]}, "
                f"not {self._dimension} dimensions: check the model and its dimension setting"
            )
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(norms).all() or (norms == 0).any():
            raise ProviderRefused("the embedding service answered zero, NaN or infinite vectors")
        return np.asarray(vectors / norms, dtype=np.float32)
