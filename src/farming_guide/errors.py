"""What the bot adds to the project's error tree.

::

    VectorStoreError
    ├── DocumentRefused      a document cannot be read or typeset; nothing was indexed
    └── ProviderError        a service outside (embeddings, chat, weather) gave no usable answer
        ├── ProviderRefused      it will refuse again: a bad key, no permission, a bad request
        └── ProviderUnavailable  the same call may succeed later: rate limit, server error, network
"""

from __future__ import annotations

from vectorstore.errors import VectorStoreError

__all__ = ["DocumentRefused", "ProviderError", "ProviderRefused", "ProviderUnavailable"]


class DocumentRefused(VectorStoreError, ValueError):
    """A document cannot be read or typeset; nothing was indexed."""


class ProviderError(VectorStoreError):
    """A service outside the process gave no usable answer."""


class ProviderRefused(ProviderError):
    """The service refused the call and will refuse it again until something is changed."""


class ProviderUnavailable(ProviderError):
    """The service did not answer; the same call may succeed later."""

    retryable = True
