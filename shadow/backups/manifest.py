"""What a backup says of itself: the moment, how far each part reaches, and a checksum of every file."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from shadow.errors import RestoreRefused
from vectorstore.faiss.manifest import FileSum, file_sum
from vectorstore.types import Metric

__all__ = ["BEFORE_BACKFILL", "FULL", "MANIFEST_NAME", "BackupManifest", "Rows", "sums_of"]

FORMAT = 1
MANIFEST_NAME = "manifest.json"
FULL = "full"
BEFORE_BACKFILL = "before backfill"


@dataclass(frozen=True, slots=True)
class Rows:
    """PostgreSQL's rows in a backup: the table, how many, the cursor's seq and its mark."""

    table: str
    rows: int
    seq: int
    mark: int | None


@dataclass(frozen=True, slots=True)
class BackupManifest:
    """One backup. ``made_at``: seconds since the epoch. ``head``: the last write that it holds.

    ``postgresql`` is ``None`` for a backup without rows, and ``without_rows`` says why. ``files``: by
    path inside the backup.
    """

    timestamp: str
    made_at: float
    kind: str
    incarnation: str
    head: int
    dimension: int
    metric: Metric
    snapshot: str
    snapshot_seq: int
    postgresql: Rows | None
    without_rows: str
    files: dict[str, FileSum]

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(one.bytes for one in self.files.values())

    def encoded(self) -> bytes:
        """The manifest's file."""
        body = {"format": FORMAT, **asdict(self)}
        return orjson.dumps(
            {"manifest": body, "sha256": _digest(body)},
            option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE,
        )

    @classmethod
    def read(cls, backup: Path) -> BackupManifest:
        """The manifest of a backup's folder; RestoreRefused if it is torn, altered or unknown."""
        path = backup / MANIFEST_NAME
        try:
            outer = orjson.loads(path.read_bytes())
            body = outer["manifest"]
            if outer["sha256"] != _digest(body):
                raise RestoreRefused(f"{path} does not match its own checksum: use another backup")
            if body.pop("format") != FORMAT:
                raise RestoreRefused(f"{path} has another format; this version reads {FORMAT}")
            body["metric"] = Metric(body["metric"])
            body["files"] = {name: FileSum(**total) for name, total in body["files"].items()}
            if body["postgresql"] is not None:
                body["postgresql"] = Rows(**body["postgresql"])
            return cls(**body)
        except OSError as error:
            raise RestoreRefused(f"{path} cannot be read: {error.strerror}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RestoreRefused(f"{path} is not a backup's manifest ({error})") from error

    def verify(self, backup: Path) -> None:
        """Check every file of the backup; RestoreRefused if one is missing, extra or damaged."""
        found = sums_of(backup)
        wrong = sorted(
            name
            for name in found.keys() | self.files.keys()
            if found.get(name) != self.files.get(name)
        )
        if wrong:
            raise RestoreRefused(
                f"the backup {backup} is damaged: {', '.join(wrong)} missing, unknown or altered. "
                "Nothing was restored; use another backup"
            )


def sums_of(backup: Path) -> dict[str, FileSum]:
    """Size and checksum of every file of a backup but its manifest."""
    return {
        str(path.relative_to(backup)): file_sum(path)
        for path in sorted(backup.rglob("*"))
        if path.is_file() and path != backup / MANIFEST_NAME
    }


def _digest(body: Any) -> str:
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
