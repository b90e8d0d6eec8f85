"""The folder of backups: found by their timestamps, kept up to a number of each kind."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from shadow.backups.manifest import BackupManifest
from shadow.errors import RestoreRefused
from shadow.events import EventLog
from vectorstore.errors import InvalidInput

__all__ = ["BACKUPS_NAME", "TIMESTAMP", "UNFINISHED", "BackupShelf"]

BACKUPS_NAME = "backups"
TIMESTAMP = "%Y%m%dT%H%M%SZ"
# How the folders begin that are no backups yet, or no more.
UNFINISHED = ".writing-"
_NAME = re.compile(r"\d{8}T\d{6}Z")

log = EventLog()


class BackupShelf:
    """The finished backups of one state directory. Unfinished ones have other names."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / BACKUPS_NAME

    def timestamps(self) -> list[str]:
        """The timestamps there are, newest first."""
        if not self.path.is_dir():
            return []
        names = [one.name for one in self.path.iterdir() if _NAME.fullmatch(one.name)]
        return sorted(names, reverse=True)

    def manifests(self) -> list[BackupManifest]:
        """The manifests that can be read, newest first. The files themselves are not looked at."""
        found: list[BackupManifest] = []
        for name in self.timestamps():
            try:
                found.append(BackupManifest.read(self.path / name))
            except RestoreRefused as error:
                log.error("backup_damaged", timestamp=name, why=str(error))
        return found

    def verified(self, timestamp: str) -> tuple[Path, BackupManifest]:
        """A backup and its manifest, every checksum checked.

        InvalidInput if there is none of that name, RestoreRefused if it may not be used.
        """
        if timestamp not in self.timestamps():
            there = ", ".join(self.timestamps()) or "none"
            raise InvalidInput(
                f"there is no backup {timestamp!r} under {self.path}; there are: {there}"
            )
        path = self.path / timestamp
        manifest = BackupManifest.read(path)
        manifest.verify(path)
        return path, manifest

    def prune(self, kept: int, *, made: BackupManifest) -> list[str]:
        """Remove all but ``kept`` of the kind of ``made``: that one, whatever a clock that was set back
        called it, and the newest; the timestamps removed."""
        others = [
            one.timestamp
            for one in self.manifests()
            if one.kind == made.kind and one.timestamp != made.timestamp
        ]
        removed = others[kept - 1 :]
        for timestamp in removed:
            # At once and whole: what a kill leaves of it has no backup's name.
            aside = self.path / f"{UNFINISHED}{timestamp}"
            (self.path / timestamp).rename(aside)
            shutil.rmtree(aside)
        return removed
