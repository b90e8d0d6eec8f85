"""The route in force, what is wanted, the latch, and the audit log: shared by every process.

Kept in the journal's file. A change of route is a compare-and-set of its version, in one transaction
with the journal's head (the flip's seq) and the audit entry that says who, why, and on what evidence.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from importlib.resources import files
from typing import Any

from shadow.core.phases import Phase, Request, Route, Wanted
from shadow.errors import RouteConflict
from shadow.writes.journal import Journal
from shadow.writes.sqlite_failure import translation

__all__ = ["AuditEntry", "RouteBook"]

BUSY_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One decision: when (seconds since the epoch), who, what, why, and the evidence it rested on."""

    at: float
    who: str
    what: str
    why: str
    evidence: Mapping[str, Any]


class RouteBook:
    """Reads and changes the route. Safe between threads and processes."""

    def __init__(
        self, journal: Journal, *, mirror_rate: float = 1.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._journal = journal
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(
                journal.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            self._begin(mirror_rate)
        except sqlite3.Error as error:
            raise translation(error, journal.path) from error

    def _begin(self, mirror_rate: float) -> None:
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("PRAGMA fullfsync=ON")
        schema = (files("shadow") / "route_schema.sql").read_text(encoding="utf-8")
        self._connection.executescript(schema)
        self._connection.execute(
            "INSERT OR IGNORE INTO routes VALUES (1, ?, 0, ?, 0, NULL)",
            (Phase.FAISS, mirror_rate),
        )

    def close(self) -> None:
        """Close the connection; the route stays."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction; JournalUnavailable, with nothing decided, if the disk is full."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise translation(error, self._journal.path) from error
                raise

    def current(self) -> Route:
        """The route in force."""
        with self._lock:
            return _current(self._connection)

    def change(
        self,
        expected: Route,
        *,
        who: str,
        why: str,
        evidence: Mapping[str, Any] | None = None,
        phase: Phase | None = None,
        ramp_share: float | None = None,
        mirror_rate: float | None = None,
        latch: str | None = None,
        rehearsing_until: float | None = None,
        request: Request | None = None,
    ) -> Route:
        """Replace the route if it is still ``expected``; RouteConflict if somebody was faster.

        The new route's flip seq is the journal's head. ``latch`` also sets the latch,
        ``request`` also makes a request.
        """
        with self._transaction() as connection:
            now = _current(connection)
            _check_version(now, expected.version)
            route = Route(
                version=now.version + 1,
                phase=now.phase if phase is None else phase,
                ramp_share=now.ramp_share if ramp_share is None else ramp_share,
                mirror_rate=now.mirror_rate if mirror_rate is None else mirror_rate,
                flip_seq=self._journal.head_in(connection),
                # What leaves the phase as it is does not make a flip of a rehearsal.
                rehearsing_until=now.rehearsing_until if phase is None else rehearsing_until,
            )
            connection.execute(
                "INSERT INTO routes VALUES (?, ?, ?, ?, ?, ?)",
                astuple(route),
            )
            if request is not None:
                self._ask(connection, request)
            if latch is not None:
                connection.execute("UPDATE standing SET latch = ?", (latch,))
            self._note(connection, who, _words(now, route), why, evidence or {})
        return route

    def seal(self, expected: Route, *, who: str, why: str) -> None:
        """Seal the journal if the route is still ``expected``: a finalize begins, which nobody takes back.

        RouteConflict, with nothing sealed, if somebody changed it.
        """
        with self._transaction() as connection:
            _check_version(_current(connection), expected.version)
            self._journal.seal_in(connection)
            self._note(connection, who, "began to finalize", why, {})

    def request(self) -> Request:
        """What is wanted: the latest request; FAISS if there was none."""
        with self._lock:
            row = self._connection.execute(
                "SELECT wanted, who, why, force_reason FROM requests ORDER BY id DESC LIMIT 1"
            ).fetchone()
        if row is None:
            return Request(Wanted.FAISS, "default", "no request was made")
        return Request(Wanted(row[0]), row[1], row[2], row[3])

    def ask(self, request: Request, *, expected_version: int | None = None) -> None:
        """Make a request: the latest one wins.

        RouteConflict if the route is no longer at ``expected_version``, on which it was decided.
        """
        with self._transaction() as connection:
            if expected_version is not None:
                _check_version(_current(connection), expected_version)
            self._ask(connection, request)

    def ask_at_start(self, wanted: Wanted, *, who: str) -> bool:
        """Take ``PRIMARY`` from a starting process; false if it is the value last seen.

        So a restart with an old environment never undoes a later command.
        """
        with self._transaction() as connection:
            seen = connection.execute("SELECT primary_seen FROM standing").fetchone()[0]
            if seen == wanted.value:
                return False
            connection.execute("UPDATE standing SET primary_seen = ?", (wanted.value,))
            self._ask(connection, Request(wanted, who, f"PRIMARY={wanted.value} at the start"))
            return True

    def _ask(self, connection: sqlite3.Connection, request: Request) -> None:
        connection.execute(
            "INSERT INTO requests (wanted, who, why, force_reason) VALUES (?, ?, ?, ?)",
            (request.wanted, request.who, request.why, request.force_reason),
        )
        forced = f" (forced: {request.force_reason})" if request.force_reason else ""
        self._note(
            connection, request.who, f"asked for {request.wanted.value}{forced}", request.why, {}
        )

    def primary_seen(self) -> str | None:
        """The last value of ``PRIMARY`` that a starting process brought."""
        with self._lock:
            row = self._connection.execute("SELECT primary_seen FROM standing").fetchone()
        return None if row[0] is None else str(row[0])

    def restored(self, *, who: str, why: str, primary_seen: str | None) -> None:
        """Begin again after a restore: FAISS answers, and nothing else is wanted.

        ``primary_seen`` is what was seen before it, so that a start with the old environment does not
        ask for PostgreSQL again.
        """
        now = self.current()
        self.change(now, who=who, why=why, phase=Phase.FAISS, ramp_share=0.0)
        with self._transaction() as connection:
            self._ask(connection, Request(Wanted.FAISS, who, why))
            connection.execute("UPDATE standing SET primary_seen = ?", (primary_seen,))
            self._note(connection, who, "restored", why, {})

    def noted(self, what: str) -> bool:
        """Whether the audit log has an entry of this kind."""
        with self._lock:
            row = self._connection.execute(
                "SELECT 1 FROM audit WHERE what = ? LIMIT 1", (what,)
            ).fetchone()
        return row is not None

    def latch(self) -> str | None:
        """Why automatic flips are held after an automatic rollback, or ``None``."""
        with self._lock:
            row = self._connection.execute("SELECT latch FROM standing").fetchone()
        return None if row[0] is None else str(row[0])

    def clear_latch(self, *, who: str, why: str) -> None:
        """Let automatic flips go on."""
        with self._transaction() as connection:
            connection.execute("UPDATE standing SET latch = NULL")
            self._note(connection, who, "cleared the latch", why, {})

    def note(
        self, *, who: str, what: str, why: str, evidence: Mapping[str, Any] | None = None
    ) -> None:
        """Add an entry to the audit log."""
        with self._transaction() as connection:
            self._note(connection, who, what, why, evidence or {})

    def _note(
        self,
        connection: sqlite3.Connection,
        who: str,
        what: str,
        why: str,
        evidence: Mapping[str, Any],
    ) -> None:
        connection.execute(
            "INSERT INTO audit (at, who, what, why, evidence) VALUES (?, ?, ?, ?, ?)",
            (self._clock(), who, what, why, json.dumps(evidence, sort_keys=True)),
        )

    def audit(self, *, limit: int = 100) -> list[AuditEntry]:
        """The latest decisions, newest first."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT at, who, what, why, evidence FROM audit ORDER BY id DESC LIMIT ?", (limit,)
            ).fetchall()
        return [
            AuditEntry(at, who, what, why, json.loads(evidence))
            for at, who, what, why, evidence in rows
        ]

    def rehearsed(self, *, era: int) -> bool:
        """Whether a rehearsal succeeded in this era."""
        with self._lock:
            row = self._connection.execute(
                "SELECT 1 FROM audit WHERE what = 'rehearsed'"
                " AND json_extract(evidence, '$.era') = ? AND json_extract(evidence, '$.ok') = 1",
                (era,),
            ).fetchone()
        return row is not None


def _current(connection: sqlite3.Connection) -> Route:
    row = connection.execute("SELECT * FROM routes ORDER BY version DESC LIMIT 1").fetchone()
    return Route(row[0], Phase(row[1]), *row[2:])


def _check_version(now: Route, expected: int) -> None:
    if now.version != expected:
        raise RouteConflict(
            f"the route is at version {now.version}, not {expected}: somebody changed it "
            "meanwhile; look at `shadow status` and decide again"
        )


def _words(before: Route, after: Route) -> str:
    if after.rehearsing_until is not None:
        return f"began a rehearsal from {before.phase.value}"
    if before.phase is not after.phase:
        share = f" at {after.ramp_share:.0%}" if after.phase is Phase.RAMP else ""
        return f"moved from {before.phase.value} to {after.phase.value}{share}"
    if before.ramp_share != after.ramp_share:
        return f"ramp from {before.ramp_share:.0%} to {after.ramp_share:.0%}"
    return f"mirror rate from {before.mirror_rate:.0%} to {after.mirror_rate:.0%}"
