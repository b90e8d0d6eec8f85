"""Proxies for the tests: one that all of a module may share, and one with PostgreSQL behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.running import (
    CONTROL_TOKEN,
    WRITE_TOKEN,
    Running,
    running,
    settings_for,
)

pytest.importorskip("fastapi", reason="needs the extra `serve`")


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A proxy without tokens, in the phase faiss, with PostgreSQL away."""
    with running(settings_for(tmp_path_factory.mktemp("proxy"))) as started:
        yield started


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A proxy with both tokens, one from a file, and narrow limits."""
    directory = tmp_path_factory.mktemp("guarded")
    token_file = directory / "control.token"
    token_file.write_text(CONTROL_TOKEN + "\n")
    settings = settings_for(
        directory / "state",
        serve={
            "write_token": WRITE_TOKEN,
            "control_token_file": token_file,
            "body_bytes_max": 4_096,
            "k_max": 50,
            "batch_max": 3,
            "concurrency_max": 2,
        },
    )
    with running(settings) as started:
        yield started


@pytest.fixture
def migrating(postgresql_dsn: str, fresh_table: str, tmp_path: Path) -> Iterator[Running]:
    """A proxy with both tokens and a real PostgreSQL."""
    settings = settings_for(
        tmp_path / "state",
        postgresql={"dsn": postgresql_dsn, "table": fresh_table},
        serve={"control_token": CONTROL_TOKEN, "refresh_ms": 100},
    )
    with running(settings) as started:
        yield started


@pytest.fixture
def events_of() -> object:
    """Reads server-sent events until a condition holds; returns the events of each name."""

    def read(proxy: Running, wanted: int) -> list[tuple[str, dict[str, object]]]:
        found: list[tuple[str, dict[str, object]]] = []
        with proxy.client.stream("GET", "/v1/events", timeout=10) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            name = ""
            for line in response.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    found.append((name, json.loads(line.removeprefix("data: "))))
                    if len(found) >= wanted:
                        return found
        return found

    return read
