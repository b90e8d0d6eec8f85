"""A store behind the HTTP proxy: the client, and how values travel."""

from __future__ import annotations

from vectorstore.remote.store import RemoteStore

__all__ = ["RemoteStore"]
