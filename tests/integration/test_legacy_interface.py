"""The FAISS-only bot's interface over the stores: same names, same shapes, errors instead of silence."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from farming_guide import bot_layout
from farming_guide.legacy import SemanticSearch, VectorDatabase, create_vector_database
from farming_guide.local_embedder import LocalEmbedder
from farming_guide.migrator import DatabaseMigrator
from farming_guide.settings import BotSettings, load_settings
from farming_guide.wiring import open_backend
from tests.fakes.handbook import write_handbook
from vectorstore.errors import ConfigurationError, InvalidInput, StoreUnavailable
from vectorstore.postgres.loading import begin_load
from vectorstore.postgres.store import PostgresStore

DIMENSION = 16


@pytest.fixture
def settings(postgresql_dsn: str) -> BotSettings:
    return load_settings({"DATABASE_URL": postgresql_dsn})


@pytest.fixture(params=["faiss", "postgresql"])
def database(
    request: pytest.FixtureRequest, settings: BotSettings, fresh_table: str, tmp_path: Path
) -> Iterator[VectorDatabase]:
    own = {
        "faiss": {"storage_path": str(tmp_path / "vector_db")},
        "postgresql": {"table_name": fresh_table},
    }[request.param]
    opened = create_vector_database(request.param, DIMENSION, settings=settings, **own)
    yield opened
    opened.close()


def embeddings(count: int) -> list[list[float]]:
    return np.random.default_rng(3).normal(size=(count, DIMENSION)).tolist()


def chunks(count: int) -> list[dict[str, Any]]:
    """Both shapes, mixed; chunk_id restarts in each document."""
    mixed: list[dict[str, Any]] = []
    for i in range(count):
        source = f"guide{i // 5}.pdf"
        nested = {"source_document": source, "file_path": source, "document_type": "crop guide"}
        mixed.append(
            {"text": f"text {i}", "chunk_id": i % 5, "token_count": 2, "metadata": nested}
            if i % 2
            else {
                "text": f"text {i}",
                "chunk_id": i % 5,
                "source_document": source,
                "char_count": 6,
            }
        )
    return mixed


def test_add_search_and_statistics(database: VectorDatabase) -> None:
    """Results have the old keys; the nearest is first with score 1; statistics count both shapes."""
    vectors = embeddings(20)
    assert database.add_vectors(vectors, chunks(20)) is True
    results = database.search(vectors[7], top_k=3, threshold=-1.0)
    assert [result["rank"] for result in results] == [1, 2, 3]
    best = results[0]
    assert (best["text"], best["source_document"]) == ("text 7", "guide1.pdf")
    assert best["score"] == pytest.approx(1.0, abs=1e-5)
    assert best["token_count"] == 2
    assert best["document_type"] == "crop guide"
    assert database.search(vectors[7], top_k=3, threshold=0.99)[1:] == []
    stats = database.get_database_stats()
    assert (stats["total_vectors"], stats["unique_documents"], stats["dimension"]) == (20, 4, 16)
    batch = database.batch_search([vectors[0], vectors[11]], top_k=1)
    assert [found[0]["text"] for found in batch] == ["text 0", "text 11"]


def test_filters_by_document_and_type(database: VectorDatabase) -> None:
    """The filter works while searching: matching rows come back although others are nearer."""
    vectors = embeddings(20)
    database.add_vectors(vectors, chunks(20))
    found = database.search(vectors[0], top_k=5, threshold=-1, filter_by_document="guide3.pdf")
    assert len(found) == 5
    assert {result["source_document"] for result in found} == {"guide3.pdf"}
    typed = database.search(vectors[0], top_k=20, threshold=-1, filter_by_type="crop guide")
    assert len(typed) == 10


def test_the_same_chunk_again_replaces_itself(database: VectorDatabase) -> None:
    """A loader that runs twice does not double the knowledge base."""
    for _ in range(2):
        database.add_vectors(embeddings(10), chunks(10))
    assert database.get_database_stats()["total_vectors"] == 10


def test_remove_and_clear(database: VectorDatabase) -> None:
    """A document goes alone; a second time there is nothing; clearing leaves an empty store."""
    database.add_vectors(embeddings(20), chunks(20))
    assert database.remove_vectors_by_document("guide2.pdf") is True
    assert database.remove_vectors_by_document("guide2.pdf") is False
    assert database.get_database_stats()["total_vectors"] == 15
    database.clear_database()
    assert database.get_database_stats()["total_vectors"] == 0
    assert database.search(embeddings(1)[0], threshold=-1) == []


def test_failures_raise(database: VectorDatabase) -> None:
    """What used to be False or an empty list is an error that says why."""
    with pytest.raises(InvalidInput, match="one each"):
        database.add_vectors(embeddings(2), chunks(3))
    with pytest.raises(InvalidInput, match="16 dimensions"):
        database.search([1.0, 2.0])
    with pytest.raises(InvalidInput, match="names its own files"):
        database.save_index("mine")
    database.close()
    with pytest.raises(StoreUnavailable):
        database.search(embeddings(1)[0])


def test_faiss_comes_back_after_saving(settings: BotSettings, tmp_path: Path) -> None:
    """What was saved is there in the next process, what was not is not."""
    own = {"storage_path": str(tmp_path / "vector_db")}
    one = create_vector_database("faiss", DIMENSION, settings=settings, **own)
    one.add_vectors(embeddings(10), chunks(10))
    assert one.save_index()
    one.add_vectors(embeddings(12)[10:], chunks(12)[10:])
    two = create_vector_database("faiss", DIMENSION, settings=settings, **own)
    assert two.get_database_stats()["total_vectors"] == 10
    assert one.load_index()
    assert one.get_database_stats()["total_vectors"] == 10
    with pytest.raises(ConfigurationError, match="16 dimensions, not 32"):
        create_vector_database("faiss", 32, settings=settings, **own)


def test_semantic_search_over_documents(
    settings: BotSettings, fresh_table: str, tmp_path: Path
) -> None:
    """PDFs in, questions answered with preview and relevance, documents listed, filter by document."""
    search = SemanticSearch(
        database=create_vector_database(
            "postgresql", 384, settings=settings, table_name=fresh_table
        ),
        embedder=LocalEmbedder(),
    )
    pdfs = write_handbook(tmp_path / "handbook")
    assert search.process_pdf_documents([str(path) for path in pdfs])
    found = search.search_documents("How far apart is maize planted?", top_k=2, threshold=0.3)
    assert "25 cm" in found[0]["text"]
    assert found[0]["query"] == "How far apart is maize planted?"
    assert found[0]["relevance"] in {"high", "medium", "low"}
    only = search.search_documents("planting", threshold=-1, filter_by_document="tomatoes.pdf")
    assert {result["source_document"] for result in only} == {"tomatoes.pdf"}
    status = search.get_database_status()
    assert status["processed_documents"] == [
        "chickens.pdf", "groundnuts.pdf", "maize.pdf", "tomatoes.pdf",
    ]  # fmt: skip
    assert (
        search.search("aflatoxin", top_k=1, threshold=0.2)[0]["source_document"] == "groundnuts.pdf"
    )
    with pytest.raises(InvalidInput, match="empty"):
        search.search("  ")
    search.vector_db.close()


def test_one_shot_migration_and_its_way_back(
    settings: BotSettings, fresh_table: str, tmp_path: Path
) -> None:
    """Every record arrives bit for bit, the files are backed up, and the backup can be put back."""
    folder = tmp_path / "vector_db"
    vectors = np.array(embeddings(30), dtype=np.float32)
    bot_layout.write(folder, chunks(30), vectors)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    migrator = DatabaseMigrator(str(tmp_path / "backups"), settings=settings)
    params = {"table_name": fresh_table}
    assert migrator.migrate_faiss_to_postgresql(str(folder), params) is True
    moved = create_vector_database("postgresql", DIMENSION, settings=settings, **params)
    assert moved.get_database_stats()["total_vectors"] == 30
    assert moved.search(vectors[4].tolist(), top_k=1)[0]["text"] == "text 4"
    assert migrator.migrate_faiss_to_postgresql(str(folder), params) is True  # again: no harm
    moved.add_vectors(embeddings(1), [{"text": "of someone else", "source_document": "x"}])
    with pytest.raises(ConfigurationError, match="other records"):
        migrator.migrate_faiss_to_postgresql(str(folder), params)
    moved.close()
    shutil.rmtree(folder)
    stamp = migrator.get_migration_status(str(folder))["backups"][0]
    assert migrator.rollback_migration(stamp, str(folder)) is True
    assert before.items() <= {p.name: p.read_bytes() for p in folder.iterdir()}.items()
    with pytest.raises(ConfigurationError, match="there are"):
        migrator.rollback_migration("20000101_000000", str(folder))


def test_one_shot_migration_leaves_the_load_of_a_router_alone(
    settings: BotSettings, fresh_table: str, tmp_path: Path
) -> None:
    """A table that a backfill is still filling is refused, and the backfill can go on."""
    folder = tmp_path / "vector_db"
    bot_layout.write(folder, chunks(3), np.array(embeddings(3), dtype=np.float32))
    params = {"table_name": fresh_table}
    with closing(open_backend(settings, DIMENSION, name="postgresql", **params).store) as table:
        assert isinstance(table, PostgresStore)
        begin_load(table, incarnation="of-a-router", snapshot_id="snapshot", seq=7)
        with pytest.raises(ConfigurationError, match="migration by the router"):
            DatabaseMigrator(
                str(tmp_path / "backups"), settings=settings
            ).migrate_faiss_to_postgresql(str(folder), params)
        assert (table.cursor().state, table.cursor().incarnation) == ("loading", "of-a-router")


def test_migration_status_says_what_is_in_the_way(tmp_path: Path, settings: BotSettings) -> None:
    """Counts where there is something, reasons where there is not; nothing is raised."""
    migrator = DatabaseMigrator(str(tmp_path / "backups"), settings=settings)
    status = migrator.get_migration_status(str(tmp_path / "nothing"))
    assert status["faiss_available"] is False
    assert "nothing" in status["faiss_problem"]
    bot_layout.write(tmp_path / "kb", chunks(5), np.array(embeddings(5), dtype=np.float32))
    away = load_settings({"DATABASE_URL": "postgresql://bot:hidden@127.0.0.1:9/none"})
    status = DatabaseMigrator(str(tmp_path / "b2"), settings=away).get_migration_status(
        str(tmp_path / "kb")
    )
    assert (status["faiss_vector_count"], status["postgresql_available"]) == (5, False)
    assert "hidden" not in status["postgresql_problem"]
