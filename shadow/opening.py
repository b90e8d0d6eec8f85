"""Everything of one migration put together: the composition root of the routing layer."""

from __future__ import annotations

import getpass
import os
import socket
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from shadow.backups.switch import enter
from shadow.config import Settings
from shadow.cutover import Cutover
from shadow.eras import Described, open_era, settings_of_answers
from shadow.events import EventLog
from shadow.evidence import EvidenceBook
from shadow.evidence_view import Era, Verification
from shadow.intake import begin, elsewhere
from shadow.lag import LagClock
from shadow.linking import open_link
from shadow.process_lock import process_lock
from shadow.routes import RouteBook
from shadow.verdict import VerdictDesk
from shadow.writes.copies import copy_of
from shadow.writes.faiss_follower import FaissFollower
from shadow.writes.journal import Journal
from shadow.writes.postgresql_follower import PostgresqlFollower, PostgresqlLink
from shadow.writes.snapshots import SnapshotKeeper
from shadow.writes.sqlite_failure import is_code
from vectorstore.errors import ConfigurationError, StoreCorrupt, StoreUnavailable
from vectorstore.types import Metric

__all__ = ["Migration", "open_migration", "who"]

HEAD_AGE_SHARE = 0.25

log = EventLog()


@dataclass(frozen=True, slots=True)
class Migration:
    """The parts of one migration in one process: shared by the router, the commands and the service."""

    settings: Settings
    journal: Journal
    routes: RouteBook
    evidence: EvidenceBook
    snapshots: SnapshotKeeper
    link: PostgresqlLink
    postgresql: PostgresqlFollower
    lag: LagClock
    desk: VerdictDesk
    cutover: Cutover
    dimension: int
    metric: Metric
    running: IO[str]

    @property
    def directory(self) -> Path:
        """The state directory, wherever the process is by now."""
        return self.settings.state_directory

    def load_faiss(self) -> FaissFollower:
        """This process's own FAISS copy, at the head of the journal."""
        # Counted before the snapshot is read: a repair that comes between is not missed.
        reloads = self.journal.reloads()
        follower = FaissFollower(
            self.journal, self.snapshots.load(), reload=self.snapshots.load, reloads=reloads
        )
        follower.follow()
        return follower

    def copy(self) -> str:
        """Which copy PostgreSQL holds now: a verify of another says nothing of it."""
        return copy_of(self.directory, self.journal.incarnation, self.settings.postgresql)

    def verification(self) -> Verification | None:
        """What the last verify of the copy that PostgreSQL holds now found."""
        return self.evidence.verification(self.copy())

    def look_at_era(self, faiss: Described) -> Era:
        """The era of the live settings of both stores; opens a new one if they have changed.

        Raises StoreUnavailable when PostgreSQL cannot be asked.
        """
        model, now = self.settings.embedding_model, self.evidence.era()
        if model is None and now is not None:
            # An operator's command is not told the application's model: that it does not know is no change.
            model = now.settings.get("embedding_model")
        settings = settings_of_answers(
            faiss.describe(),
            self.link.store().describe(),
            self.settings.gate,
            embedding_model=model,
        )
        return open_era(self.evidence, settings)

    def close(self) -> None:
        """Close what was opened; what is acknowledged stays."""
        self.link.close()
        self.evidence.close()
        self.routes.close()
        self.journal.close()
        self.running.close()


def who(role: str) -> str:
    """Who acts, for the audit log: account, host, process and role."""
    try:
        account = getpass.getuser()
    except (KeyError, OSError):
        account = str(os.getuid())
    return f"{account}@{socket.gethostname()} ({role}, process {os.getpid()})"


def open_migration(
    settings: Settings, *, on_note: Callable[[str], None] | None = None
) -> Migration:
    """Open the state directory; the first time, take the FAISS index in.

    PostgreSQL is not contacted yet: a router starts without its shadow. ``on_note`` is told what the
    intake found, and that faiss.path is not where the index came from. Raises IntakeRefused,
    ConfigurationError, StoreCorrupt.
    """
    directory = settings.state_directory.absolute()
    # A program that changes its working directory later must not be led to another state directory.
    settings = settings.model_copy(update={"state_directory": directory})
    _make_private(directory)
    # Shared by every process that has the migration open, until it is closed: a restore waits for none.
    running = enter(directory)
    try:
        journal = Journal.open(directory, size_bytes_max=settings.journal.size_bytes_max)
    except BaseException:
        running.close()
        raise
    try:
        snapshots = SnapshotKeeper(
            directory,
            journal,
            kept=settings.journal.snapshots_kept,
            tombstones_share_max=settings.faiss.tombstones_share_max,
        )
        with process_lock(directory / "intake.lock", wait=True):
            if not snapshots.exists():
                begin(settings, directory, journal, snapshots, on_note or _log_note)
        dimension, metric = journal.vectors()
        # Another process may have taken the index in since this one opened the journal.
        journal.bind(dimension, metric)
        _check_vectors(settings, dimension, metric)
        _check_path(settings, directory, journal, snapshots, on_note)
        routes = RouteBook(journal, mirror_rate=settings.mirror.rate)
        evidence = _open_evidence(directory)
    except BaseException:
        journal.close()
        running.close()
        raise
    link = open_link(settings, dimension, metric)
    postgresql = PostgresqlFollower(journal, link, batch_max=settings.journal.apply_batch_max)
    lag = LagClock(journal, head_age_ms_max=settings.router.staleness_ms_max * HEAD_AGE_SHARE)
    desk = VerdictDesk(
        evidence=evidence,
        lag=lag,
        # What cannot be asked, or holds no copy of this journal, has no lag that anybody knows.
        postgresql_seq=lambda: (
            postgresql.standing.applied_seq if postgresql.standing.following else None
        ),
        copy=lambda: copy_of(directory, journal.incarnation, settings.postgresql),
        settings=settings.gate,
        staleness_ms_max=settings.router.staleness_ms_max,
    )
    return Migration(
        settings=settings,
        journal=journal,
        routes=routes,
        evidence=evidence,
        snapshots=snapshots,
        link=link,
        postgresql=postgresql,
        lag=lag,
        desk=desk,
        cutover=Cutover(routes=routes, evidence=evidence, desk=desk, postgresql=postgresql),
        dimension=dimension,
        metric=metric,
        running=running,
    )


def _make_private(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o711)
    except OSError as error:
        raise ConfigurationError(
            f"cannot make the state directory {directory}: {error.strerror}; "
            "set state_directory to a folder that this account may write to"
        ) from error


def _open_evidence(directory: Path) -> EvidenceBook:
    try:
        return EvidenceBook(directory)
    except sqlite3.Error as error:
        if is_code(error, "SQLITE_FULL") or is_code(error, "SQLITE_IOERR"):
            raise StoreUnavailable(
                f"the disk that holds {directory / 'evidence.db'} is full or fails ({error}), so the "
                "migration was not opened. Check its space, quota and health, and start again: nothing "
                "is lost, and nothing needs to be moved away"
            ) from error
        raise StoreCorrupt(
            f"{directory / 'evidence.db'} cannot be used ({error}). This account must be able to write "
            "it. It holds counts and no records: if it is damaged, move it and evidence.db-* away, and "
            "evidence is counted anew"
        ) from error


def _check_vectors(settings: Settings, dimension: int, metric: Metric) -> None:
    for name, wanted, found in (
        ("faiss.dimension", settings.faiss.dimension, dimension),
        ("faiss.metric", settings.faiss.metric, metric),
    ):
        if wanted is not None and wanted != found:
            raise ConfigurationError(
                f"{name} is set to {wanted}, and the index in {settings.state_directory} has "
                f"{found}: unset it, or give another state_directory to another index"
            )


def _check_path(
    settings: Settings,
    directory: Path,
    journal: Journal,
    snapshots: SnapshotKeeper,
    on_note: Callable[[str], None] | None,
) -> None:
    """An index that is not the one in the state directory is told of; refused while there is nothing
    that could be served in its place."""
    why = elsewhere(settings.faiss.path, directory)
    if why is None or journal.sealed():
        return
    if journal.head() == 0 and snapshots.newest_rows() == 0:
        raise ConfigurationError(
            f"{why}. The migration in {directory} is empty, and may be deleted instead"
        )
    if on_note is None:
        log.warning("index_elsewhere", why=why)
    else:
        on_note(why)


def _log_note(note: str) -> None:
    log.info("intake", note=note)
