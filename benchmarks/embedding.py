"""A question end to end: embedded by the offline model, then searched."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.interleave import Side, interleave, ratio
from benchmarks.stores import faiss_store, filled_table
from vectorstore.errors import ConfigurationError
from vectorstore.port import VectorStore
from vectorstore.types import Query

__all__ = ["end_to_end"]

PART = "end to end"
QUESTIONS = (
    "When should I plant maize in Lilongwe?",
    "How do I store groundnuts so that they do not go mouldy?",
    "What spacing does cassava need?",
    "My tomato leaves have brown spots; what can I do?",
)


def end_to_end(bench: Bench) -> None:
    """What a user waits for before any language model is asked; skipped without the offline model."""
    from farming_guide.local_embedder import LocalEmbedder

    try:
        embedder = LocalEmbedder()
    except ConfigurationError as error:
        bench.say(f"end to end: left out ({error})")
        return
    data = bench.data(382, 384)
    table = filled_table(bench.dsn, data)
    stores: dict[str, VectorStore] = {"FAISS": faiss_store(data), "PostgreSQL": table}

    def ask(name: str, number: int) -> object:
        vector = embedder.embed([QUESTIONS[number % len(QUESTIONS)]])[0]
        return stores[name].search(Query(vector))

    found = interleave(
        {
            "embedding alone": Side(lambda n: embedder.embed([QUESTIONS[n % len(QUESTIONS)]])),
            "embedding + FAISS": Side(lambda n: ask("FAISS", n)),
            "embedding + PostgreSQL": Side(lambda n: ask("PostgreSQL", n)),
        },
        rounds=bench.scale.rounds(9),
        calls=16,
    )
    bench.results.read(PART, data.name, found)
    bench.results.ratio(
        PART, "embedding + PostgreSQL / embedding + FAISS, p50",
        ratio(found["embedding + PostgreSQL"], found["embedding + FAISS"]),
    )  # fmt: skip
    table.close()
