"""Retrieval on the farming handbook, in every store and every phase: ``python -m benchmarks.retrieval``.

Prints recall@5 over questions whose right passages were written down before any result was looked at.
Exit code 0 if it is the same everywhere, 1 if not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from farming_guide.catalogue import HANDBOOK
from farming_guide.embeddings import Embedder
from farming_guide.faiss_backend import FaissBackend
from farming_guide.ingestion import all_records
from farming_guide.knowledge_base import build
from farming_guide.local_embedder import LocalEmbedder
from farming_guide.passages import Passage
from shadow import load_settings, open_router
from shadow.router import Router
from vectorstore.memory import MemoryStore
from vectorstore.port import VectorStore
from vectorstore.postgres.embedded import EmbeddedServer
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Query, Vector

__all__ = ["Retrieved", "main", "questions", "retrieval"]

K = 5
PHASE_S_MAX = 30.0
QUESTIONS = Path(__file__).resolve().parents[1] / "tests" / "data"
UNDECIDED = 4
# The commands that lead to each phase, in order; forced, because a measurement waits for no traffic.
# A ramp lasts while PostgreSQL is wished for: the first cutover leaves the wish, without evidence.
PHASES: Mapping[str, Sequence[Sequence[str]]] = {
    "faiss": (),
    "shadow": (("backfill",), ("verify",)),
    "ramp": (
        ("cutover", "--wait", "0"),
        ("ramp", "50", "--force", "a measurement"),
    ),
    "postgresql": (("cutover", "--force", "a measurement"),),
}


@dataclass(frozen=True, slots=True)
class Retrieved:
    """Recall@5 of one store or phase, and the stores that gave the answers."""

    where: str
    recall: float
    answered_by: tuple[str, ...]


def questions() -> list[dict[str, str]]:
    """Each with ``question``, ``document`` and the ``passage`` that answers it."""
    files = sorted(QUESTIONS.glob("handbook_questions*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text("utf-8").splitlines()]


def retrieval(index: Path, dsn: str, embedder: Embedder, folder: Path) -> Iterator[Retrieved]:
    """Measure the stores one by one, then the router in each phase.

    ``index``: a knowledge base that :func:`farming_guide.knowledge_base.build` wrote. ``folder``: an
    empty one for the router's state. The database of ``dsn`` gets two tables.
    """
    vectors = embedder.embed([entry["question"] for entry in questions()])
    faiss = FaissBackend(dimension=embedder.dimension, storage_path=str(index)).store
    records = list(all_records(faiss))
    settings = PostgresSettings(dsn=dsn, dimension=embedder.dimension, table="retrieval_alone")
    with closing(PostgresStore.open(settings)) as postgresql:
        exact = MemoryStore(dimension=embedder.dimension)
        postgresql.upsert(records)
        exact.upsert(records)
        stores: list[VectorStore] = [faiss, postgresql, exact]
        for store in stores:
            yield _measured(f"{store.name} alone", store, vectors)
    environment = {
        "SHADOW_STATE_DIRECTORY": str(folder / "state"),
        "SHADOW_FAISS__PATH": str(index),
        "SHADOW_POSTGRESQL__TABLE": "retrieval_router",
        "SHADOW_MIRROR__EVENTS": "off",
        "SHADOW_LOG_LEVEL": "error",
        "DATABASE_URL": dsn,
    }
    with closing(open_router(load_settings(environment=environment))) as router:
        for phase, commands in PHASES.items():
            for command in commands:
                _run(command, environment)
            _await(router, phase)
            yield _measured(f"router in {phase}", router, vectors)


def _measured(where: str, store: VectorStore, vectors: Vector) -> Retrieved:
    found, stores = 0, set()
    for entry, vector in zip(questions(), vectors, strict=True):
        answer = store.search(Query(vector, k=K))
        stores.add(answer.store)
        source = entry["document"].replace(".md", ".pdf")
        found += any(
            _plain(entry["passage"]) in _plain(passage.body) and passage.source_document == source
            for passage in map(Passage.of, answer.hits)
        )
    return Retrieved(where, found / len(vectors), tuple(sorted(stores)))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shadow", *command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, UNDECIDED):
        raise SystemExit(f"shadow {' '.join(command)} failed: {done.stderr[-1000:]}")


def _await(router: Router, phase: str) -> None:
    deadline = time.monotonic() + PHASE_S_MAX
    while router.route.phase.value != phase:
        if time.monotonic() > deadline:
            raise SystemExit(f"the router is in {router.route.phase.value}, not in {phase}")
        time.sleep(0.02)


def main() -> int:
    """Build the knowledge base, measure, print; the exit code."""
    embedder = LocalEmbedder(threads=os.cpu_count() or 1)
    with (
        tempfile.TemporaryDirectory(prefix="retrieval-") as name,
        EmbeddedServer(Path(name) / "postgresql") as dsn,
    ):
        folder = Path(name)
        console = Console(highlight=False)
        with console.status("embedding the handbook"):
            summary = build(HANDBOOK, folder / "index", embedder)
        table = Table(
            "where",
            f"recall@{K}",
            "answered by",
            title=f"{len(questions())} questions, {summary.chunks} chunks, {summary.model}",
        )
        found = list(retrieval(folder / "index", dsn, embedder, folder))
    for one in found:
        table.add_row(one.where, f"{one.recall:.4f}", ", ".join(one.answered_by))
    console.print(table)
    return 0 if len({one.recall for one in found}) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
