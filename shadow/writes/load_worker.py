"""A process that copies one part of a load: ``python -m shadow.writes.load_worker``.

Started by :mod:`shadow.writes.load_workers`, which says on standard input what to copy (one line of
JSON) and then gives leave for each block (one line each). It reports on standard output when it is
ready (0 rows) and when a block is committed. When leave can no longer come, because whoever gave it
stopped or died, it ends.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from shadow.writes.parts import Part, carry
from vectorstore.errors import VectorStoreError
from vectorstore.faiss.snapshot_reader import SnapshotReader
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Metric

__all__ = ["main"]

# What answers reads goes first.
NICENESS = 10


def main() -> int:
    """Copy the part; return the exit code."""
    os.nice(NICENESS)
    told = sys.stdin.readline()
    if not told.endswith("\n"):
        # Whoever started it was stopped before it had said what to copy.
        return 0
    try:
        _copy(json.loads(told))
    except VectorStoreError as error:
        _tell({"error": type(error).__name__, "why": str(error)})
        return 1
    return 0


def _copy(job: dict[str, Any]) -> None:
    told = job["settings"]
    settings = PostgresSettings(**{**told, "metric": Metric(told["metric"])})
    reader = SnapshotReader(Path(job["snapshot"]))
    store = PostgresStore.open(settings)
    try:
        blocks = carry(Part(**job["part"]), reader, store)
        _tell({"rows": 0})
        while sys.stdin.readline():
            rows = next(blocks, None)
            if rows is None:
                return
            _tell({"rows": rows})
    finally:
        store.close()
        reader.close()


def _tell(report: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody listens any more, so no leave will come either.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - until the process ends


if __name__ == "__main__":
    sys.exit(main())
