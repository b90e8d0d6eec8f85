"""Embedding models that applications offer by entry point: the router itself knows none.

An entry point of the group ``shadow.embedders`` names a callable without arguments that gives an
:class:`Embedder`. An error of its with a true ``retryable``, and any of ``RETRYABLE``, may pass; after
any other the same call would fail again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any, Protocol

from vectorstore.errors import ConfigurationError, StoreUnavailable

__all__ = ["GROUP", "Embedder", "embedder_named", "may_pass"]

GROUP = "shadow.embedders"
RETRYABLE = (StoreUnavailable, ConnectionError, TimeoutError)


class Embedder(Protocol):
    """Turns texts into vectors of one length."""

    @property
    def dimension(self) -> int:
        """Length of every vector."""

    @property
    def model(self) -> str:
        """The model's name: vectors of two models cannot be compared."""

    def embed(self, texts: Sequence[str]) -> Any:
        """Numbers of shape (len(texts), dimension), in the texts' order."""


@contextmanager
def embedder_named(name: str) -> Iterator[Embedder]:
    """The embedder of an entry point, closed in the end if it can be; else ConfigurationError."""
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        raise ConfigurationError(
            f"no embedder {name!r}; installed are: {', '.join(sorted(found)) or 'none'}"
        )
    embedder: Embedder = found[name].load()()
    try:
        yield embedder
    finally:
        close = getattr(embedder, "close", None)
        if close is not None:
            close()


def may_pass(error: Exception) -> bool:
    """Whether the same call may succeed later."""
    return isinstance(error, RETRYABLE) or bool(getattr(error, "retryable", False))
