"""Where the product's events go while it is measured: a file of JSON lines, as in an application."""

from __future__ import annotations

import logging
from pathlib import Path

import orjson
import structlog

__all__ = ["log_to"]


def log_to(path: Path) -> None:
    """Write every event at INFO and above to ``path``; the file stays open for the run.

    The driver's own warnings are left out: a run takes the network away on purpose.
    """
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        logger_factory=structlog.BytesLoggerFactory(path.open("ab")),
        cache_logger_on_first_use=True,
    )
