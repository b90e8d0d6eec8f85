"""Comparisons kept and counted, shared by every process of a machine.

A SQLite file beside the journal. It is evidence, not data: losing the last moments in a power cut can
only delay a verdict, so it is written with ``synchronous=NORMAL`` and never on a reader's path.

Evidence belongs to an **era**: anything that changes answers opens a new one with its own counts. It
is kept by the store it judges, and live evidence is kept apart from replayed.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from shadow.change_alarms import watch
from shadow.core.phases import POSTGRESQL
from shadow.evidence_view import (
    LIVE,
    REPLAY,
    Era,
    EvidenceView,
    Verification,
    distinct_queries,
)
from shadow.latency_buckets import latency_bucket
from vectorstore.errors import ConfigurationError

__all__ = ["EvidenceBook", "Observed"]

QUERIES_COUNTED_MAX = 10_000
WORST_KEPT_MAX = 200


@dataclass(frozen=True, slots=True)
class Observed:
    """What one mirrored query showed of the store that it judges.

    ``figures``: name to value in [0, 1]. ``watched``: PostgreSQL's own, in whichever role it was, for
    the change detector: a fault of FAISS is no reason to go back to it. ``latencies_ms``: store to
    latency, infinite for a timeout. ``exact``: (store, figure) to its recall against an exact scan.
    """

    judged: str
    figures: Mapping[str, float]
    strata: tuple[str, ...]
    latencies_ms: Mapping[str, float]
    query_digest: bytes
    at: float
    causes: Mapping[str, int] = field(default_factory=dict)
    watched: Mapping[str, float] = field(default_factory=dict)
    exact: Mapping[tuple[str, str], float] = field(default_factory=dict)
    detail: Mapping[str, Any] | None = None


class EvidenceBook(EvidenceView):
    """Adds to the evidence, in batches of one transaction."""

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # On a full disk SQLite has rolled back by itself.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def open_era(self, fingerprint: str, settings: Mapping[str, Any], *, why: str) -> Era:
        """The current era if its fingerprint is this one, else a new era."""
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT era, fingerprint FROM eras ORDER BY era DESC LIMIT 1"
            ).fetchone()
            if row is None or row[1] != fingerprint:
                connection.execute(
                    "INSERT INTO eras (fingerprint, opened_at, why, settings) VALUES (?, ?, ?, ?)",
                    (fingerprint, self._clock(), why, json.dumps(settings, sort_keys=True)),
                )
        era = self.era()
        assert era is not None
        return era

    def begin_era(self, *, why: str) -> Era:
        """A new era under the settings of the present one: its counts and alarms start anew.

        Raises ConfigurationError if there is no era yet.
        """
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT fingerprint, settings FROM eras ORDER BY era DESC LIMIT 1"
            ).fetchone()
            if row is None:
                raise ConfigurationError("there is no evidence yet, so there is no era to end")
            connection.execute(
                "INSERT INTO eras (fingerprint, opened_at, why, settings) VALUES (?, ?, ?, ?)",
                (row[0], self._clock(), why, row[1]),
            )
        era = self.era()
        assert era is not None
        return era

    def tally(self, era: int, judged: str, **more: int) -> None:
        """Add to this process's tally: offered, sampled, dropped, issued, resolved.

        A process issues one batch at a time: what it issued before and has not resolved will never be.
        """
        with self._transaction() as connection:
            self._tally(connection, era, judged, more)

    def _tally(
        self, connection: sqlite3.Connection, era: int, judged: str, more: Mapping[str, int]
    ) -> None:
        values = [
            more.get(name, 0) for name in ("offered", "sampled", "dropped", "issued", "resolved")
        ]
        connection.execute(
            "INSERT INTO tallies (process, era, judged, offered, sampled, dropped, issued, resolved,"
            " under_way, seen_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " offered = offered + excluded.offered, sampled = sampled + excluded.sampled,"
            " dropped = dropped + excluded.dropped, issued = issued + excluded.issued,"
            " resolved = resolved + excluded.resolved, under_way = excluded.under_way,"
            " seen_at = excluded.seen_at",
            (self._process, era, judged, *values, more.get("issued", 0), self._clock()),
        )

    def record(
        self,
        era: int,
        batch: Sequence[Observed],
        *,
        source: str = LIVE,
        watch_means: Mapping[str, float],
    ) -> list[str]:
        """Count a batch in one transaction; return the alarms that it raised.

        ``watch_means``: for each watched figure, the mean below which the change detector looks.
        """
        counts: Counter[tuple[str, str, str, float]] = Counter()
        latencies: Counter[tuple[str, int]] = Counter()
        causes: Counter[tuple[str, str]] = Counter()
        resolved: Counter[str] = Counter()
        for one in batch:
            resolved[one.judged] += 1
            for figure, value in one.figures.items():
                for stratum in one.strata:
                    counts[one.judged, figure, stratum, value] += 1
            for (store, figure), value in one.exact.items():
                for stratum in one.strata:
                    counts[store, figure, stratum, value] += 1
            for store, ms in one.latencies_ms.items():
                latencies[store, latency_bucket(ms)] += 1
            for cause, n in one.causes.items():
                causes[one.judged, cause] += n
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO counts VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET n = n + excluded.n",
                [(era, source, *key, n) for key, n in counts.items()],
            )
            connection.executemany(
                "INSERT INTO latencies VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET n = n + excluded.n",
                [(era, source, *key, n) for key, n in latencies.items()],
            )
            connection.executemany(
                "INSERT INTO causes VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET n = n + excluded.n",
                [(era, source, *key, n) for key, n in causes.items()],
            )
            self._record_details(connection, era, source, batch)
            if source != LIVE:
                # What was replayed says nothing about the traffic that the change detectors watch.
                return []
            for judged, n in resolved.items():
                self._tally(connection, era, judged, {"resolved": n})
            return watch(
                connection,
                era,
                [one.watched for one in batch],
                means=watch_means,
                at=self._clock(),
            )

    def _record_details(
        self, connection: sqlite3.Connection, era: int, source: str, batch: Sequence[Observed]
    ) -> None:
        if distinct_queries(connection, era, source) < QUERIES_COUNTED_MAX:
            connection.executemany(
                "INSERT OR IGNORE INTO queries VALUES (?, ?, ?)",
                # What the gate asks for is how many judged PostgreSQL, not FAISS after a flip.
                [
                    (era, source, one.query_digest)
                    for one in batch
                    if "recall" in one.figures and one.judged == POSTGRESQL
                ],
            )
        connection.executemany(
            "INSERT INTO minutes VALUES (?, ?, ?, ?, 1, ?) ON CONFLICT DO UPDATE SET"
            " n = n + 1, recall_sum = recall_sum + excluded.recall_sum",
            [
                (era, source, one.judged, int(one.at // 60), one.figures["recall"])
                for one in batch
                if "recall" in one.figures
            ],
        )
        worst = [one for one in batch if one.detail is not None]
        for one in worst:
            connection.execute(
                "INSERT INTO worst (era, source, judged, at, recall, detail) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    era,
                    source,
                    one.judged,
                    one.at,
                    one.figures.get("recall", 0.0),
                    json.dumps(one.detail),
                ),
            )
        if worst:
            connection.execute(
                "DELETE FROM worst WHERE rank IN (SELECT rank FROM worst WHERE era = ? AND source = ?"
                " ORDER BY recall, at DESC LIMIT -1 OFFSET ?)",
                (era, source, WORST_KEPT_MAX),
            )

    def clear_watches(self, era: int) -> None:
        """Forget the change detectors: after a rollback or a flip they start anew."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM watches WHERE era = ?", (era,))

    def clear_replay(self, era: int) -> None:
        """Forget what was replayed in this era: the same queries twice are no more evidence."""
        with self._transaction() as connection:
            for table in ("counts", "latencies", "causes", "minutes", "queries", "worst"):
                connection.execute(
                    f"DELETE FROM {table} WHERE era = ? AND source = ?",  # noqa: S608 - a constant
                    (era, REPLAY),
                )

    def record_verification(self, found: Verification) -> None:
        """Keep what a verify found."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO verifications (at, state, rows, differing, method, detail, copy)"
                " VALUES (:at, :state, :rows, :differing, :method, :detail, :copy)",
                asdict(found),
            )
