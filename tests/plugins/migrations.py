"""Small migrations over a real PostgreSQL: opened, filled, brought to a phase, and opened again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shadow.config import Settings
from shadow.config_sources import environment_of
from shadow.core.phases import Phase, Request, Wanted
from shadow.opening import Migration, open_migration
from shadow.router import Router
from shadow.service import open_router
from shadow.verification import verification_of
from shadow.writes.backfill import backfill
from shadow.writes.verify import Verified, verify
from vectorstore.types import Record

__all__ = ["DIMENSION", "SmallMigration", "record", "until"]

DIMENSION = 8
ROOT = Path(__file__).resolve().parents[2]


def record(name: str, text: str = "text") -> Record:
    """A record whose vector follows from its name."""
    seed = int.from_bytes(name.encode()[-6:], "big")
    vector = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
    return Record(name, vector, text, {"name": name})


def until(what: str, met: Callable[[], bool], *, seconds: float = 20.0) -> None:
    """Poll until the condition is met."""
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, f"{what} not within {seconds} s"
        time.sleep(0.02)


@dataclass(frozen=True)
class SmallMigration:
    """The settings of one migration, and the steps that tests take with it."""

    settings: Settings

    def with_settings(self, **sections: dict[str, Any]) -> SmallMigration:
        """The same migration under other settings of some sections."""
        changed = {
            name: getattr(self.settings, name).model_copy(update=values)
            for name, values in sections.items()
        }
        return SmallMigration(self.settings.model_copy(update=changed))

    def in_directory(self, directory: Path) -> SmallMigration:
        """Another migration: the same settings with a state directory of its own."""
        return SmallMigration(self.settings.model_copy(update={"state_directory": directory}))

    @contextmanager
    def opened(self) -> Iterator[Migration]:
        """The parts, as a command has them."""
        with closing(open_migration(self.settings)) as migration:
            yield migration

    @contextmanager
    def routed(self) -> Iterator[Router]:
        """A router."""
        with closing(open_router(self.settings)) as router:
            yield router

    def filled(self, count: int = 20) -> None:
        """Write records `r-0` .. and copy them into PostgreSQL."""
        with self.routed() as router:
            router.upsert([record(f"r-{n}") for n in range(count)])
        self.backfilled()

    def backfilled(self) -> None:
        """Run a backfill and bring PostgreSQL level."""
        with self.opened() as migration:
            backfill(
                directory=migration.directory,
                journal=migration.journal,
                snapshots=migration.snapshots,
                store=migration.link.open(),
                current=lambda: migration.load_faiss().store,
            )
            migration.postgresql.follow()

    def flipped(self) -> None:
        """Make PostgreSQL the primary by force, and note a clean verify."""
        with self.opened() as migration:
            migration.routes.ask(Request(Wanted.POSTGRESQL, "test", "test", force_reason="test"))
            for _ in range(5):
                migration.postgresql.look()
                migration.lag.refresh()
                migration.cutover.step(who="test")
            assert migration.routes.current().phase is Phase.POSTGRESQL
            result = self.verified(migration)
            migration.evidence.record_verification(
                verification_of(result, at=time.time(), copy=migration.copy())
            )

    def verified(self, migration: Migration) -> Verified:
        """What a verify says."""
        migration.postgresql.follow()
        faiss = migration.load_faiss()
        return verify(faiss=faiss, postgresql=migration.link.open())

    def command(self, *words: str) -> subprocess.Popen[str]:
        """Start a command of the command line with these settings, in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "shadow", *words],
            cwd=ROOT,
            env=environment_of(self.settings, os.environ),
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # As a shell starts it: Ctrl-C goes to this group.
            process_group=0,
        )


@pytest.fixture
def small_migration(tmp_path: Path, postgresql_dsn: str, fresh_table: str) -> SmallMigration:
    """A migration of no records yet, on a table of its own."""
    return SmallMigration(
        Settings.model_validate(
            {
                "state_directory": tmp_path / "state",
                "faiss": {"dimension": DIMENSION},
                "postgresql": {"dsn": postgresql_dsn, "table": fresh_table},
                "gate": {"verify_every_s": 0},
            }
        )
    )
