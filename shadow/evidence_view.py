"""Evidence as it is read: counts, latencies, causes and the rest, over all processes."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from shadow.latency_buckets import bucket_ms

__all__ = [
    "AUDIT_RECALL",
    "EXACT_RECALL",
    "LIVE",
    "REPLAY",
    "Era",
    "EvidenceView",
    "Tally",
    "Verification",
    "distinct_queries",
    "end_to_end",
]

LIVE = "live"
REPLAY = "replay"

BUSY_TIMEOUT_S = 10.0
UNDER_WAY_S = 5.0
# Longer than the traffic of a small bot pauses by day, and far less than the time that the gate asks for.
SILENCE_S_MAX = 3_600.0
# Table, column and type of what was not in the first files.
COLUMNS_ADDED = (
    ("tallies", "under_way", "INTEGER NOT NULL DEFAULT 0"),
    ("verifications", "copy", "TEXT NOT NULL DEFAULT ''"),
)


def distinct_queries(connection: sqlite3.Connection, era: int, source: str) -> int:
    """How many different queries an era has seen, as a transaction of the caller's sees it."""
    found = connection.execute(
        "SELECT n FROM distinct_queries WHERE era = ? AND source = ?", (era, source)
    ).fetchone()
    return int(found[0]) if found else 0


def end_to_end(store: str) -> str:
    """Under which name the latencies of a store are kept with what the application spent before."""
    return f"{store} end to end"


EXACT_RECALL = "exact_recall"
"""A store's recall against the exact answer, over the divergent queries that were adjudicated."""
AUDIT_RECALL = "audit_recall"
"""The same over the audit sample, which says how good a store is and not only where they differ."""


@dataclass(frozen=True, slots=True)
class Era:
    """A stretch of evidence gathered under the same settings."""

    number: int
    fingerprint: str
    opened_at: float
    why: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tally:
    """How many queries were offered, sampled, dropped, resolved and lost, over all processes."""

    offered: int = 0
    sampled: int = 0
    dropped: int = 0
    resolved: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verify found: ``clean``, ``differs`` or ``could not check``; ``copy``: of which copy."""

    at: float
    state: str
    rows: int
    differing: int
    method: str
    detail: str
    copy: str = ""


class EvidenceView:
    """Reads the evidence of one state directory. Safe between threads and processes."""

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = directory / "evidence.db"
        self._clock = clock
        self._process = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        self._path.chmod(0o600)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        schema = (files("shadow") / "evidence_schema.sql").read_text(encoding="utf-8")
        with self._lock:
            self._connection.executescript(schema)
            self._add_columns()

    def _add_columns(self) -> None:
        """Give a file of an earlier version what its tables lack."""
        missing = [one for one in COLUMNS_ADDED if not self._has(*one[:2])]
        if not missing:
            return
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for table, column, kind in missing:
                # Another process may have done so meanwhile.
                if not self._has(table, column):
                    self._connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _has(self, table: str, column: str) -> bool:
        found = self._connection.execute(f"PRAGMA table_info({table})").fetchall()
        return column in [row[1] for row in found]

    def close(self) -> None:
        """Close the file; what was recorded stays."""
        with self._lock:
            self._connection.close()

    def _rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    def era(self) -> Era | None:
        """The era in force."""
        rows = self._rows("SELECT * FROM eras ORDER BY era DESC LIMIT 1")
        if not rows:
            return None
        number, fingerprint, opened_at, why, settings = rows[0]
        return Era(number, fingerprint, opened_at, why, json.loads(settings))

    def eras_count(self) -> int:
        """How many eras there have been: the promise of the gate is per era."""
        return int(self._rows("SELECT count(*) FROM eras")[0][0])

    def counts(
        self, era: int, judged: str, *, source: str = LIVE
    ) -> dict[tuple[str, str], dict[float, int]]:
        """(figure, stratum) to value to n."""
        found: dict[tuple[str, str], dict[float, int]] = {}
        for figure, stratum, value, n in self._rows(
            "SELECT figure, stratum, value, n FROM counts WHERE era = ? AND judged = ? AND source = ?",
            era,
            judged,
            source,
        ):
            found.setdefault((figure, stratum), {})[value] = n
        return found

    def total(self, era: int, judged: str) -> Tally:
        """The tally over all processes.

        The batch that a process has at hand is under way for ``UNDER_WAY_S``. After that it counts as
        lost, and so as missed: it may have died with its process. If it is finished later after all, it
        is counted as what it was. An earlier batch that was not finished failed, and is lost at once.
        """
        rows = self._rows(
            "SELECT coalesce(sum(offered), 0), coalesce(sum(sampled), 0), coalesce(sum(dropped), 0),"
            " coalesce(sum(resolved), 0),"
            # Whatever was sampled is dropped, resolved, under way or lost. The clock may be set back.
            " coalesce(sum(max(0, max(issued, sampled - dropped) - resolved"
            " - CASE WHEN abs(? - seen_at) <= ? THEN under_way ELSE 0 END)), 0)"
            " FROM tallies WHERE era = ? AND judged = ?",
            self._clock(),
            UNDER_WAY_S,
            era,
            judged,
        )
        return Tally(*rows[0])

    def causes(self, era: int, judged: str, *, source: str = LIVE) -> dict[str, int]:
        """Cause to how many hits were missed by it."""
        return dict(
            self._rows(
                "SELECT cause, n FROM causes WHERE era = ? AND judged = ? AND source = ? ORDER BY n DESC",
                era,
                judged,
                source,
            )
        )

    def latencies(self, era: int, store: str, *, source: str = LIVE) -> list[tuple[float, int]]:
        """(latency in ms, n) in rising order; infinite for timeouts."""
        rows = self._rows(
            "SELECT bucket, n FROM latencies WHERE era = ? AND store = ? AND source = ? ORDER BY bucket",
            era,
            store,
            source,
        )
        return [(bucket_ms(bucket), n) for bucket, n in rows]

    def minutes(
        self, era: int, judged: str, *, source: str = LIVE
    ) -> list[tuple[float, float, int]]:
        """(start of the minute, mean recall, n), the last day of them."""
        rows = self._rows(
            "SELECT minute * 60.0, recall_sum / n, n FROM minutes"
            " WHERE era = ? AND judged = ? AND source = ? ORDER BY minute DESC LIMIT 1440",
            era,
            judged,
            source,
        )
        return [(at, mean, n) for at, mean, n in reversed(rows)]

    def gathered_s(
        self, era: int, judged: str, *, until: float, enough_s: float, source: str = LIVE
    ) -> float:
        """For how long evidence was gathered until then, s; of more than ``enough_s`` at least that.

        A silence counts for ``SILENCE_S_MAX`` at most: the time by which a clock jumped was not spent.
        """
        rows = self._rows(
            "SELECT coalesce(sum(min(later - at, ?)), 0.0) FROM (SELECT minute * 60.0 AS at,"
            " lag(minute * 60.0, 1, ?) OVER (ORDER BY minute DESC) AS later FROM minutes"
            " WHERE era = ? AND judged = ? AND source = ? AND minute <= ?"
            " ORDER BY minute DESC LIMIT ?)",
            SILENCE_S_MAX,
            until,
            era,
            judged,
            source,
            int(until // 60),
            # Each of them is a minute more.
            int(enough_s // 60) + 2,
        )
        return float(rows[0][0])

    def distinct_queries(self, era: int, *, source: str = LIVE) -> int:
        """How many different queries were compared, counted up to a bound."""
        with self._lock:
            return distinct_queries(self._connection, era, source)

    def worst(
        self, era: int, judged: str, *, limit: int, source: str = LIVE
    ) -> list[dict[str, Any]]:
        """The comparisons with the least recall, worst first."""
        rows = self._rows(
            "SELECT detail FROM worst WHERE era = ? AND judged = ? AND source = ?"
            " ORDER BY recall, at DESC LIMIT ?",
            era,
            judged,
            source,
            limit,
        )
        return [json.loads(row[0]) for row in rows]

    def alarm(self, era: int) -> str | None:
        """The figure of PostgreSQL whose change detector has gone off."""
        rows = self._rows(
            "SELECT figure FROM watches WHERE era = ? AND alarm_at IS NOT NULL"
            " ORDER BY alarm_at LIMIT 1",
            era,
        )
        return str(rows[0][0]) if rows else None

    def verification(self, copy: str) -> Verification | None:
        """What the last verify of this copy found."""
        rows = self._rows(
            "SELECT at, state, rows, differing, method, detail, copy FROM verifications"
            " WHERE copy = ? ORDER BY id DESC LIMIT 1",
            copy,
        )
        return Verification(*rows[0]) if rows else None
