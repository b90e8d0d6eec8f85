"""What a FAISS store says of itself, loaded or not: the settings that its answers depend on."""

from __future__ import annotations

from typing import Any

from vectorstore.faiss.index import IVF
from vectorstore.types import Metric

__all__ = ["NAME", "described"]

NAME = "faiss"


def described(
    *, kind: str, metric: Metric, dimension: int, tombstones: int, breadth: int
) -> dict[str, Any]:
    """As :meth:`vectorstore.port.Replica.describe` tells it; ``breadth`` is 0 for a flat index."""
    settings: dict[str, Any] = {
        "store": NAME,
        "kind": kind,
        "metric": metric.value,
        "dimension": dimension,
        "tombstones": tombstones,
    }
    if breadth:
        settings["nprobe" if kind == IVF else "ef_search"] = breadth
    return settings
