"""The routers that the frameworks' suites run over are in the phase that they are named for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from vectorstore import Metric, Query, Record, VectorStore

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("phase", "answering"),
    [
        ("faiss", {"faiss"}),
        ("shadow", {"faiss"}),
        ("ramp", {"faiss", "postgresql"}),
        ("postgresql", {"postgresql"}),
    ],
)
def test_the_phase_decides_who_answers(
    phase: str, answering: set[str], routers: Callable[..., VectorStore]
) -> None:
    """Over forty queries exactly the phase's stores answer, and each sees the write before it."""
    router = routers(phase, dimension=6, metric=Metric.COSINE)
    router.upsert([Record("a", np.ones(6, dtype=np.float32), "text", {})])
    answers = [router.search(Query(np.ones(6), k=1)) for _ in range(40)]
    assert {answer.store for answer in answers} == answering
    assert all([hit.id for hit in answer.hits] == ["a"] for answer in answers)
