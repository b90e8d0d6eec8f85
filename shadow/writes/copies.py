"""Which copy PostgreSQL holds: what a verify found of one says nothing of another.

A copy is a table of a server, the journal that it follows, and the load that filled it. The load's id is
a file of the state directory, so that the gate need not ask the server.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from shadow.config import PostgresqlSettings
from vectorstore.durable import sync_directory, write_durably
from vectorstore.errors import ConfigurationError

__all__ = ["begin_copy", "copy_of"]

_LOAD = "load.id"
# What tells one server's tables from another's; not who asks, whose password may change.
_PLACE = ("service", "host", "hostaddr", "port", "dbname", "options")


def begin_copy(directory: Path) -> None:
    """Give the load that is open an id of its own, on the disk when this returns.

    To be called while the table says that it is loading, and before it says that it follows: then
    nobody can take what is known of the former copy for knowledge of this one.
    """
    aside = directory / f"{_LOAD}.new"
    write_durably(aside, uuid.uuid4().hex.encode())
    aside.rename(directory / _LOAD)
    sync_directory(directory)


def copy_of(directory: Path, incarnation: str, settings: PostgresqlSettings) -> str:
    """The copy of the journal ``incarnation`` that the table of these settings holds, in words."""
    try:
        load = (directory / _LOAD).read_text(encoding="ascii")
    except FileNotFoundError:
        load = "(none)"
    return (
        f"table {settings.table} of {_place(settings.dsn.get_secret_value())}, "
        f"journal {incarnation}, load {load}"
    )


def _place(dsn: str) -> str:
    if "=" not in dsn and "://" not in dsn:
        # The packaged server.
        return dsn
    from psycopg import conninfo

    from vectorstore.postgres.dsn import check_dsn

    try:
        found = conninfo.conninfo_to_dict(check_dsn(dsn))
    except ConfigurationError:
        # Nothing is opened by it, as whoever tries is told; there is no copy to know of.
        return "(unreadable)"
    return " ".join(f"{key}={found[key]}" for key in _PLACE if key in found)
