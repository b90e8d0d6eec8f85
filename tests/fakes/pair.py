"""A FAISS and a PostgreSQL store that follow one journal, with the parts that judge them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from shadow.config import GateSettings, MirrorSettings
from shadow.core.phases import Phase, Route
from shadow.evidence import EvidenceBook, Observed
from shadow.exact_scans import ExactStore, Stores
from shadow.judging import QueryJudge
from shadow.lag import LagClock
from shadow.observation import Observation
from shadow.verdict import VerdictDesk
from shadow.writes.journal import Journal
from vectorstore.faiss.store import FaissStore
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Answer, Metric, Query, Record, Vector

__all__ = ["DIMENSION", "SHADOW_ROUTE", "Forgetful", "Pair", "cluster_records", "pair_of"]

DIMENSION = 32
SHADOW_ROUTE = Route(1, Phase.SHADOW, 0.0, 1.0, 0, None)
FLIPPED_ROUTE = Route(2, Phase.POSTGRESQL, 0.0, 1.0, 0, None)
WATCHED = {"recall": 0.95, "success": 0.95, "latency": 0.95}


class Forgetful:
    """A real store whose search, unlike its exact scan, misses given rows or fails for given queries."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.forgets: dict[bytes, str] = {}
        self.fails: dict[bytes, Exception] = {}
        self.asked = 0
        self.before_exact: list[Callable[[], object]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def search_exact(self, query: Query) -> Answer:
        """The store's exact answer, after what was to happen just before it."""
        while self.before_exact:
            self.before_exact.pop()()
        answer: Answer = self._store.search_exact(query)
        return answer

    def search(self, query: Query) -> Answer:
        """The store's answer, with the forgotten row replaced by the next one."""
        self.asked += 1
        key = np.asarray(query.vector, dtype=np.float32).tobytes()
        if key in self.fails:
            raise self.fails[key]
        answer: Answer = self._store.search(replace(query, k=query.k + 1))
        kept = [hit for hit in answer.hits if hit.id != self.forgets.get(key)][: query.k]
        return answer._replace(hits=kept)


@dataclass
class Pair:
    """Both stores, level with the journal, and the evidence on them in one era."""

    journal: Journal
    faiss: Forgetful
    postgresql: Forgetful
    book: EvidenceBook
    gate: GateSettings
    mirror: MirrorSettings
    draw: Callable[[], float] = field(default=lambda: 0.5)

    def write(self, entries: Sequence[tuple[str, Record | None]]) -> int:
        """Append to the journal; the stores follow when told."""
        return self.journal.append(entries).last_seq

    def follow(self, *, faiss: bool = True, postgresql: bool = True) -> None:
        """Bring stores to the head of the journal."""
        for store, wanted in ((self.faiss, faiss), (self.postgresql, postgresql)):
            if wanted:
                store.apply(self.journal.read(store.applied_seq(), 10_000))

    def judge(self, **options: Any) -> QueryJudge:
        """A judge as the mirror has it; without a limit on exact scans, unless one is given."""
        stores: dict[str, Callable[[], ExactStore]] = {
            "faiss": lambda: self.faiss,
            "postgresql": lambda: self.postgresql,
        }
        return QueryJudge(
            stores=Stores(**stores),
            journal=self.journal,
            metric=Metric.COSINE,
            mirror=self.mirror,
            gate=self.gate,
            draw=self.draw,
            **{"adjudications_per_s_max": math.inf, **options},
        )

    def observe(self, query: Query, *, flipped: bool = False) -> Observation:
        """What a reader of FAISS, or of PostgreSQL after the flip, leaves for the mirror."""
        route, store = (FLIPPED_ROUTE, self.postgresql) if flipped else (SHADOW_ROUTE, self.faiss)
        answer = store.search(query)
        return Observation(
            route, query, answer.store, tuple(answer.hits), 0.05, answer.applied_seq, time.time()
        )

    def era(self, settings: Mapping[str, Any] | None = None) -> int:
        """The era of these settings."""
        return self.book.open_era(repr(settings), settings or {}, why="a test").number

    def record(self, observed: Sequence[Observed], *, times: int = 1) -> None:
        """Count what was observed as live evidence, with its tally."""
        era = self.era()
        for one in observed:
            n = {"offered": times, "sampled": times, "issued": times}
            self.book.tally(era, one.judged, **n)
            self.book.record(era, [one] * times, watch_means=WATCHED)

    def desk(self) -> VerdictDesk:
        """The gate's desk over this evidence."""
        return VerdictDesk(
            evidence=self.book,
            lag=LagClock(self.journal, head_age_ms_max=250.0),
            postgresql_seq=self.postgresql.applied_seq,
            copy=lambda: "",
            settings=self.gate,
            staleness_ms_max=1_000.0,
        )

    def close(self) -> None:
        """Close what was opened."""
        self.book.close()
        self.journal.close()


def pair_of(
    records: Sequence[Record],
    *,
    directory: Path,
    postgresql: PostgresStore,
    kind: str = "flat",
    gate: Mapping[str, Any] | None = None,
    mirror: Mapping[str, Any] | None = None,
) -> Pair:
    """Both stores with these records, through the journal."""
    journal = Journal.open(directory)
    journal.bind(postgresql.dimension, postgresql.metric)
    faiss = FaissStore.empty(dimension=postgresql.dimension, metric=postgresql.metric, kind=kind)
    postgresql.bind(journal.incarnation)
    with_cursor = "UPDATE {} SET state = 'following'"
    postgresql.transact(
        lambda connection: connection.execute(
            with_cursor.format(postgresql.names.cursor.as_string(None)).encode()
        )
    )
    pair = Pair(
        journal,
        Forgetful(faiss),
        Forgetful(postgresql),
        EvidenceBook(directory),
        GateSettings.model_validate(
            {
                "duration_s_min": 0.0,
                "distinct_queries_min": 20,
                # What this machine happens to take for a query is no part of a test.
                "latency_budget_ms": 60_000.0,
                **(gate or {}),
            }
        ),
        MirrorSettings.model_validate(
            {"audit_rate": 0.0, "timeout_ms": 30_000.0, **(mirror or {})}
        ),
    )
    for start in range(0, len(records), 5_000):
        pair.write([(record.id, record) for record in records[start : start + 5_000]])
    pair.follow()
    return pair


def cluster_records(
    clusters: int, *, rows: int = 10, seed: int = 3, dimension: int = DIMENSION
) -> tuple[list[Record], list[Vector]]:
    """Well separated clusters of ``rows`` records each, and the queries at their centres."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(clusters, dimension)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    records = []
    for number, centre in enumerate(centres):
        for row in range(rows):
            vector = centre + draw.normal(scale=0.02, size=dimension).astype(np.float32)
            vector /= np.linalg.norm(vector)
            records.append(
                Record(
                    f"c{number:03d}-{row:02d}",
                    vector.astype(np.float32),
                    f"row {row} of cluster {number}",
                    {"cluster": number, "half": "even" if number % 2 == 0 else "odd"},
                )
            )
    return records, list(centres)
