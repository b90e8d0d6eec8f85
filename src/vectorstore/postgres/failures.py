"""What a driver's error means in the project's own error tree."""

from __future__ import annotations

import psycopg
from psycopg import errors

from vectorstore.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InvalidInput,
    StoreCorrupt,
    StoreUnavailable,
    VectorStoreError,
)
from vectorstore.postgres.dsn import scrub
from vectorstore.postgres.settings import PostgresSettings

__all__ = ["connect_failure", "translated"]

_AUTHENTICATION = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "authentication failed",
    "Peer authentication",
)
_ADDRESS = ("does not exist", "certificate", "SSL", "invalid connection option")


def connect_failure(error: psycopg.Error, settings: PostgresSettings) -> VectorStoreError:
    """A failure to connect: wrong credentials and names are configuration, the rest may pass."""
    message = scrub(str(error), settings.dsn)
    where = settings.dsn_masked
    if any(sign in message for sign in _AUTHENTICATION):
        return ConfigurationError(
            f"PostgreSQL refused the login at {where}: {message}. Check user and password"
        )
    if any(sign in message for sign in _ADDRESS):
        return ConfigurationError(f"PostgreSQL cannot be used at {where}: {message}")
    if isinstance(error, errors.ConnectionTimeout):
        return StoreUnavailable(
            f"PostgreSQL at {where} did not answer within {settings.connect_timeout_ms} ms: "
            "check host, port and firewall"
        )
    return StoreUnavailable(f"PostgreSQL at {where} cannot be reached: {message}")


def translated(
    error: psycopg.Error, settings: PostgresSettings, *, writing: bool = False
) -> VectorStoreError:
    """The error to raise instead of ``error``, to be chained to it.

    ``writing``: a value that is refused is the fault of what was to be written. In a question, which is
    checked before it is sent, it is the fault of what the table holds.
    """
    message = scrub(str(error), settings.dsn)
    where = f"table {settings.table} at {settings.dsn_masked}"
    match error:
        case errors.QueryCanceled():
            return DeadlineExceeded(
                f"PostgreSQL did not finish in the time allowed ({where}): {message}"
            )
        case errors.ReadOnlySqlTransaction():
            return StoreUnavailable(
                f"PostgreSQL takes no writes ({where}): {message}. It is a standby, or role, database or "
                "server have default_transaction_read_only, as when a disk is full"
            )
        case errors.InsufficientPrivilege():
            return ConfigurationError(
                f"the PostgreSQL role may not do this ({where}): {message}. Grant it, or let "
                "the table's owner do it"
            )
        case errors.InvalidSchemaName():
            return ConfigurationError(
                f"the PostgreSQL role has no permission to use a schema ({where}): {message}. Grant it "
                "USAGE and CREATE on one, or run `shadow init`"
            )
        case errors.UndefinedTable() | errors.UndefinedColumn() | errors.UndefinedFunction():
            return ConfigurationError(
                f"the tables are not as this program made them ({where}): {message}. Were they "
                "dropped or altered? Open the store anew, or give another table name"
            )
        case errors.DataCorrupted() | errors.IndexCorrupted():
            return StoreCorrupt(f"PostgreSQL reports damaged data ({where}): {message}")
        case psycopg.DataError() if writing:
            return InvalidInput(f"PostgreSQL refused a value ({where}): {message}")
        case psycopg.DataError():
            return StoreCorrupt(
                f"the table holds what this program did not write ({where}): {message}. Was it altered? "
                "Fill it anew by `shadow backfill`, into another table if its columns were changed"
            )
        case psycopg.ProgrammingError() | psycopg.NotSupportedError():
            return VectorStoreError(f"PostgreSQL refused a statement ({where}): {message}")
        case _:
            return StoreUnavailable(f"PostgreSQL failed ({where}): {message}")
