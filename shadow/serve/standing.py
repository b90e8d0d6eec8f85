"""Whether the proxy takes requests: shared by the server, which stops it, and what must know."""

from __future__ import annotations

__all__ = ["Standing"]


class Standing:
    """``draining`` from SIGTERM on: what is under way ends, nothing new begins."""

    __slots__ = ("draining", "streams")

    def __init__(self) -> None:
        self.draining = False
        self.streams = 0
