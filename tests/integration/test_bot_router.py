"""What the bot tells the router, and what `/status` tells of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from farming_guide.local_embedder import LocalEmbedder
from farming_guide.settings import load_settings
from farming_guide.wiring import open_backend
from shadow.evidence import EvidenceBook
from tests.acceptance.operator import Operator
from tests.fakes.handbook import bot_over, filled
from tests.plugins.migrations import until
from vectorstore.port import VectorStore

EMBEDDER = LocalEmbedder()


@pytest.fixture
def operator(tmp_path: Path, postgresql_dsn: str, fresh_table: str) -> Operator:
    return Operator(
        tmp_path,
        {
            "SHADOW_FAISS__DIMENSION": str(EMBEDDER.dimension),
            "DATABASE_URL": postgresql_dsn,
            "SHADOW_POSTGRESQL__TABLE": fresh_table,
        },
    )


@pytest.fixture
def store(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> Iterator[VectorStore]:
    """The router, as the bot opens it."""
    for name, value in operator.environment.items():
        monkeypatch.setenv(name, value)
    backend = open_backend(
        load_settings({}), EMBEDDER.dimension, name="shadow", model=EMBEDDER.model
    )
    yield backend.store
    backend.store.close()


def test_status_tells_who_answers_and_the_lag(
    operator: Operator, store: VectorStore, tmp_path: Path
) -> None:
    """Before a backfill PostgreSQL does not follow; after it the lag is told, and it reaches nought."""
    filled(store, EMBEDDER, tmp_path / "handbook")
    bot = bot_over(store, EMBEDDER, tmp_path / "handbook", "http://127.0.0.1:9")
    told = bot.reply("/status")
    assert "Answers come from: faiss" in told
    assert "Vectors: 7 of 384 dimensions" in told
    assert "Guides: 4 of 4" in told
    assert "Phase: faiss" in told
    assert "Lag: PostgreSQL does not follow yet" in told
    operator.done("backfill")
    until("no lag", lambda: "Lag: 0 writes" in bot.reply("/status"))
    until("the phase shadow", lambda: "Phase: shadow" in bot.reply("/status"))


def test_the_era_knows_the_embedding_model_and_a_command_does_not_forget_it(
    operator: Operator, store: VectorStore, tmp_path: Path
) -> None:
    """Evidence is noted under the bot's model; a command that is not told the model opens no era."""
    filled(store, EMBEDDER, tmp_path / "handbook")
    bot = bot_over(store, EMBEDDER, tmp_path / "handbook", "http://127.0.0.1:9")
    operator.done("backfill")
    book = EvidenceBook(operator.folder / "state")

    def noted() -> object:
        bot.reply("How far apart is maize planted?")
        era = book.era()
        return None if era is None else era.settings["embedding_model"]

    until("the model in the era", lambda: noted() == EMBEDDER.model)
    eras = book.eras_count()
    operator.done("backfill")
    assert noted() == EMBEDDER.model
    assert book.eras_count() == eras
    book.close()
