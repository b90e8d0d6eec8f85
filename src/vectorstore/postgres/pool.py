"""Pooled connections, deadlines from checkout to the last byte, and reconnection on demand."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from vectorstore.errors import DeadlineExceeded, StoreUnavailable
from vectorstore.postgres.connection import BoundedConnection, Expired
from vectorstore.postgres.failures import connect_failure, translated
from vectorstore.postgres.session import start_long_session
from vectorstore.postgres.settings import PostgresSettings

__all__ = ["Deadline", "Pool", "connect"]

T = TypeVar("T")

_LIFETIME_S = 600.0
_SLICES_S = (0.02, 0.1)


def connect(settings: PostgresSettings, **options: Any) -> BoundedConnection:
    """One connection outside the pool, for long or administrative work: no statement timeout.

    Raises what :func:`connect_failure` makes of the driver's error.
    """
    try:
        connection = BoundedConnection.connect(
            settings.dsn, autocommit=True, **{**_connect_options(settings), **options}
        )
        try:
            start_long_session(connection)
        except psycopg.Error:
            connection.close()
            raise
    except psycopg.Error as error:
        raise connect_failure(error, settings) from error
    return connection


class Deadline(NamedTuple):
    """When a call must have ended (``time.monotonic()``), and how long it was allowed to take."""

    at: float
    allowed_ms: float


class Pool:
    """psycopg_pool with the two things it leaves to its user.

    A call has one deadline for waiting for a connection, sending and receiving. And a connection that
    died while it was idle is replaced within the same call: if it broke before the server answered
    anything, nothing was committed (every write sends BEGIN first), so the call starts again.

    The pool itself never retries in the background: with the server away, each call tries to connect
    once and fails at once; the first call after its return succeeds.
    """

    def __init__(
        self, settings: PostgresSettings, configure: Callable[[BoundedConnection], None]
    ) -> None:
        self._settings = settings
        self._configure_session = configure
        self._pid = os.getpid()
        self._lent = 0
        self._failed_at = 0.0
        self._failure: psycopg.Error | None = None
        self._lock = threading.Lock()
        self._pool: ConnectionPool[BoundedConnection] = ConnectionPool(
            settings.dsn,
            connection_class=self._recording_class(),
            kwargs={"autocommit": True, **_connect_options(settings)},
            configure=self._configure,
            min_size=settings.pool_size_min,
            max_size=settings.pool_size_max,
            max_lifetime=_LIFETIME_S,
            reconnect_timeout=0.0,
            name=settings.table,
            open=False,
        )

    def open(self) -> None:
        """Begin to connect, in the background."""
        self._pool.open()

    def deadline(self, timeout_ms: float | None) -> Deadline:
        """When a call that begins now must have ended. Default: after the statement timeout."""
        allowed_ms = self._settings.statement_timeout_ms if timeout_ms is None else timeout_ms
        return Deadline(time.monotonic() + allowed_ms / 1000.0, allowed_ms)

    def run(
        self,
        operation: Callable[[BoundedConnection], T],
        deadline: Deadline,
        *,
        writing: bool = False,
    ) -> T:
        """What ``operation`` returns on a connection of the pool.

        Raises DeadlineExceeded when the ``deadline`` has passed, StoreUnavailable when the server is
        away, and otherwise what :func:`translated` says of one that is ``writing`` or not.
        """
        stale_max = self._settings.pool_size_max
        while True:
            connection = self._checkout(deadline.at)
            try:
                return operation(connection)
            except Expired as error:
                raise self._expired(deadline.allowed_ms) from error
            except psycopg.Error as error:
                stale = connection.broken and connection.replies == 0
                if not stale or stale_max == 0:
                    raise translated(error, self._settings, writing=writing) from error
                stale_max -= 1
            finally:
                self._give_back(connection)

    def close(self) -> None:
        """Close every connection. Idempotent; does nothing in a child that was forked with them open."""
        if os.getpid() != self._pid:
            return
        self._pool.close(timeout=1.0)

    @property
    def size(self) -> int:
        """Connections that are open or being opened."""
        return int(self._pool.get_stats().get("pool_size", 0))

    def statistics(self) -> Mapping[str, int]:
        """Connections open (`size`), lent (`lent`), allowed (`size_max`), and callers waiting."""
        found = self._pool.get_stats()
        with self._lock:
            lent = self._lent
        return {
            "size": int(found.get("pool_size", 0)),
            "lent": lent,
            "size_max": self._settings.pool_size_max,
            "waiting": int(found.get("requests_waiting", 0)),
        }

    def _checkout(self, deadline: float) -> BoundedConnection:
        if os.getpid() != self._pid:
            # The connections are the parent's: each of the two could be given the other's answer.
            raise StoreUnavailable(
                "the postgresql store was opened before a fork: open one in each process, after it was "
                "forked (with gunicorn in post_fork, or without preload_app)"
            )
        started = time.monotonic()
        slices = iter(_SLICES_S)
        slice_s = 0.0
        while True:
            slice_s = next(slices, slice_s)
            remaining = deadline - time.monotonic()
            try:
                connection = self._pool.getconn(timeout=min(slice_s, max(0.0, remaining)))
            except PoolClosed as error:
                raise StoreUnavailable("the postgresql store is closed") from error
            except PoolTimeout as error:
                with self._lock:
                    failure = self._failure if self._failed_at >= started else None
                    waitable = self._lent > 0
                # Others hold connections that may come back: then waiting makes sense.
                if failure is not None and not waitable:
                    raise connect_failure(failure, self._settings) from failure
                if remaining <= slice_s:
                    raise DeadlineExceeded(
                        f"no connection to PostgreSQL at {self._settings.dsn_masked} became free "
                        f"in time (pool of {self._settings.pool_size_max})"
                    ) from error
            else:
                with self._lock:
                    self._lent += 1
                connection.deadline = deadline
                connection.replies = 0
                return connection

    def _give_back(self, connection: BoundedConnection) -> None:
        # The pool would wait for a rollback without any deadline.
        if connection.pgconn.transaction_status != TransactionStatus.IDLE:
            connection.close()
        connection.deadline = None
        with self._lock:
            self._lent -= 1
        self._pool.putconn(connection)

    def _expired(self, allowed_ms: float) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"PostgreSQL at {self._settings.dsn_masked} did not answer within {allowed_ms:.0f} ms; "
            "the connection was closed"
        )

    def _configure(self, connection: BoundedConnection) -> None:
        connection.deadline = time.monotonic() + self._settings.connect_timeout_ms / 1000.0
        try:
            self._configure_session(connection)
        except psycopg.Error as error:
            self._note(error)
            raise
        connection.deadline = None

    def _note(self, error: psycopg.Error) -> None:
        with self._lock:
            self._failure, self._failed_at = error, time.monotonic()

    def _recording_class(self) -> type[BoundedConnection]:
        note = self._note

        class Recording(BoundedConnection):
            """Tells the pool why connecting failed, which psycopg_pool keeps to its log."""

            @classmethod
            def connect(cls, *args: Any, **options: Any) -> Any:
                try:
                    return super().connect(*args, **options)
                except psycopg.Error as error:
                    note(error)
                    raise

        return Recording


def _connect_options(settings: PostgresSettings) -> dict[str, Any]:
    return {
        # libpq counts in seconds.
        "connect_timeout": max(2, math.ceil(settings.connect_timeout_ms / 1000)),
        "application_name": "shadow-cutover",
        "client_encoding": "UTF8",
    }
