"""What the doctor looks at: both stores, sample queries, and the migration around them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from shadow.core.phases import POSTGRESQL, Phase
from vectorstore.errors import VectorStoreError
from vectorstore.filters import Filter
from vectorstore.types import Query, Record

if TYPE_CHECKING:
    from shadow.opening import Migration
    from vectorstore.faiss.store import FaissStore
    from vectorstore.postgres.store import PostgresStore

__all__ = ["Running", "Subject", "subject_of"]

QUERIES = 24
ROWS_SAMPLED = 2_000
FILTER_VALUES_MAX = 8
K = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The migration as it runs, as plain values; see :mod:`shadow.status` for their meaning."""

    phase: Phase
    primary: str
    rehearsed: bool
    standing_state: str
    standing_trouble: str | None
    lag_entries: int
    lag_oldest_ms: float | None
    staleness_ms_max: float
    sampled: int
    dropped: int
    drops_share_max: float
    cpu_share_max: float
    source_changed: tuple[str, ...]
    source_elsewhere: str | None
    source_pickles: tuple[str, ...]
    snapshots_damaged: tuple[str, ...]


class Subject:
    """A live pair of stores. ``postgresql`` is ``None`` if it cannot be reached, and ``why`` then says so."""

    def __init__(
        self,
        *,
        faiss: FaissStore,
        postgresql: PostgresStore | None,
        recall_min: float,
        running: Running | None = None,
        why: str = "",
    ) -> None:
        self.faiss = faiss
        self.postgresql = postgresql
        self.recall_min = recall_min
        self.running = running
        self.why = why

    @cached_property
    def rows(self) -> list[Record]:
        """Records to make sample queries from, spread over the store."""
        total = self.faiss.count()
        step = max(1, total // ROWS_SAMPLED)
        if step == 1:
            return self.faiss.records(0, total)
        return [self.faiss.records(at, at + 1)[0] for at in range(0, total, step)][:ROWS_SAMPLED]

    @cached_property
    def queries(self) -> list[Query]:
        """Points between two records each: near the data, and never a stored vector itself."""
        draw = np.random.default_rng(7)
        if len(self.rows) < 2:
            return []
        found = []
        for _ in range(QUERIES):
            first, second = draw.choice(len(self.rows), size=2, replace=False)
            mixed = 0.7 * self.rows[first].embedding + 0.3 * self.rows[second].embedding
            if np.any(mixed):
                found.append(Query(mixed, k=min(K, len(self.rows))))
        return found

    @cached_property
    def filters(self) -> list[Filter]:
        """Filters that some rows match, made of what metadata holds; the rarest values first."""
        seen: dict[tuple[str, Any], int] = {}
        for row in self.rows:
            for key, value in row.metadata.items():
                if isinstance(value, str | int | float | bool) and "\0" not in f"{key}{value}":
                    seen[key, value] = seen.get((key, value), 0) + 1
        several = sorted((n, key, str(value), value) for (key, value), n in seen.items() if n > 1)
        chosen = [Filter.of({key: value}) for _, key, _, value in several[:FILTER_VALUES_MAX]]
        return [one for one in chosen if one is not None]


def subject_of(migration: Migration) -> Subject:
    """The pair of a migration; works with PostgreSQL away."""
    from shadow.doctor.files import damaged_snapshots, pickles_of
    from shadow.intake import ORIGIN, changed_sources, elsewhere

    faiss = migration.load_faiss().store
    postgresql: PostgresStore | None = None
    why = ""
    try:
        postgresql = migration.link.open()
        standing = migration.postgresql.look()
    except VectorStoreError as error:
        why = str(error)
        migration.postgresql.lost(why)
        standing = migration.postgresql.standing
    era = migration.evidence.era()
    number = 0 if era is None else era.number
    tally = migration.evidence.total(number, POSTGRESQL)
    head = migration.lag.refresh()
    settings = migration.settings
    directory = settings.state_directory.absolute()
    # After the end FAISS is archived, whatever is there.
    moved = None if migration.journal.sealed() else elsewhere(settings.faiss.path, directory)
    route = migration.routes.current()
    return Subject(
        faiss=faiss,
        postgresql=postgresql,
        recall_min=settings.gate.recall_min,
        why=why,
        running=Running(
            phase=route.phase,
            primary=route.primary,
            rehearsed=migration.routes.rehearsed(era=number),
            standing_state=standing.state,
            standing_trouble=standing.halted or standing.error,
            lag_entries=max(0, head - standing.applied_seq),
            lag_oldest_ms=migration.lag.oldest_unapplied_ms(standing.applied_seq),
            staleness_ms_max=settings.router.staleness_ms_max,
            sampled=tally.sampled,
            dropped=tally.dropped,
            drops_share_max=settings.gate.drops_share_max,
            cpu_share_max=settings.mirror.cpu_share_max,
            # Files of another index are not changed ones.
            source_changed=()
            if moved
            else changed_sources(settings.faiss.path, directory / ORIGIN),
            source_elsewhere=moved,
            source_pickles=pickles_of(settings.faiss.path),
            snapshots_damaged=damaged_snapshots(directory / "snapshots"),
        ),
    )
