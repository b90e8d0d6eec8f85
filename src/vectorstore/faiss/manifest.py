"""What a snapshot says of itself: how far it reaches, and a checksum of every file and of itself."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from vectorstore.errors import StoreCorrupt
from vectorstore.types import Metric

__all__ = ["FORMAT", "MANIFEST_NAME", "FileSum", "Manifest", "file_sum"]

FORMAT = 1
MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True, slots=True)
class FileSum:
    """Size and sha256 (hexadecimal) of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A snapshot's contents. ``rows`` counts live records; ``wide_integers`` says that the metadata
    holds integers beyond 64 bits, which only the slower JSON reader keeps whole."""

    seq: int
    incarnation: str
    rows: int
    tombstones: int
    dimension: int
    metric: Metric
    kind: str
    wide_integers: bool
    files: dict[str, FileSum]

    def encoded(self) -> bytes:
        """The manifest's file."""
        body = {"format": FORMAT, **asdict(self)}
        return orjson.dumps(
            {"manifest": body, "sha256": _digest(body)},
            option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE,
        )

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read ``manifest.json``; StoreCorrupt if it is torn, altered, or of another format."""
        try:
            outer = orjson.loads(path.read_bytes())
            body = outer["manifest"]
            if outer["sha256"] != _digest(body):
                raise StoreCorrupt(f"{path}: the manifest does not match its own checksum")
            if body.pop("format") != FORMAT:
                raise StoreCorrupt(f"{path}: written in another format; this code reads {FORMAT}")
            body["metric"] = Metric(body["metric"])
            body["files"] = {name: FileSum(**total) for name, total in body["files"].items()}
            return cls(**body)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreCorrupt(f"{path} is missing: the snapshot was never finished") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreCorrupt(f"{path}: not a manifest ({error})") from error


def file_sum(path: Path) -> FileSum:
    """Size and checksum of a file as it is on disk."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileSum(file.tell(), digest)


def _digest(body: Any) -> str:
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
