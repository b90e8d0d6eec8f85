"""Retrieval on the real handbook: the right passage among the first five, the same in every store.

The questions and their passages were written before any result was looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farming_guide.answers import Advisor
from farming_guide.catalogue import HANDBOOK, read_catalogue
from farming_guide.faiss_backend import FaissBackend
from farming_guide.ingestion import all_records
from farming_guide.knowledge_base import Summary, build
from farming_guide.local_embedder import LocalEmbedder
from shadow import load_settings, open_router
from vectorstore.memory import MemoryStore
from vectorstore.port import VectorStore

QUESTIONS = sorted((Path(__file__).parents[1] / "data").glob("handbook_questions*.jsonl"))
RECALL_AT_5_MIN = 0.85
CHUNKS_MIN = 382
EMBEDDER = LocalEmbedder(threads=2)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return build(HANDBOOK, tmp_path_factory.mktemp("knowledge_base"), EMBEDDER)


def questions() -> list[dict[str, str]]:
    return [json.loads(line) for path in QUESTIONS for line in path.read_text().splitlines()]


def plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def recall_at_5(store: VectorStore) -> float:
    """The share of questions whose passage is in one of the first five of its own document."""
    advisor = Advisor(store, EMBEDDER, read_catalogue(HANDBOOK), top_k=5)
    found = 0
    for entry in questions():
        source = entry["document"].replace(".md", ".pdf")
        passages, _ = advisor.passages(entry["question"])
        found += any(
            plain(entry["passage"]) in plain(passage.body) and passage.source_document == source
            for passage in passages
        )
    return found / len(questions())


def test_recall_is_good_and_equal_in_every_store(
    built: Summary,
    postgres_store: Callable[..., Any],
    postgresql_dsn: str,
    fresh_table: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """FAISS as taken in from the bot's layout, PostgreSQL, the router and the exact reference agree."""
    assert len(questions()) >= 60
    faiss = FaissBackend(dimension=384, storage_path=str(built.index_path.parent)).store
    postgresql, memory = postgres_store(dimension=384), MemoryStore(dimension=384)
    records = list(all_records(faiss))
    postgresql.upsert(records)
    memory.upsert(records)
    router = open_router(
        load_settings(
            environment={
                "SHADOW_STATE_DIRECTORY": str(tmp_path / "state"),
                "SHADOW_FAISS__PATH": str(built.index_path.parent),
                "SHADOW_POSTGRESQL__TABLE": fresh_table,
                "SHADOW_MIRROR__EVENTS": "off",
                "DATABASE_URL": postgresql_dsn,
            }
        )
    )
    recall = {one.name: recall_at_5(one) for one in (faiss, postgresql, router, memory)}
    router.close()
    with capsys.disabled():
        print(f"\nrecall@5 on {len(questions())} questions: {recall}")
    assert len(set(recall.values())) == 1
    assert recall["faiss"] >= RECALL_AT_5_MIN


def test_the_handbook_is_large_enough_and_reads_back_whole(built: Summary) -> None:
    """At least as many chunks as the bot of the story, and every passage asked for is in one."""
    assert built.chunks >= CHUNKS_MIN
    store = FaissBackend(dimension=384, storage_path=str(built.index_path.parent)).store
    texts = [plain(record.text) for record in all_records(store)]
    missing = [
        q["passage"] for q in questions() if not any(plain(q["passage"]) in t for t in texts)
    ]
    assert missing == []


def test_the_threshold_tells_farming_from_other_talk(built: Summary) -> None:
    """Nearly every question of the handbook is answered, and none of these is."""
    store = FaissBackend(dimension=384, storage_path=str(built.index_path.parent)).store
    advisor = Advisor(store, EMBEDDER, read_catalogue(HANDBOOK))
    known = [advisor.answer(entry["question"]).known for entry in questions()]
    assert sum(known) >= 0.95 * len(known)
    for question in (
        "What is the capital of France?",
        "Who won the world cup?",
        "How do I apply for a passport?",
        "What is the price of bitcoin today?",
        "Tell me a joke",
    ):
        assert not advisor.answer(question).known
