"""What starting costs: the import, the command line, and opening a large index.

Each start is a process of its own, in turn with a bare interpreter. Opening is the product's own loading
of a verified snapshot, checksums included; its memory is what the process holds and held at most beyond
what it held before, over the bytes of the index and the texts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.bench import Bench
from benchmarks.interleave import Side, Timings, interleave
from benchmarks.results import Figure
from benchmarks.stores import taken_in
from vectorstore.faiss.snapshot import write_snapshot

__all__ = ["opened", "starting"]

PART = "start"
SIZES = {"quick": (20_000, 1_536), "core": (100_000, 384), "full": (100_000, 1_536)}
IMPORT_MS_MAX, HELP_MS_MAX = 150.0, 300.0
MEMORY_MAX = 1.3
SCAN_ROWS = 1_000


def starting(bench: Bench) -> None:
    """Processes that start, then one index opened several times."""
    python = sys.executable
    sides = {
        "bare interpreter": Side(lambda _: _run(python, "-c", "pass")),
        "import shadow": Side(lambda _: _run(python, "-c", "import shadow")),
        "shadow --help": Side(lambda _: _run(python, "-m", "shadow", "--help")),
    }
    found = interleave(sides, rounds=bench.scale.rounds(9), calls=1)
    bench.results.read(PART, "processes", found)
    for name, most in (("import shadow", IMPORT_MS_MAX), ("shadow --help", HELP_MS_MAX)):
        low, middle, high = np.quantile(found[name].walls_s, [0.25, 0.5, 0.75]) * 1e3
        bench.results.figures.append(
            Figure(PART, name, middle, "ms", low, high, len(found[name].walls_s),
                   f"<= {most:.0f} ms", bool(middle <= most))
        )  # fmt: skip
    _opening(bench)


def _opening(bench: Bench) -> None:
    data = bench.data(*SIZES[bench.scale.name])
    snapshot = write_snapshot(
        taken_in(bench.directory, data), bench.directory / "to-open", incarnation="benchmark"
    )
    seconds = Timings()
    held, most = [], []
    for _ in range(bench.scale.rounds(5)):
        told = json.loads(_run(sys.executable, "-m", "benchmarks.starting", str(snapshot)))
        seconds.blocks.append(np.array([told["seconds"] / data.rows]))
        seconds.walls_s.append(told["seconds"] / data.rows)
        held.append(told["held"])
        most.append(told["most"])
    bench.results.read(PART, data.name, {"open, per record": seconds})
    whole_s = np.quantile(seconds.walls_s, [0.25, 0.5, 0.75]) * data.rows
    bench.results.figures.append(
        Figure(PART, f"open {data.name}", whole_s[1], "s", whole_s[0], whole_s[2], len(held),
               "in seconds", bool(whole_s[1] < 10.0))
    )  # fmt: skip
    for name, values in (("memory", held), ("memory at most meanwhile", most)):
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        bench.results.figures.append(
            Figure(PART, f"{name} / index plus texts, {data.name}", middle, "x", low, high,
                   len(values), f"<= {MEMORY_MAX}x", bool(middle <= MEMORY_MAX))
        )  # fmt: skip


def _run(*words: str) -> bytes:
    return subprocess.run(words, check=True, capture_output=True).stdout


def opened(snapshot: Path) -> dict[str, float]:
    """Open a snapshot in this process: seconds, and memory over the bytes of index and texts."""
    from vectorstore.faiss.engine import faiss
    from vectorstore.faiss.snapshot import load_snapshot

    # FAISS is loaded on first use; its own memory is not the index's.
    faiss.IndexFlat(1)
    before = _memory("VmRSS")
    started = time.perf_counter()
    store = load_snapshot(snapshot)
    seconds = time.perf_counter() - started
    held, most = _memory("VmRSS") - before, _memory("VmHWM") - before
    texts = 0
    for start in range(0, store.count(), SCAN_ROWS):
        texts += sum(len(one.text.encode()) for one in store.records(start, start + SCAN_ROWS))
    size = (snapshot / "index.faiss").stat().st_size + texts
    return {"seconds": seconds, "held": held / size, "most": most / size}


def _memory(name: str) -> int:
    """Bytes that the kernel counts for this process under this name."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise LookupError(name)


if __name__ == "__main__":
    print(json.dumps(opened(Path(sys.argv[1]))))
