"""Where a migration's FAISS store begins: an index taken in, or an empty one; and what is remembered of it.

The index is read once. From then on the snapshots and the journal are what there is, so ``faiss.path``
may change or go without anything happening: that is why it is remembered where the index came from.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from shadow.config import Settings
from shadow.writes.journal import Journal
from shadow.writes.snapshots import SnapshotKeeper
from vectorstore.durable import sync_directory, write_durably
from vectorstore.errors import ConfigurationError, IntakeRefused, StoreCorrupt, VectorStoreError
from vectorstore.types import Metric

if TYPE_CHECKING:
    from vectorstore.faiss.store import FaissStore

__all__ = ["ORIGIN", "begin", "changed_sources", "elsewhere"]

ORIGIN = "origin"
_ASIDE = "origin-before"
_GONE = "origin-discarded"
_MEMORY = "intake.json"


def begin(
    settings: Settings,
    directory: Path,
    journal: Journal,
    snapshots: SnapshotKeeper,
    on_note: Callable[[str], None],
) -> None:
    """Take the index in, or begin an empty one, and make the first snapshot.

    Raises IntakeRefused, ConfigurationError, and StoreCorrupt where there was a snapshot before and the
    journal alone would not lead to where the store was.
    """
    if (directory / _ASIDE).exists():
        _put_back(directory / ORIGIN)
    _require_same_beginning(settings, directory, journal)
    faiss = settings.faiss
    if faiss.path is not None:
        store = _taken_in(settings, faiss.path, directory / ORIGIN, on_note)
    elif faiss.dimension is not None:
        from vectorstore.faiss.store import FaissStore

        store = FaissStore.empty(
            dimension=faiss.dimension, metric=faiss.metric or Metric.COSINE, kind=faiss.kind
        )
    else:
        raise ConfigurationError(
            "there is no FAISS index yet: set faiss.path to the index to migrate, or faiss.dimension to "
            "start an empty one; in config/shadow.toml below the working directory, in the file of "
            "--config, or as SHADOW_FAISS__PATH in the environment"
        )
    journal.bind(store.dimension, store.metric)
    snapshots.make(store)
    store.close()
    # After the snapshot: whoever finds this and no snapshot knows that there was one.
    path = None if faiss.path is None else os.path.realpath(faiss.path)
    with suppress(OSError):
        # On a disk that is full now, nobody can tell later on; the migration has begun all the same.
        write_durably(directory / _MEMORY, orjson.dumps({"path": path}))
        sync_directory(directory)


def elsewhere(path: Path | None, directory: Path) -> str | None:
    """Why an index that is at ``path`` is not the one that this migration moves.

    ``None`` if it came from there, if nothing is there, or if nobody can tell.
    """
    # Not as pathlib asks, which raises for a name that no file can have.
    if path is None or not os.path.exists(path):  # noqa: PTH110
        return None
    memory = _remembered(directory)
    if memory is None:
        return None
    came_from = memory["path"]
    if _is_from(came_from, path):
        return None
    begun = (
        "began with an empty index" if came_from is None else f"took its index in from {came_from}"
    )
    return (
        f"faiss.path is {path}, and the migration in {directory} {begun}: what is at faiss.path is not "
        "in it and is not read. To migrate that, give it a state_directory and a postgresql.table of "
        "its own; else unset faiss.path"
    )


def changed_sources(path: Path | None, origin: Path) -> tuple[str, ...]:
    """Files of the index that was taken in that no longer equal the copy made of them."""
    from vectorstore.faiss.manifest import file_sum

    return tuple(
        str(source)
        for source, copy in _pairs(path, origin)
        if source.is_file() and file_sum(source).sha256 != file_sum(copy).sha256
    )


def _pairs(path: Path | None, origin: Path) -> list[tuple[Path, Path]]:
    """Each file of the index, where it was, with the copy made of it."""
    from vectorstore.faiss.intake.copies import SUMS_NAME

    if path is None or not origin.is_dir():
        return []
    folder = path if path.is_dir() else path.parent
    copies = [one for one in sorted(origin.iterdir()) if one.is_file() and one.name != SUMS_NAME]
    return [(folder / copy.name, copy) for copy in copies]


def _is_from(came_from: str | None, path: Path | None) -> bool:
    """Whether both are the same file or folder, or one is the index in the other; or there is none."""
    if came_from is None or path is None:
        return came_from is None and path is None
    place = os.path.realpath(path)
    return came_from in (place, os.path.dirname(place)) or os.path.dirname(came_from) == place  # noqa: PTH120


def _require_same_beginning(settings: Settings, directory: Path, journal: Journal) -> None:
    """Without a snapshot the journal needs its beginning again, all of it, on the same index."""
    memory, head = _remembered(directory), journal.head()
    if memory is None and head == 0:
        return
    path = settings.faiss.path
    same = memory is not None and _is_from(memory["path"], path)
    pairs = _pairs(path, directory / ORIGIN)
    if path is not None:
        # One that is gone, or of which there is no copy to compare it with, is not the same.
        same = same and bool(pairs) and all(source.is_file() for source, _ in pairs)
    if not same or journal.base() > 0 or changed_sources(path, directory / ORIGIN):
        raise StoreCorrupt(
            f"the snapshots of FAISS are gone: there is none in {directory / 'snapshots'}, and without "
            f"one the {head:,} writes of the journal beside it lead nowhere. Put the folder back, or go "
            "back to a backup with `shadow restore`; to begin anew, give another state_directory"
        )


def _taken_in(
    settings: Settings, path: Path, origin: Path, on_note: Callable[[str], None]
) -> FaissStore:
    from vectorstore.faiss.intake import take_in

    vectors = _require_movable(path)
    # Said beforehand: with millions of rows the rest takes minutes.
    on_note(f"taking in {vectors:,} vectors from {path}: copied, checked, then the first snapshot")
    aside = origin.with_name(_ASIDE)
    if origin.exists():
        # Left from an intake that failed, or, where the snapshots were lost, the last copy there is.
        origin.rename(aside)
    try:
        taken = take_in(
            path,
            copy_to=origin,
            metric=settings.faiss.metric,
            quarantine=frozenset(settings.faiss.quarantine),
        )
    except VectorStoreError:
        _put_back(origin)
        raise
    _discard(aside)
    on_note(f"took in {taken.rows:,} records from {path} ({taken.layout} layout)")
    for note in taken.notes:
        on_note(note)
    return taken.store


def _discard(aside: Path) -> None:
    """Remove it so that a kill leaves all of it or none: a part of it is not to be put back."""
    if aside.exists():
        gone = aside.with_name(_GONE)
        shutil.rmtree(gone, ignore_errors=True)
        aside.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _put_back(origin: Path) -> None:
    """Undo an intake that failed or was killed."""
    shutil.rmtree(origin, ignore_errors=True)
    aside = origin.with_name(_ASIDE)
    if aside.exists():
        aside.rename(origin)


def _require_movable(path: Path) -> int:
    """How many vectors there are, by the head of the file; what PostgreSQL cannot hold is refused by it,
    before anything is copied or read."""
    from vectorstore.faiss.intake import recognise
    from vectorstore.faiss.intake.headers import checked_header
    from vectorstore.postgres.settings import DIMENSION_MAX

    index = recognise(path).index
    header = checked_header(index)
    dimension = header.dimension
    if dimension > DIMENSION_MAX:
        raise IntakeRefused(
            f"{index} has vectors of {dimension:,} dimensions, and pgvector's type `vector` holds at "
            f"most {DIMENSION_MAX:,}, so that PostgreSQL could not hold one of them. Nothing was taken "
            "in. Embed the texts with a model of fewer dimensions, or ask it for shorter vectors "
            "(shadow reembed TARGET --source FOLDER --embedder NAME), and migrate that"
        )
    return header.rows


def _remembered(directory: Path) -> dict[str, str | None] | None:
    """``path``: where the index was taken in from, ``None`` for an empty one.

    Nothing before the first, and where it cannot be read: it is no reason not to start.
    """
    try:
        found = orjson.loads((directory / _MEMORY).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return found if isinstance(found, dict) and "path" in found else None
