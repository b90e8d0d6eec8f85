"""Whose copies a table may hold: whoever fills it replaces all of its rows.

A restore begins a new history, and until the table is filled anew it follows the one that was left. So the
histories that a state directory has left are kept in a file of it, whatever becomes of its backups.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import orjson

from shadow.events import EventLog
from shadow.writes.journal import Journal
from vectorstore.durable import write_durably
from vectorstore.postgres.cursor import require_own_rows
from vectorstore.postgres.store import PostgresStore

__all__ = ["keep_histories", "left_histories", "own_histories", "require_own_table"]

_HISTORIES = "histories.json"

log = EventLog()


def left_histories(directory: Path) -> dict[str, bool]:
    """The incarnations that were left here, and whether each had been finalized.

    One that was finalized has a table that takes writes of its own. A file that cannot be read counts as
    none: then less is allowed.
    """
    path = directory / _HISTORIES
    try:
        return dict(orjson.loads(path.read_bytes()))
    except FileNotFoundError:
        return {}
    except (OSError, TypeError, ValueError) as error:
        log.error("histories_damaged", path=str(path), why=str(error))
        return {}


def keep_histories(directory: Path, histories: Mapping[str, bool]) -> None:
    """Write down what :func:`left_histories` tells, synced, into a folder that nobody else uses yet."""
    write_durably(directory / _HISTORIES, orjson.dumps(histories))


def own_histories(directory: Path, journal: Journal) -> frozenset[str]:
    """The journal's incarnation and those that it was restored from."""
    return frozenset({journal.incarnation, *left_histories(directory)})


def require_own_table(directory: Path, journal: Journal, store: PostgresStore) -> None:
    """Raise ConfigurationError if the rows of the table are not copies of this journal's.

    A look before any work is done: what counts is found again where the table is emptied.
    """
    require_own_rows(
        store.cursor(),
        store.settings.table,
        incarnation=journal.incarnation,
        own=own_histories(directory, journal),
    )
