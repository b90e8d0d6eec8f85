"""The story that the demonstration tells, phase by phase, with the real commands."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from farming_guide.demo.traffic import Traffic
from farming_guide.embeddings import Embedder, embedder_from_environment
from farming_guide.knowledge_base import HANDBOOK, build, different_queries
from farming_guide.wiring import ShadowBackend
from vectorstore.errors import StoreUnavailable, VectorStoreError
from vectorstore.port import VectorStore

__all__ = ["main"]

OUTPUT = Path("demo-output")
MARKER = ".made-by-the-demo"
PHASE_S_MAX = 90.0
EVIDENCE_S_MAX = 120.0
REVERSE_QUERIES = 150

SETTINGS = """\
# Made by the demonstration; `shadow -c demo-output/shadow.toml status` looks at what it left.
state_directory = "{state}"

[faiss]
path = "{index}"

[mirror]
events = "off"

[gate]
duration_s_min = 5.0       # a real migration gathers evidence for a day
distinct_queries_min = 60
latency_budget_ms = 200.0  # two cores are shared by bot, farmers, embedding model and PostgreSQL here
"""

out = Console(highlight=False)


def main() -> int:
    """Run the demonstration; 0 if it ended on PostgreSQL with nothing lost."""
    started = time.monotonic()
    # What the story prints is enough; a fault of the router's still shows.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        return _run(started)
    except KeyboardInterrupt:
        out.print("\ninterrupted; nothing is left running")
        return 130
    except VectorStoreError as error:
        out.print(f"demo: {error}", markup=False)
        return 2


def _run(started: float) -> int:
    folder = _fresh(OUTPUT.absolute())
    _title("1", "A bot's knowledge base on FAISS")
    embedder = embedder_from_environment()
    _build(folder, embedder)
    config = folder / "shadow.toml"
    config.write_text(
        SETTINGS.format(state=folder / "state", index=folder / "kb"), encoding="utf-8"
    )
    shadow = _Commands(config)

    _title("2", "The bot opens its store: FAISS answers, farmers ask, an editor writes")
    backend = ShadowBackend(
        dimension=embedder.dimension, config=str(config), embedding_model=embedder.model
    )
    traffic = Traffic(backend.store, embedder, different_queries())
    traffic.start()
    try:
        return _migrate(shadow, traffic, backend.store, folder, started)
    finally:
        traffic.stop()
        backend.store.close()


def _migrate(
    shadow: _Commands, traffic: Traffic, store: VectorStore, folder: Path, started: float
) -> int:
    _until("both sides of the traffic", 60, lambda: bool(traffic.tallies.written))
    _title("3", "Backfill into PostgreSQL + pgvector, under that traffic")
    shadow.run("backfill")
    _title("4", "Verify: the copy is the same, bit for bit")
    shadow.run("verify")
    _title("5", "Shadow: every question is mirrored, and the gate gathers evidence")
    _gather(shadow)
    shadow.run("report", "--subject", "the farming handbook")
    _title("6", "Rehearsal: flip and back, on live data")
    shadow.run("rehearse")
    _title("7", "PRIMARY=postgresql in another process; the running bot follows")
    flipped_at = traffic.tallies.answered["postgresql"]
    shadow.ask_with_primary("postgresql", "When do I plant maize in Lilongwe?")
    _flip(shadow)
    _title("8", "Reverse shadow: PostgreSQL answers, FAISS is mirrored to and stays ready")
    _until(
        f"{REVERSE_QUERIES} answers by PostgreSQL",
        PHASE_S_MAX,
        lambda: traffic.tallies.answered["postgresql"] - flipped_at >= REVERSE_QUERIES,
    )
    traffic.stop()
    _title("9", "Verify again, and the last report")
    shadow.run("verify")
    shadow.run("report", "--subject", "the farming handbook", "-o", str(folder))
    return _summary(shadow, traffic, store, folder, started)


def _build(folder: Path, embedder: Embedder) -> None:
    with Progress(
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=out,
    ) as progress:
        tasks = {name: progress.add_task(name, total=None) for name in ("read", "embed")}

        def step(stage: str, done: int, total: int) -> None:
            progress.update(tasks[stage], completed=done, total=total)

        summary = build(HANDBOOK, folder / "kb", embedder, step)
    out.print(
        f"{summary.documents} guides, {summary.pages} PDF pages, {summary.chunks} chunks, "
        f"{summary.dimension} dimensions ({summary.model}), saved in the bot's own layout"
    )


def _gather(shadow: _Commands) -> None:
    """Wait for Pass, showing how far each figure is."""
    deadline = time.monotonic() + EVIDENCE_S_MAX
    with Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(),
        TextColumn("{task.fields[said]}"),
        console=out,
    ) as progress:
        tasks: dict[str, Any] = {}
        while True:
            found = shadow.status()
            for figure in found["figures"]:
                name = f"{figure['name']}: shown / asked for"
                if name not in tasks:
                    tasks[name] = progress.add_task(name, total=1.0, said="")
                share = min(1.0, figure["lower_bound"] / figure["threshold"])
                said = (
                    f"{at_least(figure['lower_bound'])} / {figure['threshold']:g} "
                    f"after {figure['queries']} queries"
                )
                progress.update(tasks[name], completed=share, said=said)
            if found["verdict"] == "pass":
                return
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"no Pass within {EVIDENCE_S_MAX:.0f} s: {'; '.join(found['open'])}"
                )


def at_least(bound: float) -> str:
    """A lower bound with four decimals, cut and not rounded, as in the report: .94996 is not yet .95."""
    # The small addend undoes binary representation: .95 * 10,000 is 9499.999...
    return f"{math.floor(bound * 10_000 + 1e-6) / 10_000:.4f}"


def _flip(shadow: _Commands) -> None:
    deadline = time.monotonic() + PHASE_S_MAX
    while (found := shadow.status())["phase"] != "postgresql":
        if time.monotonic() > deadline:
            waiting = "; ".join(found["waiting_for"]) or "nothing that it tells"
            raise StoreUnavailable(f"no flip within {PHASE_S_MAX:.0f} s; it waits for: {waiting}")


def _summary(
    shadow: _Commands, traffic: Traffic, store: VectorStore, folder: Path, started: float
) -> int:
    tallies, found = traffic.tallies, shadow.status()
    missing = traffic.missing_after([store])
    good = (
        found["phase"] == "postgresql"
        and found["verdict"] == "pass"
        and not (tallies.failed or tallies.unseen or missing)
    )
    table = Table(title="PASS" if good else "NOT PASSED", show_header=False, title_justify="left")
    rows = {
        "primary": f"{found['primary']} (PRIMARY=postgresql)",
        "verdict": found["verdict"].upper(),
        **{
            f"{figure['name']} shown": f"at least {at_least(figure['lower_bound'])} of {figure['queries']} "
            f"queries (asked for: {figure['threshold']:g})"
            for figure in found["figures"]
        },
        "questions answered": f"{tallies.answered['faiss']:,} by FAISS, "
        f"{tallies.answered['postgresql']:,} by PostgreSQL, {len(tallies.failed)} failed",
        "writes": f"{tallies.written:,} notes written, {tallies.deleted:,} deleted, "
        f"{len(tallies.unseen)} not seen by their writer, {len(missing)} missing in the end",
        "verify": f"{found['verify']['state']}, {found['verify']['rows']:,} rows",
        "report": str(folder / "parity-report.html"),
        "took": f"{time.monotonic() - started:.0f} s",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    out.print()
    out.print(table)
    for problem in (*tallies.failed[:3], *tallies.unseen[:3], *missing[:3], *found["open"]):
        out.print(f"  problem: {problem}", markup=False)
    return 0 if good else 1


class _Commands:
    """Runs `shadow` as an operator would."""

    def __init__(self, config: Path) -> None:
        self._config = config

    def run(self, command: str, *options: str) -> None:
        """Run a command and let it speak; a failure ends the demonstration."""
        out.print(f"[bold]$ shadow {' '.join((command, *options))}[/bold]")
        done = self._call(command, *options, show=True)
        if done.returncode:
            raise StoreUnavailable(f"`shadow {command}` ended with exit code {done.returncode}")

    def ask_with_primary(self, primary: str, question: str) -> None:
        """Start another process of the bot with PRIMARY in its environment, as a deployment does."""
        out.print(f"[bold]$ PRIMARY={primary} farming-guide ask '{question}'[/bold]")
        environment = {
            "PRIMARY": primary,
            "VECTOR_DB_TYPE": "shadow",
            "SHADOW_CONFIG": str(self._config),
            "SHADOW_LOG_LEVEL": "warning",
        }
        done = subprocess.run(  # noqa: S603 - our own command with our own arguments
            [sys.executable, "-m", "farming_guide.cli", "ask", question],
            env={**os.environ, **environment},
            check=False,
        )
        if done.returncode:
            raise StoreUnavailable(f"`farming-guide ask` ended with {done.returncode}")

    def status(self) -> dict[str, Any]:
        """What `shadow status --json` prints."""
        done = self._call("status", "--json", show=False)
        if done.returncode:
            raise StoreUnavailable(f"`shadow status` failed: {done.stderr}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def _call(self, command: str, *options: str, show: bool) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - our own command with our own arguments
            [sys.executable, "-m", "shadow", command, "-c", str(self._config), *options],
            text=True,
            check=False,
            stdout=None if show else subprocess.PIPE,
            stderr=None if show else subprocess.PIPE,
        )


def _fresh(folder: Path) -> Path:
    """An empty folder of our own; one that is not ours is left alone."""
    if folder.exists():
        if not (folder / MARKER).exists():
            raise StoreUnavailable(f"{folder} exists and was not made by this demo: move it away")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()
    return folder


def _until(what: str, seconds_max: float, met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds_max
    while not met():
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"{what}: not within {seconds_max:.0f} s")
        time.sleep(0.05)


def _title(number: str, text: str) -> None:
    out.print()
    out.rule(f"[bold]{number}. {text}[/bold]", align="left")
