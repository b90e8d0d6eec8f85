"""Snapshots of the FAISS store: where a restart, a backfill and a reload begin.

The one recovery mechanism: a verified snapshot taken at seq S, then the journal after S. A snapshot is
made by the one process that holds the lock; older ones are pruned only after the new one is verified.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from shadow.errors import ForeignIncarnation
from shadow.events import EventLog
from shadow.process_lock import process_lock
from shadow.writes.faiss_follower import FaissFollower, require_copy
from shadow.writes.journal import Journal
from shadow.writes.snapshot_settings import SnapshotSettings
from vectorstore.durable import copy_durably, sync_directory, write_durably
from vectorstore.errors import StoreCorrupt, StoreUnavailable

if TYPE_CHECKING:
    from vectorstore.faiss.manifest import Manifest
    from vectorstore.faiss.store import FaissStore

__all__ = ["BACKFILL_HOLD", "SNAPSHOTS_CURSOR", "SnapshotKeeper"]

SNAPSHOTS_CURSOR = "snapshots"
BACKFILL_HOLD = "backfill"
# Whoever prunes a snapshot that is being read has just made a newer one.
LOOKS_MAX = 10

log = EventLog()


class SnapshotKeeper:
    """The snapshots of one state directory."""

    def __init__(
        self, directory: Path, journal: Journal, *, kept: int, tombstones_share_max: float = 0.2
    ) -> None:
        self._directory = directory / "snapshots"
        self._lock_path = directory / "snapshots.lock"
        # There while a repaired copy may be the newest snapshot that nobody was asked to load yet.
        self._unloaded = directory / "snapshots.unloaded"
        self._journal = journal
        self._kept = kept
        self._tombstones_share_max = tombstones_share_max

    def exists(self) -> bool:
        """Whether any snapshot was ever finished."""
        from vectorstore.faiss.snapshot import newest_snapshots

        return bool(newest_snapshots(self._directory))

    def newest(self) -> Path:
        """The newest snapshot whose checksums hold; StoreCorrupt if there is none.

        A damaged one is passed over with an alert, never loaded. One of another incarnation, or one
        that reaches beyond the journal, is refused with ForeignIncarnation: it belongs to another
        history.
        """
        return self._newest()[0]

    def _newest(self, unfit: Collection[Path] = ()) -> tuple[Path, Manifest]:
        from vectorstore.faiss.snapshot import newest_snapshots, verify_snapshot

        for _ in range(LOOKS_MAX):
            pruned = False
            for path in newest_snapshots(self._directory):
                if path in unfit:
                    continue
                try:
                    manifest = verify_snapshot(path)
                except StoreCorrupt as error:
                    if path.exists():
                        log.error("snapshot_damaged", path=str(path), why=str(error))
                    else:
                        pruned = True
                    continue
                self._require_own(path, manifest)
                return path, manifest
            if not pruned:
                break
        raise StoreCorrupt(
            f"no snapshot under {self._directory} is whole; go back to a backup with `shadow restore`"
        )

    def named(self, name: str) -> Path | None:
        """The snapshot of this name if it is there and whole; refuses as :meth:`newest` does."""
        from vectorstore.faiss.snapshot import newest_snapshots, verify_snapshot

        for path in newest_snapshots(self._directory):
            if path.name == name:
                try:
                    manifest = verify_snapshot(path)
                except StoreCorrupt:
                    return None
                self._require_own(path, manifest)
                return path
        return None

    def _require_own(self, path: Path, manifest: Manifest) -> None:
        journal, why = self._journal, None
        if manifest.incarnation != journal.incarnation:
            why = (
                f"belongs to the history {manifest.incarnation}, and the journal to "
                f"{journal.incarnation}"
            )
        elif manifest.seq > (head := journal.head()):
            why = f"reaches write {manifest.seq}, and the journal ends at {head}"
        if why is not None:
            raise ForeignIncarnation(
                f"the snapshot {path.name} {why}: one of them was restored from elsewhere. Nothing was "
                "loaded; go back to one backup of both with `shadow restore`"
            )

    def copy_newest(self, target: Path) -> Manifest:
        """Copy the newest good snapshot, durably, into the new folder ``target``; its manifest."""
        from vectorstore.faiss.snapshot import verify_snapshot

        # Under the lock, so that nobody prunes it meanwhile.
        with process_lock(self._lock_path, wait=True):
            source = self.newest()
            target.mkdir(mode=0o700)
            copy = target / source.name
            copy.mkdir(mode=0o700)
            for file in source.iterdir():
                copy_durably(file, copy / file.name)
            sync_directory(copy)
            sync_directory(target)
        return verify_snapshot(copy)

    def load(self) -> FaissStore:
        """The store of the newest good snapshot; the journal after it is the caller's to follow."""
        from vectorstore.faiss.snapshot import load_snapshot

        unfit: list[Path] = []
        for _ in range(LOOKS_MAX):
            path, manifest = self._newest(unfit)
            try:
                return load_snapshot(path, verified=manifest)
            except StoreCorrupt as error:
                # Or it was pruned while it was read: then there is a newer one.
                if path.exists():
                    log.error("snapshot_damaged", path=str(path), why=str(error))
                    unfit.append(path)
        raise StoreCorrupt(
            f"the snapshots under {self._directory} were pruned while they were read, or do not load"
        )

    def newest_made(self) -> tuple[int, float] | None:
        """Seq and time (Unix seconds) of the newest snapshot, by its name and folder; not verified."""
        from vectorstore.faiss.snapshot import newest_snapshots

        found = newest_snapshots(self._directory)
        if not found:
            return None
        return int(found[0].name.split("-")[1]), found[0].stat().st_mtime

    def newest_seq(self) -> int:
        """How far the newest finished snapshot reaches, by its manifest: its files are not read."""
        return next((manifest.seq for _, manifest in self._manifests()), 0)

    def newest_rows(self) -> int:
        """How many records the newest finished snapshot says that it holds."""
        return next((manifest.rows for _, manifest in self._manifests()), 0)

    def rows_of(self, name: str) -> int | None:
        """How many records the snapshot of this name says that it holds."""
        return next((found.rows for path, found in self._manifests() if path.name == name), None)

    def newest_settings(self) -> SnapshotSettings:
        """What the newest finished snapshot says of itself, by its manifest; StoreCorrupt if there is none."""
        for path, manifest in self._manifests():
            return SnapshotSettings(path, manifest)
        raise StoreCorrupt(f"no snapshot under {self._directory} can be read")

    def _manifests(self) -> Iterator[tuple[Path, Manifest]]:
        from vectorstore.faiss.manifest import MANIFEST_NAME, Manifest
        from vectorstore.faiss.snapshot import newest_snapshots

        for path in newest_snapshots(self._directory):
            try:
                yield path, Manifest.read(path / MANIFEST_NAME)
            except StoreCorrupt:
                continue

    def make(
        self,
        store: FaissStore,
        *,
        reloads: int | None = None,
        wait: bool = False,
        alone: bool = False,
    ) -> Path | None:
        """Write and verify a snapshot, then prune; ``None`` if another process is at it.

        ``reloads``: the journal's count when the copy was loaded. A copy from before a repair makes no
        snapshot, nor does one that is behind the newest. ``wait`` for the other process instead.
        ``alone``: keep none of the older ones, so that the journal need not reach back to them.
        Tombstones are cleared away first when there are too many. Raises StoreUnavailable, with the
        older ones in force, if the disk takes no more.
        """
        with process_lock(self._lock_path, wait=wait) as mine:
            if not mine or (reloads is not None and reloads != self._journal.reloads()):
                return None
            if self._unloaded.exists():
                # Of a copy from before a repair, maybe; not where there is none to load and a first one
                # is made.
                self._ask_reload()
                if reloads is not None or self.exists():
                    return None
            if store.applied_seq() < self.newest_seq():
                # A copy that sleeps: the journal may not hold any more what would have to follow it.
                return None
            self._compact(store)
            try:
                return self._write(store, 1 if alone else self._kept)
            except StoreUnavailable as error:
                log.error("snapshot_failed", why=str(error))
                raise

    def put_right(self, faiss: FaissFollower, copy: FaissStore) -> Path:
        """Make ``copy``, which was mended, the newest snapshot and have every process load it.

        ``faiss`` brings it to the head first; StoreUnavailable if that has another copy by now. The older
        snapshots, which hold what was mended, go. If this is killed halfway, whoever makes the next
        snapshot or repair does the rest.
        """
        with process_lock(self._lock_path, wait=True):
            # Under the lock: nobody makes a newer one, of a copy that holds the damage, before this.
            faiss.follow()
            require_copy(faiss, copy)
            write_durably(self._unloaded, b"")
            path = self._write(copy, 1)
            self._ask_reload()
            return path

    def finish_put_right(self) -> None:
        """Have every process load the newest snapshot if a :meth:`put_right` was killed before it asked.

        Else those that run would go on with the damaged copy, and make the next snapshot of it.
        """
        with process_lock(self._lock_path, wait=True):
            if self._unloaded.exists():
                self._ask_reload()

    def _ask_reload(self) -> None:
        self._journal.ask_reload()
        self._unloaded.unlink()

    def hold_for_backfill(self, path: Path, seq: int) -> bool:
        """Let nobody prune a snapshot, or truncate what follows it; False if it was pruned already."""
        with process_lock(self._lock_path, wait=True):
            if path.exists():
                self._journal.hold(BACKFILL_HOLD, seq)
            return path.exists()

    def _compact(self, store: FaissStore) -> None:
        dead = store.describe()["tombstones"]
        if dead > self._tombstones_share_max * (store.count() + dead):
            log.info("faiss_compacted", tombstones=store.compact())

    def _write(self, store: FaissStore, kept: int) -> Path:
        from vectorstore.faiss.snapshot import verify_snapshot, write_snapshot

        if SNAPSHOTS_CURSOR not in self._journal.cursors():
            # Before the first one is there: nobody may cut off what comes after a snapshot, not even
            # if this process dies before it can say how far the snapshot reaches.
            self._journal.set_cursor(SNAPSHOTS_CURSOR, self._journal.base())
        path = write_snapshot(store, self._directory, incarnation=self._journal.incarnation)
        fresh = verify_snapshot(path)
        self._prune(kept, {path: fresh})
        return path

    def _prune(self, kept: int, verified: Mapping[Path, Manifest]) -> None:
        """Remove what is older than the snapshots kept; never one that a backfill is reading.

        ``verified``: those that were looked at just now.
        """
        from vectorstore.faiss.snapshot import newest_snapshots, remove_snapshot, verify_snapshot

        held = self._journal.holds().get(BACKFILL_HOLD)
        good: list[tuple[int, Path]] = []
        damaged: list[Path] = []
        for path in newest_snapshots(self._directory):
            try:
                manifest = verified.get(path) or verify_snapshot(path)
                good.append((manifest.seq, path))
            except StoreCorrupt:
                damaged.append(path)
        for _, path in [(0, one) for one in damaged] + [
            (seq, one) for seq, one in good[kept:] if seq != held
        ]:
            remove_snapshot(path)
        oldest = good[:kept][-1][0]
        self._journal.set_cursor(SNAPSHOTS_CURSOR, oldest)
