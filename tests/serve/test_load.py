"""The proxy at saturation: refusals that say when to come back, no error, memory that does not grow."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.serving import saturate, served

CLIENTS = 48


def check(directory: Path, *, seconds: float) -> None:
    with served(directory, rows=200, dimension=64) as proxy:
        load = saturate(proxy, seconds=seconds, clients=CLIENTS)
    assert load.errors == 0, (load.statuses, load.broken, load.bare)
    assert load.statuses[200] > 0
    # Else this was no saturation, and proved nothing.
    assert load.statuses[429] > 0
    if seconds >= 60:
        half = len(load.resident_mb) // 2
        assert max(load.resident_mb[half:]) < 1.1 * max(load.resident_mb[:half]), load.resident_mb


def test_a_proxy_at_its_limit_answers_or_says_when_to_come_back(tmp_path: Path) -> None:
    """More clients than it works for at a time, none of which pauses: 200, or 429 or 503 with
    Retry-After, and nothing else."""
    check(tmp_path, seconds=5)


@pytest.mark.slow
def test_a_minute_at_the_limit_does_not_fill_the_memory(tmp_path: Path) -> None:
    """The same for a minute; the resident set of the second half stays within a tenth of the first's."""
    check(tmp_path, seconds=60)
