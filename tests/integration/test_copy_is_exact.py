"""What was in FAISS is in PostgreSQL: vectors and texts bit for bit, metadata as canonical JSON, and
the same answers with the same scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shadow.config_sources import load_settings
from shadow.core.comparison import compare
from shadow.opening import open_migration
from shadow.writes.backfill import backfill
from tests.acceptance.test_migration import DIMENSION, chunks, vectors
from tests.foreign.layouts import write_bot_layout
from vectorstore import Filter, Metric, Query
from vectorstore.canonical import canonical_json

ROWS = 400
ODD_METADATA: dict[str, Any] = {
    "é\u2028": ["ä", None, True, 1e22, -0.0, 5e-324, 2**70],
    "nested": {"b": 1, "aa": [1.0, 1]},
    'quote"back\\slash': "tab\tnewline\n",
}
Copied = tuple[Any, Any]


@pytest.fixture(params=["flat", "ivf", "hnsw"])
def copied(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    postgresql_dsn: str,
    fresh_table: str,
) -> Any:
    """The bot's index in FAISS and in PostgreSQL. ``flat`` is cosine, the others are L2 and raw."""
    found = vectors(ROWS, DIMENSION)
    scale = 1.0 if request.param == "flat" else 3.0
    parts = chunks(ROWS)
    parts[5] = {**parts[5], **ODD_METADATA}
    index = tmp_path / "index"
    index.mkdir()
    write_bot_layout(index, request.param, (found * scale).astype(np.float32), parts)
    migration = open_migration(
        load_settings(
            environment={
                "SHADOW_STATE_DIRECTORY": str(tmp_path / "state"),
                "SHADOW_FAISS__PATH": str(index),
                "DATABASE_URL": postgresql_dsn,
                "SHADOW_POSTGRESQL__TABLE": fresh_table,
            }
        )
    )
    store = migration.link.open()
    backfill(
        directory=tmp_path / "state",
        journal=migration.journal,
        snapshots=migration.snapshots,
        store=store,
        current=lambda: migration.load_faiss().store,
    )
    yield migration.load_faiss().store, store
    migration.close()


def test_every_record_comes_back_as_it_was(copied: Copied) -> None:
    """Ids, seqs, vectors and texts equal to the bit; metadata equal as canonical JSON."""
    faiss, postgresql = copied
    ours = {record.id: record for record in faiss.scan(limit=10_000)}
    theirs = {record.id: record for record in postgresql.scan(limit=10_000)}
    assert ours.keys() == theirs.keys()
    assert len(ours) == ROWS
    for name, mine in ours.items():
        other = theirs[name]
        assert mine.embedding.tobytes() == other.embedding.tobytes()
        assert (mine.text, mine.seq) == (other.text, other.seq)
        assert canonical_json(mine.metadata) == canonical_json(other.metadata)


def test_answers_agree_with_ties_counted_and_scores_within_rounding(copied: Copied) -> None:
    """recall@10 between the stores is 1.0 by exact search, filtered or not, and scores of the same
    record differ by at most 1e-5 of |q| |x|."""
    faiss, postgresql = copied
    one = Filter.of({"source_document": "guide-3.pdf"})
    two = Filter.of({"source_document": ["guide-3.pdf", "guide-4.pdf"], "chunk_id": [1, 2, 3]})
    for number, vector in enumerate(vectors(60, DIMENSION, seed=9)):
        query = Query(vector * 2.0, 10, (None, one, two)[number % 3])
        ours, theirs = faiss.search_exact(query).hits, postgresql.search(query).hits
        found = compare(
            [(hit.id, hit.score) for hit in ours],
            [(hit.id, hit.score) for hit in theirs],
            k=10,
            tolerance=1e-5 * scale(faiss.metric),
            live=lambda name: bool(faiss.get([name])),
        )
        assert found.recall == 1.0
        scores = {hit.id: hit.score for hit in theirs}
        for hit in ours:
            if hit.id in scores:
                assert abs(hit.score - scores[hit.id]) <= 1e-5 * scale(faiss.metric)


def scale(metric: Metric) -> float:
    """|q| |x| of these tests' queries and rows."""
    return 1.0 if metric is Metric.COSINE else 2.0 * 3.0
