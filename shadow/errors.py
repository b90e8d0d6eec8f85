"""The router's own leaves of the one error tree (:mod:`vectorstore.errors`).

::

    VectorStoreError
    ├── CutoverRefused            a change of phase was asked for that may not happen now
    │   ├── GateRefused           the evidence does not allow it, or there is not enough of it
    │   └── RouteConflict         somebody else changed the route first
    ├── JournalGap                the entries asked for were truncated
    ├── JournalSealed             the migration is final: the journal takes no more entries
    ├── PoisonEntry               one entry cannot be applied; its store's applier has stopped
    ├── RestoreRefused            a backup or snapshot does not fit what is there
    ├── StoreDetached             a store was let go of and needs a backfill
    ├── ConfigurationError
    │   └── ForeignHost           the journal belongs to another machine
    ├── StoreCorrupt
    │   └── ForeignIncarnation    a store, snapshot or process follows another journal's history
    └── StoreUnavailable
        └── JournalUnavailable    the write was not acknowledged: disk full, I/O error, journal closed
            ├── JournalBusy       other processes held the write lock for too long
            └── JournalFull       the journal reached its size limit
"""

from __future__ import annotations

from vectorstore.errors import (
    ConfigurationError,
    StoreCorrupt,
    StoreUnavailable,
    VectorStoreError,
)

__all__ = [
    "CutoverRefused",
    "ForeignHost",
    "ForeignIncarnation",
    "GateRefused",
    "JournalBusy",
    "JournalFull",
    "JournalGap",
    "JournalSealed",
    "JournalUnavailable",
    "PoisonEntry",
    "RestoreRefused",
    "RouteConflict",
    "StoreDetached",
]


class CutoverRefused(VectorStoreError):
    """A change of phase was asked for that may not happen now; the route did not change."""


class GateRefused(CutoverRefused):
    """The gate does not say pass. ``holds``: the evidence says hold, and is not merely not enough."""

    def __init__(self, message: str, *, holds: bool) -> None:
        super().__init__(message)
        self.holds = holds


class RouteConflict(CutoverRefused):
    """The route's version was not the expected one: somebody else changed it first."""


class JournalGap(VectorStoreError):
    """The entries asked for were truncated; the store that asked must reload from a snapshot."""


class JournalSealed(VectorStoreError):
    """The migration is final and the journal takes no more entries; PostgreSQL takes writes itself."""


class PoisonEntry(VectorStoreError):
    """One journal entry cannot be applied; the applier of that store has stopped before it."""


class RestoreRefused(VectorStoreError):
    """A backup or snapshot does not fit what is there; nothing was applied."""


class StoreDetached(VectorStoreError):
    """A store fell too far behind and was let go of; it needs a backfill."""


class ForeignHost(ConfigurationError):
    """The journal belongs to another machine; nothing was opened."""


class ForeignIncarnation(StoreCorrupt):
    """A store, snapshot or process follows the history of another journal; nothing was applied."""


class JournalUnavailable(StoreUnavailable):
    """The journal could not do its work (disk full, I/O error, closed); nothing was acknowledged."""


class JournalBusy(JournalUnavailable):
    """Other threads or processes held the journal's write lock for longer than allowed."""


class JournalFull(JournalUnavailable):
    """The journal reached its own size limit: a lagging store must catch up or be detached.

    ``needed_bytes``: what the batch would have taken.
    """

    def __init__(self, message: str, *, needed_bytes: int = 0) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes
