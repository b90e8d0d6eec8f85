"""The parts of a run, in their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.bench import Bench
from benchmarks.checking import gate, verifying
from benchmarks.crossing import crossing
from benchmarks.embedding import end_to_end
from benchmarks.growing import growing
from benchmarks.loading import loading
from benchmarks.mirroring import mirroring
from benchmarks.reads import reads
from benchmarks.starting import starting
from benchmarks.wire import wire
from benchmarks.writing import writing

__all__ = ["PARTS"]

PARTS: Mapping[str, Callable[[Bench], None]] = {
    "reads": reads,
    "mirror": mirroring,
    "wire": wire,
    "crossing": crossing,
    "backfill": loading,
    "writes": writing,
    "verify": verifying,
    "gate": gate,
    "end-to-end": end_to_end,
    "start": starting,
    "growth": growing,
}
