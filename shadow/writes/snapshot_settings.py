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
        from vectorstore.faiss.index import wrapped_index
        from vectorstore.faiss.settings import described
        from vectorstore.faiss.snapshot import INDEX_NAME

        try:
            index = wrapped_index(faiss.read_index(str(self._path / INDEX_NAME), MAPPED))
        except (OSError, RuntimeError, Unsupported) as error:
            raise StoreCorrupt(f"{self._path}: its index cannot be opened ({error})") from error
        manifest = self._manifest
        return described(
            kind=manifest.kind,
            metric=manifest.metric,
            dimension=manifest.dimension,
            tombstones=manifest.tombstones,
            breadth=index.breadth,
        )
