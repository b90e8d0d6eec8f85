"""Writes after finalize: PostgreSQL is alone, and its own transaction is the acknowledgement."""

from __future__ import annotations

import time
from collections.abc import Sequence

from shadow.errors import JournalUnavailable
from shadow.writes.journal import Journal
from shadow.writes.postgresql_follower import PostgresqlLink
from vectorstore.errors import Unsupported
from vectorstore.types import Record

__all__ = ["OwnWrites"]

# How long a write waits for a finalize that has sealed the journal.
FINALIZE_WAIT_S_MAX = 10.0


class OwnWrites:
    """Writes to PostgreSQL that come from no journal."""

    def __init__(self, journal: Journal, link: PostgresqlLink, *, pause_s: float) -> None:
        self._journal = journal
        self._link = link
        self._pause_s = pause_s

    def write(self, entries: Sequence[tuple[str, Record | None]]) -> int:
        """Upsert the records, or delete the ids if there are none; the seq of the last change.

        Between the seal on the journal and the table's own writes a finalize brings the table level; a
        write that comes then waits for it. Raises JournalUnavailable, with nothing written, if that
        takes too long or was given up.
        """
        written = [record for _, record in entries if record is not None]
        deadline = time.monotonic() + FINALIZE_WAIT_S_MAX
        while True:
            store = self._link.open()
            try:
                if written:
                    return store.upsert(written)
                return store.delete([name for name, _ in entries])
            except Unsupported as error:
                if not self._journal.sealed():
                    raise JournalUnavailable(
                        "a finalize was given up while this write waited for it; nothing was written: "
                        "retry"
                    ) from error
                if time.monotonic() > deadline:
                    raise JournalUnavailable(
                        "the migration is being finalized and PostgreSQL does not take writes of its "
                        f"own yet ({error}); nothing was written: retry"
                    ) from error
            time.sleep(self._pause_s)
