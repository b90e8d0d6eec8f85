"""The router's events, by structlog, as the application configured it."""

from __future__ import annotations

from typing import Any

import structlog

__all__ = ["EventLog"]


class EventLog:
    """Tells events; one that cannot be written is let go.

    A closed or full log must never fail an answer or end a thread that keeps the stores true.
    """

    def __init__(self, name: str = "shadow") -> None:
        self._log = structlog.get_logger(name)

    def debug(self, event: str, **fields: Any) -> None:
        """For developers."""
        self._tell("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """What happened as it should."""
        self._tell("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """What was met and coped with."""
        self._tell("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """What somebody must look at."""
        self._tell("error", event, fields)

    def _tell(self, level: str, event: str, fields: dict[str, Any]) -> None:
        try:
            getattr(self._log, level)(event, **fields)
        except (OSError, ValueError):
            # BrokenPipeError and a full disk are OSErrors; a closed stream raises ValueError.
            return
