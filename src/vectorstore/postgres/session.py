"""Session settings of pooled connections: set once, changed in the same round trip as a query."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress

from psycopg import errors

from vectorstore.postgres.connection import BoundedConnection
from vectorstore.postgres.schema import ServerFacts
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.postgres.wire import register_vectors

__all__ = [
    "pending_settings",
    "send_settings",
    "server_timeout_ms",
    "start_long_session",
    "start_session",
]


def start_long_session(connection: BoundedConnection) -> None:
    """Make a connection ready for work that takes as long as it takes, and ends with its client."""
    commands = [
        *_own_defaults(connection),
        "SET statement_timeout = 0",
        "SET idle_in_transaction_session_timeout = 0",
    ]
    connection.execute("; ".join(commands).encode())
    with suppress(errors.InvalidParameterValue, errors.UndefinedObject):
        # Else the build of an index whose process was killed goes on to its end, and whoever wants to
        # build it again is told until then that another process does. Not every server or system can tell.
        connection.execute(b"SET client_connection_check_interval = '1s'")


def start_session(
    connection: BoundedConnection, settings: PostgresSettings, facts: ServerFacts
) -> None:
    """Make a new connection ready: types, and settings that answers and durability depend on.

    They are sent as SET, not as startup options, which some poolers refuse.
    """
    timeout_ms = server_timeout_ms(settings.statement_timeout_ms)
    commands = [
        *_own_defaults(connection),
        "SET synchronous_commit = on",
        "SET jit = off",
        # A query touches few pages of an HNSW graph, and they are cached: with the default of 4 the
        # planner would rather read the whole table.
        "SET random_page_cost = 1.1",
        # A frozen process must not hold the cursor's lock for ever.
        "SET idle_in_transaction_session_timeout = '60s'",
        f"SET statement_timeout = {timeout_ms:d}",
        f"SET hnsw.ef_search = {settings.ef_search:d}",
    ]
    if facts.iterates:
        commands.append(f"SET hnsw.iterative_scan = {settings.iterative_scan}")
    connection.execute("; ".join(commands).encode())
    connection.session = {
        "statement_timeout": timeout_ms,
        "hnsw.ef_search": settings.ef_search,
        "enable_seqscan": 1,
    }
    vector = register_vectors(connection)
    connection.vector_oid, connection.vector_array_oid = vector.oid, vector.array_oid


def _own_defaults(connection: BoundedConnection) -> list[str]:
    """What no session may inherit from its role or database: it would fail there what is right here.

    Writers wait for each other's locks and then read what the other one committed; how long they may wait
    is for the caller's deadline to say.
    """
    commands = ["SET default_transaction_isolation = 'read committed'", "SET lock_timeout = 0"]
    if connection.info.server_version >= 170_000:
        commands.append("SET transaction_timeout = 0")
    return commands


def server_timeout_ms(allowed_ms: float) -> int:
    """The statement timeout to set for a caller that allows so much: 5 to 11 % less.

    Rounded down to five significant bits, so that deadlines that differ a little share a setting.
    A little less than the caller allows, so that the server's word arrives in time and the connection
    lives on; the client's own deadline is for servers that say nothing.
    """
    whole = max(1, int(0.95 * allowed_ms))
    shift = max(0, whole.bit_length() - 5)
    return whole >> shift << shift


def pending_settings(connection: BoundedConnection, settings: Mapping[str, int]) -> dict[str, int]:
    """Which of ``settings`` and the statement timeout differ from what the session has."""
    session = connection.session
    changes = {name: value for name, value in settings.items() if session.get(name) != value}
    if connection.deadline is not None:
        timeout_ms = server_timeout_ms((connection.deadline - time.monotonic()) * 1000.0)
        if session.get("statement_timeout") != timeout_ms:
            changes["statement_timeout"] = timeout_ms
    return changes


def send_settings(connection: BoundedConnection, changes: Mapping[str, int]) -> None:
    """Send SET commands, in the caller's pipeline if there is one.

    The session's memory is cleared first: if the pipeline fails, the server takes them back.
    """
    for name, value in changes.items():
        connection.session.pop(name, None)
        connection.execute(f"SET {name} = {value:d}".encode())
