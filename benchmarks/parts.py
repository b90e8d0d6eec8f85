"""The parts of a run, in their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.bench import Bench
from benchmarks.mirroring import mirroring
from benchmarks.reads import reads
from benchmarks.wire import wire

__all__ = ["PARTS"]

PARTS: Mapping[str, Callable[[Bench], None]] = {
    "reads": reads,
    "mirror": mirroring,
    "wire": wire,
}
