"""Every layout through the whole migration, by commands and real processes alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from tests.acceptance.operator import Operator
from tests.foreign.layouts import (
    write_bare_layout,
    write_bot_layout,
    write_langchain_layout,
    write_llamaindex_layout,
)

Vectors = npt.NDArray[np.float32]
Writer = Callable[[Path, Vectors], None]
ROWS, DIMENSION = 400, 32


def vectors(rows: int, dimension: int, *, seed: int = 1) -> Vectors:
    """Unit vectors, of one piece with the queries."""
    found = np.random.default_rng(seed).normal(size=(rows, dimension)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def chunks(rows: int) -> list[dict[str, Any]]:
    """Chunks of the bot in both shapes; `chunk_id` restarts in every document."""
    nested = [
        {
            "text": f"passage {n}",
            "chunk_id": n % 20,
            "start_token": 0,
            "end_token": 60,
            "token_count": 60,
            "metadata": {
                "source_document": f"guide-{n // 20}.pdf",
                "file_path": f"documents/guide-{n // 20}.pdf",
                "document_type": "pdf",
            },
        }
        for n in range(rows)
    ]
    flat = [
        {
            "text": f"passage {n}",
            "chunk_id": n % 20,
            "source_document": f"guide-{n // 20}.pdf",
            "char_count": 9,
        }
        for n in range(rows)
    ]
    return [nested[n] if (n // 20) % 2 else flat[n] for n in range(rows)]


def named(rows: int) -> tuple[list[str], list[str], list[dict[str, Any]]]:
    """Ids, texts and metadata."""
    return (
        [f"id-{n}" for n in range(rows)],
        [f"passage {n}" for n in range(rows)],
        [{"source": f"guide-{n // 20}.pdf", "page": n} for n in range(rows)],
    )


def bare(folder: Path, found: Vectors) -> None:
    index = faiss.IndexFlatIP(found.shape[1])
    index.add(found)
    ids, texts, metadata = named(len(found))
    write_bare_layout(folder, index, ids, texts, metadata)


LAYOUTS: dict[str, Writer] = {
    "bot-flat": lambda folder, v: void(write_bot_layout(folder, "flat", v, chunks(len(v)))),
    "bot-ivf": lambda folder, v: void(write_bot_layout(folder, "ivf", v, chunks(len(v)))),
    "bot-hnsw": lambda folder, v: void(write_bot_layout(folder, "hnsw", v, chunks(len(v)))),
    "langchain": lambda folder, v: void(write_langchain_layout(folder, v, *named(len(v)))),
    "llamaindex": lambda folder, v: void(write_llamaindex_layout(folder, v, *named(len(v)))),
    "bare": bare,
}


def void(_: object) -> None:
    """For its effect alone."""


@pytest.mark.parametrize(
    "layout",
    [
        # One of each kind of side file in the suite, all of them in `make test-all`.
        name if name in ("bot-flat", "bare") else pytest.param(name, marks=pytest.mark.slow)
        for name in LAYOUTS
    ],
)
def test_a_layout_goes_through_the_whole_migration(
    layout: str, tmp_path: Path, postgresql_dsn: str, fresh_table: str
) -> None:
    """Backfill, verify, report, cutover by PRIMARY=postgresql, rollback: nothing fails, nothing is lost."""
    index = tmp_path / "index"
    index.mkdir()
    LAYOUTS[layout](index, vectors(ROWS, DIMENSION))
    operator = Operator(
        tmp_path,
        {
            "SHADOW_FAISS__PATH": str(index),
            "DATABASE_URL": postgresql_dsn,
            "SHADOW_POSTGRESQL__TABLE": fresh_table,
            "SHADOW_GATE__RECALL_MIN": "0.9",
        },
    )
    migrate(operator, vectors(300, DIMENSION, seed=2))


def migrate(operator: Operator, queries: Vectors) -> None:
    """The whole way and back, under an application that reads and writes."""
    with operator.application(queries) as application:
        operator.done("backfill")
        assert "clean" in operator.done("verify")
        operator.until("Pass", lambda found: found["verdict"] == "pass")
        assert operator.run("report").returncode == 0
        # A deployment starts another process with PRIMARY set; the running one follows.
        with operator.application(queries[::-1].copy(), PRIMARY="postgresql") as second:
            flipped = application.until("the flip", lambda told: told["phase"] == "postgresql")
            application.until(
                "answers by PostgreSQL",
                lambda told: (
                    told["answered"].get("postgresql", 0)
                    > flipped["answered"].get("postgresql", 0) + 30
                ),
            )
            operator.done("rollback")
            application.until("the way back", lambda told: told["phase"] == "shadow")
            back = application.told()["answered"]["faiss"]
            application.until(
                "answers by FAISS", lambda told: told["answered"]["faiss"] > back + 30
            )
        # The environment of a restart is old news: it does not undo the rollback.
        with operator.application(queries, writes=False, PRIMARY="postgresql") as third:
            assert third.told()["phase"] == "shadow"
    assert "clean" in operator.done("verify")
    for one in (application, second, third):
        told = one.told()
        assert told["failed"] == []
        assert told["unseen"] == []


@pytest.mark.slow
def test_fifty_thousand_rows_go_through_the_whole_migration(
    tmp_path: Path, postgresql_dsn: str, fresh_table: str
) -> None:
    """An index of 50,000 x 384 goes the same way; PostgreSQL answers by its HNSW index."""
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(200, 384)).astype(np.float32)
    found = centres[rng.integers(200, size=50_000)] + 0.7 * rng.normal(size=(50_000, 384))
    found = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    index = tmp_path / "index"
    index.mkdir()
    bare(index, found)
    operator = Operator(
        tmp_path,
        {
            "SHADOW_FAISS__PATH": str(index),
            "DATABASE_URL": postgresql_dsn,
            "SHADOW_POSTGRESQL__TABLE": fresh_table,
            "SHADOW_POSTGRESQL__EF_SEARCH": "200",
            "SHADOW_GATE__RECALL_MIN": "0.9",
        },
    )
    queries = found[rng.integers(len(found), size=300)] + 0.03 * rng.normal(size=(300, 384))
    migrate(operator, queries.astype(np.float32))
