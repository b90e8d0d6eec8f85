"""Snapshots of a FAISS store: written aside, checksummed, renamed into place, verified before use.

A snapshot is a directory ``snapshot-<seq, 20 digits>-<random>``: ``index.faiss``, ``records.jsonl``
(id, seq, text, metadata of the live records in order of position), ``tombstones.npy`` if there are
any, and ``manifest.json``, which is written last.
"""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from vectorstore.durable import make_directory, sync_directory, sync_file, write_durably
from vectorstore.errors import ConfigurationError, StoreCorrupt, StoreUnavailable, Unsupported
from vectorstore.faiss.collection import Collection
from vectorstore.faiss.manifest import MANIFEST_NAME, Manifest, file_sum
from vectorstore.faiss.roomy import read_with_room
from vectorstore.faiss.rows import Rows
from vectorstore.faiss.shared_values import SharedValues
from vectorstore.faiss.store import FaissStore
from vectorstore.faiss.untracked import untracked

__all__ = [
    "INDEX_NAME",
    "RECORDS_NAME",
    "load_snapshot",
    "newest_snapshots",
    "remove_snapshot",
    "tombstones",
    "verify_snapshot",
    "write_snapshot",
]

INDEX_NAME = "index.faiss"
RECORDS_NAME = "records.jsonl"
TOMBSTONES_NAME = "tombstones.npy"

_ASIDE = ".writing-"
_DEAD: dict[str, Any] = {"id": "", "text": "", "metadata": {}, "seq": 0}
_NAME = re.compile(r"snapshot-(\d{20})-[0-9a-f]{8}")


def write_snapshot(store: FaissStore, parent: Path, *, incarnation: str) -> Path:
    """Write a consistent, durable snapshot under ``parent`` and return its directory.

    Searches go on throughout. Writes wait while the lists of records are copied by reference, and while
    the graph of an HNSW index or the whole of an IVF index goes into the page cache; vectors, encoding,
    checksums and flushing do not hold them up. The caller must be the only one who writes snapshots there: what an earlier,
    killed writer left unfinished is removed. Raises StoreUnavailable, with nothing left behind, if the
    disk takes no more.
    """
    aside = parent / f"{_ASIDE}{secrets.token_hex(4)}"
    try:
        make_directory(parent)
        for unfinished in parent.glob(f"{_ASIDE}*"):
            shutil.rmtree(unfinished)
        aside.mkdir(mode=0o700)
        seq = _fill(store, aside, incarnation)
        final = parent / f"snapshot-{seq:020d}-{secrets.token_hex(4)}"
        aside.rename(final)
        sync_directory(parent)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise StoreUnavailable(
            f"no snapshot could be written under {parent} ({error.strerror}); those that are there stay "
            "in force. Make room on that disk, and the next one is made by itself"
        ) from error
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return final


def newest_snapshots(parent: Path) -> list[Path]:
    """The finished snapshots under ``parent``, the farthest-reaching first."""
    if not parent.is_dir():
        return []
    finished: list[tuple[str, int, Path]] = []
    for one in parent.iterdir():
        # Another process may remove one between the listing and the look at its age.
        with suppress(FileNotFoundError):
            if _NAME.fullmatch(one.name):
                finished.append((one.name[:29], one.stat().st_mtime_ns, one))
    return [path for _, _, path in sorted(finished, reverse=True)]


def remove_snapshot(path: Path) -> None:
    """Take a snapshot away at once and whole; the next writer clears up if this is killed halfway."""
    aside = path.with_name(f"{_ASIDE}{path.name}")
    path.rename(aside)
    shutil.rmtree(aside)


def verify_snapshot(path: Path) -> Manifest:
    """Check every checksum and the row counts, and return the manifest; StoreCorrupt otherwise."""
    try:
        return _verified(path)
    except PermissionError as error:
        raise ConfigurationError(f"{path} may not be read: {error.strerror}") from error
    except OSError as error:
        raise StoreCorrupt(f"{path} cannot be read: {error}") from error


def tombstones(path: Path) -> npt.NDArray[np.int64]:
    """The positions of a snapshot's index that hold no record."""
    if not (path / TOMBSTONES_NAME).exists():
        return np.empty(0, dtype=np.int64)
    found: npt.NDArray[np.int64] = np.load(path / TOMBSTONES_NAME, allow_pickle=False)
    return found


def load_snapshot(path: Path, *, verified: Manifest | None = None) -> FaissStore:
    """Verify a snapshot, then load it; a torn or damaged one raises StoreCorrupt and never loads.

    ``verified``: what :func:`verify_snapshot` has just returned for it, which need not be done twice.
    """
    manifest = verify_snapshot(path) if verified is None else verified
    try:
        index = read_with_room(path / INDEX_NAME)
        dead = tombstones(path)
        live = np.ones(index.size, dtype=np.bool_)
        live[dead] = False
        rows = _rows(path / RECORDS_NAME, live.tolist(), dead, manifest.wide_integers)
        collection = Collection(index, rows, manifest.metric)
    except (OSError, RuntimeError, ValueError, LookupError, StopIteration, Unsupported) as error:
        raise StoreCorrupt(f"{path}: its parts do not fit together ({error})") from error
    if len(rows.position) != manifest.rows or index.dimension != manifest.dimension:
        raise StoreCorrupt(f"{path}: holds {len(rows.position):,} records, not {manifest.rows:,}")
    return FaissStore(collection, applied_seq=manifest.seq, kind=manifest.kind)


def _fill(store: FaissStore, aside: Path, incarnation: str) -> int:
    with store.written(aside / INDEX_NAME) as (collection, seq):
        collection.require_in_step()
        rows = collection.rows
        dead = np.flatnonzero(~rows.live.flags(len(rows.ids)))
        live_count = len(rows.live)
        held = (rows.ids, rows.seqs, rows.texts, rows.metadata)
        columns = zip(*(untracked(list(column)) for column in held), strict=True)
    skipped = set(dead.tolist())
    records = (row for at, row in enumerate(columns) if at not in skipped)
    wide = _write_records(aside / RECORDS_NAME, records)
    names = [INDEX_NAME, RECORDS_NAME]
    if dead.size:
        encoded = io.BytesIO()
        np.save(encoded, dead)
        (aside / TOMBSTONES_NAME).write_bytes(encoded.getvalue())
        names.append(TOMBSTONES_NAME)
    for name in names:
        with (aside / name).open("rb") as file:
            sync_file(file.fileno())
        (aside / name).chmod(0o600)
    manifest = Manifest(
        seq=seq,
        incarnation=incarnation,
        rows=live_count,
        tombstones=int(dead.size),
        dimension=store.dimension,
        metric=store.metric,
        kind=store.kind,
        wide_integers=wide,
        files={name: file_sum(aside / name) for name in names},
    )
    write_durably(aside / MANIFEST_NAME, manifest.encoded())
    sync_directory(aside)
    return seq


def _write_records(path: Path, rows: Iterator[tuple[str, int, str, Any]]) -> bool:
    wide = False
    with path.open("wb") as file:
        for record_id, seq, text, metadata in rows:
            record = {"id": record_id, "seq": seq, "text": text, "metadata": metadata}
            try:
                line = orjson.dumps(record)
            except TypeError:
                wide = True
                line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
            file.write(line)
            file.write(b"\n")
    return wide


def _verified(path: Path) -> Manifest:
    manifest = Manifest.read(path / MANIFEST_NAME)
    named = _NAME.fullmatch(path.name)
    if named is not None and int(named[1]) != manifest.seq:
        raise StoreCorrupt(f"{path}: the manifest says seq {manifest.seq}: these are not its files")
    if {INDEX_NAME, RECORDS_NAME} - manifest.files.keys():
        raise StoreCorrupt(f"{path}: the manifest does not list the index and the records")
    present = {one.name for one in os.scandir(path)} - {MANIFEST_NAME}
    if present != manifest.files.keys():
        odd = ", ".join(sorted(present ^ manifest.files.keys()))
        raise StoreCorrupt(f"{path}: files missing or not of this snapshot: {odd}")
    for name, expected in manifest.files.items():
        found = file_sum(path / name)
        if found != expected:
            raise StoreCorrupt(
                f"{path / name} is damaged: {found.bytes:,} bytes of {expected.bytes:,}, "
                f"sha256 {found.sha256[:12]} instead of {expected.sha256[:12]}; use an older snapshot"
            )
    with (path / RECORDS_NAME).open("rb") as file:
        lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    if lines != manifest.rows:
        raise StoreCorrupt(f"{path}: {lines:,} records instead of {manifest.rows:,}")
    return manifest


def _rows(path: Path, live: list[bool], dead: Any, wide: bool) -> Rows:
    reader = json.loads if wide else orjson.loads
    ids: list[str] = []
    texts: list[str] = []
    metadata: list[Any] = []
    seqs: list[int] = []
    values = SharedValues()
    with path.open("rb") as lines:
        for alive in live:
            record: dict[str, Any] = reader(next(lines)) if alive else _DEAD
            ids.append(record["id"])
            texts.append(record["text"])
            metadata.append(values.shared(record["metadata"]))
            seqs.append(record["seq"])
    return Rows(ids, texts, metadata, seqs, dead=dead)
