"""A proxy that runs: the real server in a thread of this process, over a real router."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from shadow.config import Settings
from shadow.core.phases import Phase
from shadow.opening import Migration, open_migration
from shadow.router import Router
from shadow.serve.app import create_app
from shadow.serve.server import ProxyServer, listening
from shadow.service import route_through
from shadow.verification import verification_of
from shadow.writes.backfill import backfill
from shadow.writes.verify import verify
from vectorstore.types import Record

__all__ = [
    "CONTROL_TOKEN",
    "NOWHERE",
    "WRITE_TOKEN",
    "Running",
    "eventually",
    "migrate_to_shadow",
    "running",
    "settings_for",
]

WRITE_TOKEN = "write-token-of-the-tests"
CONTROL_TOKEN = "control-token-of-the-tests"
# Nothing listens there, so that the router does without PostgreSQL at once.
NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"
DIMENSION = 8


@dataclass(frozen=True, slots=True)
class Running:
    """A proxy's address, a client of it, and what it serves."""

    url: str
    client: httpx.Client
    migration: Migration
    router: Router
    server: ProxyServer

    def decide(self, action: str, **body: Any) -> httpx.Response:
        """Take a decision with the control token, on the version of the route in force."""
        values = {
            "route_version": self.migration.routes.current().version,
            "why": "a test",
            **body,
        }
        return self.client.post(
            f"/v1/control/{action}",
            json=values,
            headers={"authorization": f"Bearer {CONTROL_TOKEN}"},
            timeout=30,
        )


def settings_for(directory: Path, **sections: dict[str, Any]) -> Settings:
    """Settings of an empty store of eight dimensions; ``sections`` go over them."""
    values: dict[str, Any] = {
        "state_directory": directory,
        "faiss": {"dimension": DIMENSION, "metric": "cosine"},
        "postgresql": {"dsn": NOWHERE},
        "gate": {"duration_s_min": 0, "distinct_queries_min": 20, "latency_budget_ms": 2_000},
        "serve": {"port": 0, "drain_s": 2},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return Settings.model_validate(values)


@contextmanager
def running(settings: Settings) -> Iterator[Running]:
    """Serve a migration until the end of the block."""
    migration = open_migration(settings)
    router = route_through(migration)
    try:
        app = create_app(migration, router, subject="the tests' search")
        ready = threading.Event()
        server = ProxyServer(app, drain_s=settings.serve.drain_s, on_ready=ready.set)
        with listening(settings.serve.host, 0) as listener:
            url = f"http://{settings.serve.host}:{listener.getsockname()[1]}"
            thread = threading.Thread(target=server.run, args=([listener],))
            thread.start()
            try:
                assert ready.wait(10), "the proxy did not start"
                with httpx.Client(base_url=url, trust_env=False) as client:
                    yield Running(url, client, migration, router, server)
            finally:
                server.drain()
                thread.join(15)
                assert not thread.is_alive(), "the proxy did not stop"
    finally:
        router.close()


def eventually(holds: Callable[[], bool], *, within_s: float = 15.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it never held"
        time.sleep(0.02)


def migrate_to_shadow(proxy: Running, *, rows: int = 200) -> None:
    """Fill the stores, backfill PostgreSQL, verify, and wait for the phase shadow."""
    random = np.random.default_rng(7)
    proxy.router.upsert(
        [
            Record(f"r{n:03d}", random.normal(size=DIMENSION), f"text {n}", {"even": n % 2 == 0})
            for n in range(rows)
        ]
    )
    migration = proxy.migration
    backfill(
        directory=migration.settings.state_directory,
        journal=migration.journal,
        snapshots=migration.snapshots,
        store=migration.link.open(),
        current=lambda: migration.load_faiss().store,
    )
    eventually(lambda: proxy.router.route.phase is Phase.SHADOW)
    faiss = migration.load_faiss()
    found = verify(faiss=faiss, postgresql=migration.link.open())
    migration.evidence.record_verification(
        verification_of(found, at=time.time(), copy=migration.copy())
    )
