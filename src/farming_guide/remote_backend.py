"""A router that runs elsewhere: the bot as one client of many of `shadow serve`."""

from __future__ import annotations

import os

from vectorstore.errors import ConfigurationError
from vectorstore.remote import RemoteStore

__all__ = ["RemoteBackend"]

WRITE_TOKEN_VARIABLE = "SHADOW_WRITE_TOKEN"  # noqa: S105 - the variable's name, not a token


class RemoteBackend:
    """Opens the proxy at ``url``. Its write token comes from ``SHADOW_WRITE_TOKEN``."""

    def __init__(self, *, dimension: int, url: str) -> None:
        self.store = RemoteStore(url, write_token=os.environ.get(WRITE_TOKEN_VARIABLE) or None)
        if self.store.dimension != dimension:
            held = self.store.dimension
            self.store.close()
            raise ConfigurationError(
                f"the proxy at {url} holds vectors of {held} dimensions, not {dimension}: choose the "
                "embedding model that they were made with"
            )

    def save(self) -> None:
        """Nothing is left to save: a write that returned is durable."""

    def load(self) -> bool:
        """Nothing to load. False if the stores are empty."""
        return self.store.count() > 0
