"""Retrieval on the real handbook: the right passage among the first five, the same in every store.

The questions and their passages were written before any result was looked at.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.retrieval import questions, retrieval
from farming_guide.answers import Advisor
from farming_guide.catalogue import HANDBOOK, read_catalogue
from farming_guide.faiss_backend import FaissBackend
from farming_guide.ingestion import all_records
from farming_guide.knowledge_base import Summary, build
from farming_guide.local_embedder import LocalEmbedder

# The whole handbook is embedded for these: half a minute on one core.
pytestmark = pytest.mark.slow

RECALL_AT_5_MIN = 0.85
CHUNKS_MIN = 382
EMBEDDER = LocalEmbedder(threads=2)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return build(HANDBOOK, tmp_path_factory.mktemp("knowledge_base"), EMBEDDER)


def plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def test_recall_is_good_and_equal_in_every_store_and_phase(
    built: Summary, postgresql_dsn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """FAISS as taken in from the bot's layout, PostgreSQL, the exact reference, and the router in each
    phase find the right passage equally often."""
    assert len(questions()) >= 60
    found = list(retrieval(built.index_path.parent, postgresql_dsn, EMBEDDER, tmp_path))
    with capsys.disabled():
        print(f"\nrecall@5 on {len(questions())} questions:")
        for one in found:
            print(f"  {one.where}: {one.recall:.4f}, answered by {', '.join(one.answered_by)}")
    assert {one.where: one.answered_by for one in found} == {
        "faiss alone": ("faiss",),
        "postgresql alone": ("postgresql",),
        "memory alone": ("memory",),
        "router in faiss": ("faiss",),
        "router in shadow": ("faiss",),
        "router in ramp": ("faiss", "postgresql"),
        "router in postgresql": ("postgresql",),
    }
    assert len({one.recall for one in found}) == 1
    assert found[0].recall >= RECALL_AT_5_MIN


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
