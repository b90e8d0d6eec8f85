"""Snapshots of the FAISS store: where a restart, a backfill and a reload begin.

The one recovery mechanism: a verified snapshot taken at seq S, then the journal after S. A snapshot is
made by the one process that holds the lock; older ones are pruned only after the new one is verified.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from shadow.errors import ForeignIncarnation
from shadow.process_lock import process_lock
from shadow.writes.journal import Journal
from vectorstore.errors import StoreCorrupt

if TYPE_CHECKING:
    from vectorstore.faiss.store import FaissStore

__all__ = ["BACKFILL_HOLD", "SnapshotKeeper"]

SNAPSHOTS_CURSOR = "snapshots"
BACKFILL_HOLD = "backfill"

log = structlog.get_logger("shadow")


class SnapshotKeeper:
    """The snapshots of one state directory."""

    def __init__(self, directory: Path, journal: Journal, *, kept: int) -> None:
        self._directory = directory / "snapshots"
        self._lock_path = directory / "snapshots.lock"
        self._journal = journal
        self._kept = kept

    def exists(self) -> bool:
        """Whether any snapshot was ever finished."""
        from vectorstore.faiss.snapshot import newest_snapshots

        return bool(newest_snapshots(self._directory))

    def newest(self) -> Path:
        """The newest snapshot whose checksums hold; StoreCorrupt if there is none.

        A damaged one is passed over with an alert, never loaded. One of another incarnation is
        refused: it belongs to another history.
        """
        from vectorstore.faiss.snapshot import newest_snapshots, verify_snapshot

        for path in newest_snapshots(self._directory):
            try:
                manifest = verify_snapshot(path)
            except StoreCorrupt as error:
                log.error("snapshot_damaged", path=str(path), why=str(error))
                continue
            if manifest.incarnation != self._journal.incarnation:
                raise ForeignIncarnation(
                    f"the snapshot {path.name} belongs to the history {manifest.incarnation}, and the "
                    f"journal to {self._journal.incarnation}: one of them was restored from elsewhere. "
                    "Nothing was loaded; restore both from one backup with `shadow restore`"
                )
            return path
        raise StoreCorrupt(
            f"no snapshot under {self._directory} is whole; restore one with `shadow restore`"
        )

    def named(self, name: str) -> Path | None:
        """The snapshot of this name if it is there and whole."""
        from vectorstore.faiss.snapshot import newest_snapshots, verify_snapshot

        for path in newest_snapshots(self._directory):
            if path.name == name:
                try:
                    verify_snapshot(path)
                except StoreCorrupt:
                    return None
                return path
        return None

    def load(self) -> FaissStore:
        """The store of the newest good snapshot; the journal after it is the caller's to follow."""
        from vectorstore.faiss.snapshot import load_snapshot

        return load_snapshot(self.newest())

    def newest_seq(self) -> int:
        """How far the newest good snapshot reaches."""
        from vectorstore.faiss.snapshot import verify_snapshot

        return verify_snapshot(self.newest()).seq

    def make(self, store: FaissStore) -> Path | None:
        """Write and verify a snapshot, then prune; ``None`` if another process is at it."""
        from vectorstore.faiss.snapshot import verify_snapshot, write_snapshot

        with process_lock(self._lock_path) as mine:
            if not mine:
                return None
            path = write_snapshot(store, self._directory, incarnation=self._journal.incarnation)
            verify_snapshot(path)
            self._prune()
            return path

    def _prune(self) -> None:
        """Remove what is older than the snapshots kept; never one that a backfill is reading."""
        from vectorstore.faiss.snapshot import newest_snapshots, verify_snapshot

        held = self._journal.holds().get(BACKFILL_HOLD)
        good: list[tuple[int, Path]] = []
        damaged: list[Path] = []
        for path in newest_snapshots(self._directory):
            try:
                good.append((verify_snapshot(path).seq, path))
            except StoreCorrupt:
                damaged.append(path)
        for _, path in [(0, one) for one in damaged] + [
            (seq, one) for seq, one in good[self._kept :] if seq != held
        ]:
            shutil.rmtree(path)
        oldest = good[: self._kept][-1][0]
        self._journal.set_cursor(SNAPSHOTS_CURSOR, oldest)
