"""Where a process can die: before or after the n-th call of a function that changes something."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from shadow.routes import RouteBook
from shadow.writes import backfill, parts
from shadow.writes.journal import Journal
from shadow.writes.journal_append import Appender
from tests.machine.postgresql_double import PostgresqlDouble
from vectorstore.faiss import snapshot
from vectorstore.faiss.store import FaissStore
from vectorstore.postgres.store import PostgresStore

__all__ = ["POINTS", "Crash", "CrashPoint", "crashing"]


class Crash(BaseException):
    """The process is dead: passes through every handler of the code under test."""


@dataclass(frozen=True)
class CrashPoint:
    """Die ``after`` (else before) call number ``nth`` of the function ``name`` in :data:`POINTS`."""

    name: str
    after: bool
    nth: int = 1


POINTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "append": ((Appender, "_commit_together"),),
    "faiss apply": ((FaissStore, "apply"),),
    "postgresql": ((PostgresStore, "transact"), (PostgresqlDouble, "transact")),
    "write snapshot": ((snapshot, "write_snapshot"),),
    "verify snapshot": ((snapshot, "verify_snapshot"),),
    "prune": ((shutil, "rmtree"),),
    "cursor": ((Journal, "set_cursor"),),
    "truncate": ((Journal, "truncate"),),
    "hold": ((Journal, "hold"),),
    "release": ((Journal, "release"),),
    "begin load": ((backfill, "begin_load"),),
    "load block": ((parts, "load_block"),),
    "finish load": ((backfill, "finish_load"),),
    "route": ((RouteBook, "change"),),
}


@contextmanager
def crashing(point: CrashPoint | None) -> Iterator[None]:
    """Raise :class:`Crash` at ``point`` if the block gets there."""
    if point is None:
        yield
        return
    calls = 0

    def dying(original: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            fatal = calls == point.nth
            if fatal and not point.after:
                raise Crash(f"before {point.name}")
            result = original(*arguments, **options)
            if fatal:
                raise Crash(f"after {point.name}")
            return result

        return call

    patches = [
        mock.patch.object(owner, name, dying(getattr(owner, name)))
        for owner, name in POINTS[point.name]
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in reversed(patches):
            patch.stop()
