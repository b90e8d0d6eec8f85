"""What a snapshot's store would say of itself, without loading it: for whoever needs no more than that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vectorstore.errors import StoreCorrupt, Unsupported

if TYPE_CHECKING:
    from vectorstore.faiss.manifest import Manifest

__all__ = ["SnapshotSettings"]


class SnapshotSettings:
    """Describes a snapshot as the store that is loaded from it describes itself."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._path = path
        self._manifest = manifest

    def describe(self) -> Mapping[str, Any]:
        """The settings that answers depend on; raises StoreCorrupt if the index cannot be opened.

        The index is mapped, so its vectors take no memory.
        """
        from vectorstore.faiss.engine import MAPPED, faiss
        from vectorstore.faiss.index import IVF, wrapped_index
        from vectorstore.faiss.snapshot import INDEX_NAME
        from vectorstore.faiss.store import NAME

        try:
            index = wrapped_index(faiss.read_index(str(self._path / INDEX_NAME), MAPPED))
        except (OSError, RuntimeError, Unsupported) as error:
            raise StoreCorrupt(f"{self._path}: its index cannot be opened ({error})") from error
        manifest = self._manifest
        settings: dict[str, Any] = {
            "store": NAME,
            "kind": manifest.kind,
            "metric": manifest.metric.value,
            "dimension": manifest.dimension,
            "tombstones": manifest.tombstones,
        }
        if index.breadth:
            settings["nprobe" if manifest.kind == IVF else "ef_search"] = index.breadth
        return settings
