"""FAISS alone: an index in this process and snapshots in a folder."""

from __future__ import annotations

from pathlib import Path

from vectorstore.errors import ConfigurationError, StoreCorrupt
from vectorstore.faiss.intake import take_in
from vectorstore.faiss.snapshot import load_snapshot, newest_snapshots, write_snapshot
from vectorstore.faiss.store import FaissStore
from vectorstore.types import Metric

__all__ = ["FaissBackend"]


class FaissBackend:
    """Opens what the folder holds: the newest snapshot of ours, else a foreign index, else nothing.

    Writes are in memory until :meth:`save`. One process at a time.
    """

    def __init__(
        self, *, dimension: int, storage_path: str = "data/vector_db", index_type: str = "flat"
    ) -> None:
        self._folder = Path(storage_path)
        self._dimension = dimension
        self._kind = index_type
        self.store = FaissStore.empty(dimension=dimension, metric=Metric.COSINE, kind=index_type)
        self.load()

    def save(self) -> None:
        """Write a snapshot, durable when this returns."""
        write_snapshot(self.store, self._folder / "snapshots", incarnation="faiss-alone")

    def load(self) -> bool:
        """Take the folder's contents in place of what is in memory; False if it holds none.

        Raises ConfigurationError if they have another dimension, IntakeRefused or StoreCorrupt.
        """
        found = self._found()
        if found is None:
            return False
        if found.dimension != self._dimension:
            raise ConfigurationError(
                f"{self._folder} holds vectors of {found.dimension} dimensions, not "
                f"{self._dimension}: choose the embedding model that it was made with"
            )
        self.store = found
        return True

    def _found(self) -> FaissStore | None:
        snapshots = newest_snapshots(self._folder / "snapshots")
        damage: StoreCorrupt | None = None
        for snapshot in snapshots:
            try:
                return load_snapshot(snapshot)
            except StoreCorrupt as error:
                damage = damage or error
        if damage is not None:
            raise damage
        if not self._folder.is_dir() or not any(self._folder.glob("*.index")):
            return None
        return take_in(self._folder, copy_to=self._folder / "as-found").store
