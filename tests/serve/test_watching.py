"""`shadow status --watch` and PostgreSQL's own figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from shadow.commands.watching import render, watch
from shadow.status import status
from tests.serve.running import Running, migrate_to_shadow
from vectorstore.postgres.monitoring import Monitoring, hints, monitor
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Record

HEALTHY = Monitoring(
    table_bytes=10 << 20,
    indexes_bytes=5 << 20,
    vector_index_bytes=4 << 20,
    database_bytes=1 << 30,
    live_rows=10_000,
    dead_rows=10,
    cache_hit_share=0.99,
    vacuum_age_s=60.0,
    connections=10,
    connections_max=100,
    shared_buffers_bytes=128 << 20,
    work_mem_bytes=4 << 20,
    build_memory_bytes=256 << 20,
    build=None,
    statements=None,
)


def test_the_terminal_shows_what_the_page_shows(migrating: Running) -> None:
    """Verdict, phase, figures, what is open, lag, journal and decisions."""
    migrate_to_shadow(migrating)
    found = status(migrating.migration)
    screen = Console(file=StringIO(), width=140)
    screen.print(render(found, [("12:00:00", "Chisomo", "moved from faiss to shadow")]))
    shown = screen.file.getvalue()
    for text in (found["verdict"].upper(), "phase shadow", "recall (all)", "open:", "journal",
                 "clean", "Chisomo", "0 entries"):  # fmt: skip
        assert text in shown


def test_watching_looks_anew_until_it_is_interrupted(proxy: Running) -> None:
    """Each round looks again; Ctrl-C ends it."""
    looks: list[int] = []

    def look() -> dict[str, object]:
        looks.append(1)
        return status(proxy.migration, look=False)

    def sleep(_: float) -> None:
        if len(looks) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch(proxy.migration, look, sleep=sleep)
    assert len(looks) == 3


def test_the_servers_figures_are_read(postgres_store: Callable[..., PostgresStore]) -> None:
    """Sizes and connections come from the server; without pg_stat_statements there are none of it."""
    store = postgres_store(dimension=8)
    store.upsert([Record(f"r{n}", np.ones(8, np.float32), "text", {}) for n in range(50)])
    seen = monitor(store)
    assert seen.table_bytes > 0
    assert seen.indexes_bytes > 0
    assert 1 <= seen.connections <= seen.connections_max
    assert seen.shared_buffers_bytes > 0
    assert seen.build_memory_bytes == 256 << 20
    assert seen.build is None
    assert store.pool_statistics()["size"] >= 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vector_index_bytes": 300 << 20, "build_memory_bytes": 1 << 30}, "shared_buffers is"),
        ({"cache_hit_share": 0.5}, "came from outside"),
        ({"vector_index_bytes": 100 << 20, "build_memory_bytes": 64 << 20}, "maintenance_work_mem"),
        ({"dead_rows": 9_000}, "are dead"),
        ({"connections": 95}, "connections are taken"),
        ({"work_mem_bytes": 1 << 20}, "work_mem is"),
    ],
)
def test_each_hint_has_its_reason(change: dict[str, object], words: str) -> None:
    """A server that is well gets no hint; each trouble gets its own, with the figure."""
    assert hints(HEALTHY) == ()
    (hint,) = hints(replace(HEALTHY, **change))
    assert words in hint
