"""Processes for the kill harness that use the router as an application and an operator do.

Every worker takes the settings as JSON. What it sees that may not be, it dies of with an error.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from typing import Any

import numpy as np

from shadow.config import Settings
from shadow.core.phases import Phase, Request, Wanted
from shadow.errors import CutoverRefused
from shadow.opening import Migration, open_migration
from shadow.service import open_router
from shadow.writes.backfill import backfill
from shadow.writes.pace import Pace
from tests.faults.kill_harness import AckLog
from vectorstore.errors import StoreUnavailable
from vectorstore.types import Query, Record

__all__ = ["DIMENSION", "IDS", "copy_again_and_again", "decide", "record_of", "write"]

DIMENSION = 4
IDS = tuple(f"id-{number}" for number in range(8))
PAUSE_S = 0.02
COPY_PAUSE_S = 0.6
STEPS = 10


def record_of(name: str, text: str) -> Record:
    """The record of one write: its vector follows from its text."""
    vector = np.frombuffer(f"{text:>16}".encode()[-16:], dtype=np.uint8).astype(np.float32)
    return Record(name, vector.reshape(DIMENSION, 4).sum(axis=1), text, {"text": text})


def write(acks: AckLog, *, settings: Mapping[str, Any], name: str) -> None:
    """Upsert and delete few ids, and read each of its own writes back before the next."""
    router = open_router(Settings.model_validate(settings))
    draw = random.Random(f"{name} {acks.life}")
    for number in count():
        record_id = draw.choice(IDS)
        text = f"{name} {acks.life} {number}"
        deletes = draw.random() < 0.25
        acks.intend(id=record_id, text=None if deletes else text, op=text)
        if deletes:
            seq = router.delete([record_id], op_id=text)
        else:
            seq = router.upsert([record_of(record_id, text)], op_id=text)
        acks.acknowledge(id=record_id, text=None if deletes else text, seq=seq, op=text)
        hits = router.search(Query(np.ones(DIMENSION, dtype=np.float32), k=100)).hits
        found = {hit.id: hit.seq for hit in hits}
        if found.get(record_id, seq) < seq:
            raise AssertionError(f"write {seq} of {record_id} is hidden behind {found[record_id]}")
        if deletes and found.get(record_id) == seq:
            raise AssertionError(f"{record_id} was deleted at {seq} and is still there")


def copy_again_and_again(acks: AckLog, *, settings: Mapping[str, Any]) -> None:
    """Backfill PostgreSQL anew, block by block, while FAISS answers."""
    migration = open_migration(Settings.model_validate(settings))
    for number in count():
        with acks.doing("backfill"), suppress(CutoverRefused, StoreUnavailable):
            fill(migration)
            acks.acknowledge(backfill=number)
        # Between two copies there must be time for PostgreSQL to be the primary.
        time.sleep(COPY_PAUSE_S)


def decide(acks: AckLog, *, settings: Mapping[str, Any]) -> None:
    """Flip and roll back, and keep house, over and over."""
    migration = open_migration(Settings.model_validate(settings))
    faiss = migration.load_faiss()
    for number in count():
        wanted = Wanted.POSTGRESQL if number % 2 == 0 else Wanted.FAISS
        with acks.doing("flip" if wanted is Wanted.POSTGRESQL else "rollback"):
            phase = _carry_out(migration, wanted)
            acks.acknowledge(phase=phase.value)
        faiss.follow()
        with acks.doing("snapshot"):
            migration.snapshots.make(faiss.store, reloads=faiss.reloads)
        with acks.doing("truncation"):
            migration.journal.truncate(migration.journal.head())
        acks.acknowledge(base=migration.journal.base())
        time.sleep(PAUSE_S)


def _carry_out(migration: Migration, wanted: Wanted) -> Phase:
    """Ask, and take steps for a while; the phase that was reached."""
    migration.routes.ask(Request(wanted, "worker", "killed at random", "forced by a test"))
    for _ in range(STEPS):
        migration.postgresql.look()
        migration.lag.refresh()
        with suppress(StoreUnavailable):
            migration.cutover.step(who="worker")
        phase = migration.routes.current().phase
        if (phase is Phase.POSTGRESQL) == (wanted is Wanted.POSTGRESQL):
            break
        time.sleep(PAUSE_S)
    return phase


def fill(migration: Migration) -> None:
    """One backfill."""
    backfill(
        directory=migration.directory,
        journal=migration.journal,
        snapshots=migration.snapshots,
        store=migration.link.open(),
        current=lambda: migration.load_faiss().store,
        pace=Pace(rows_per_s_max=100.0),
        backups_kept=1,
    )
