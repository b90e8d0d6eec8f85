"""Parts of the page that only show while something is under way."""

from __future__ import annotations

import time
from dataclasses import replace

from shadow.load_clock import COPYING, LoadStanding
from shadow.progress import PaceClock
from shadow.serve.panels import panels
from shadow.serve.watch import Watch
from tests.serve.running import Running, eventually
from tests.serve.test_watching import HEALTHY
from vectorstore.postgres.building import BuildProgress


def test_a_backfill_and_an_index_build_show_how_long_they_take(proxy: Running) -> None:
    """Share, count, phase and time left; without a pace yet they say that it is not known."""
    seen = Watch(proxy.migration, subject="x", age_ms_max=1_000).look()
    building = replace(HEALTHY, build=BuildProgress("building index: loading tuples", 250, 1_000))
    under_way = replace(
        seen, load=LoadStanding(COPYING, 50, 200, 30.0), server=building, build_left_s=90.0
    )
    shown = panels(under_way)["standing"]
    for text in (
        "Backfill",
        "copying rows: 50 of 200; 30 s left",
        "Index build",
        "loading tuples; 2 min left",
    ):
        assert text in shown
    slow = replace(under_way, load=LoadStanding(COPYING, 50, 200, None), build_left_s=None)
    assert panels(slow)["standing"].count("time left not yet known") == 2
    assert "Backfill" not in panels(seen)["standing"]


def test_the_time_left_follows_the_pace() -> None:
    """Half done means as long again; what begins anew is measured anew."""
    clock = PaceClock()
    assert clock.left_s("a", 0, 100) is None
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > 0.2)
    left_s = clock.left_s("a", 50, 100)
    assert left_s is not None
    assert 0.1 < left_s <= time.monotonic() - began
    assert clock.left_s("a", 100, 100) == 0
    assert clock.left_s("b", 50, 100) is None
    assert clock.left_s("b", 10, 100) is None
