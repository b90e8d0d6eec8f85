"""Events are told if they can be, and never at the cost of an answer."""

from __future__ import annotations

import io

import structlog

from shadow.events import EventLog


def test_a_closed_log_fails_nobody() -> None:
    """An application that closed its standard output goes on being answered."""
    stream = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(stream))
    EventLog().warning("told", why="open")
    assert "told" in stream.getvalue()
    stream.close()
    EventLog().warning("lost", why="closed")
