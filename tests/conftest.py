"""Fixtures of the whole suite, one plugin for each thing that tests need."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import structlog

pytest_plugins = [
    "tests.plugins.killing",
    "tests.plugins.migrations",
    "tests.plugins.postgresql",
    "tests.plugins.tcp_proxy",
]


# A shell starts what it puts into the background with Ctrl-C ignored, and every process of a test would
# inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def unconfigured_events() -> Iterator[None]:
    """What a command under test configures for its own process does not outlive the test."""
    yield
    structlog.reset_defaults()
