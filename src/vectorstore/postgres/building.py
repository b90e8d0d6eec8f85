"""Builds of indexes: how far one has come, and one that can be watched and interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg

from vectorstore.errors import StoreUnavailable
from vectorstore.postgres.connection import BoundedConnection
from vectorstore.postgres.store import PostgresStore

__all__ = ["BuildProgress", "build_progress", "build_under_way", "build_watched"]

_POLL_S = 0.25

_COUNTS = """
    SELECT phase, blocks_done, blocks_total, tuples_done, tuples_total
    FROM pg_stat_progress_create_index
"""
_PROGRESS = f"{_COUNTS} WHERE pid = %s"
_BUILD = f"{_COUNTS} WHERE relid = to_regclass(quote_ident(%s))"


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """``phase`` in PostgreSQL's words; ``done`` of ``total`` blocks or tuples, 0 of 0 if unknown."""

    phase: str
    done: int
    total: int


def build_progress(store: PostgresStore) -> BuildProgress | None:
    """How far the build of an index on this table has come, whoever builds it; None if nobody does."""
    return store.read(lambda connection: build_under_way(connection, store.settings.table))


def build_under_way(connection: BoundedConnection, table: str) -> BuildProgress | None:
    """:func:`build_progress`, for who has a connection in hand."""
    row = connection.execute(_BUILD, (table,)).fetchone()
    return None if row is None else _progress_of(row)


def build_watched(
    connection: BoundedConnection,
    store: PostgresStore,
    build: Callable[[], object],
    on_progress: Callable[[BuildProgress], None] | None,
) -> None:
    """Run ``build``, which uses ``connection``, in a thread of its own, so that the caller's thread can
    report (about four times a second) and be interrupted; raises what ``build`` raises of the driver."""
    failures: list[psycopg.Error] = []

    def run() -> None:
        try:
            build()
        except psycopg.Error as error:
            failures.append(error)

    builder = threading.Thread(target=run, name=f"index of {store.settings.table}", daemon=True)
    builder.start()
    try:
        while builder.is_alive():
            builder.join(_POLL_S)
            if on_progress and builder.is_alive():
                _report(connection.info.backend_pid, store, on_progress)
    except BaseException:
        connection.cancel_safe(timeout=5.0)
        builder.join()
        raise
    if failures:
        raise failures[0]


def _report(pid: int, store: PostgresStore, on_progress: Callable[[BuildProgress], None]) -> None:
    try:
        row = store.read(lambda connection: connection.execute(_PROGRESS, (pid,)).fetchone())
    except StoreUnavailable:
        # A server that is busy, as with this build, may not say in time how far it is: no reason to end it.
        return
    if row:
        on_progress(_progress_of(row))


def _progress_of(row: tuple[Any, ...]) -> BuildProgress:
    phase, blocks_done, blocks_total, tuples_done, tuples_total = row
    if tuples_total:
        return BuildProgress(phase, tuples_done, tuples_total)
    return BuildProgress(phase, blocks_done, blocks_total)
