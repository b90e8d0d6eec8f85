"""What is recorded of mirrored queries is what a report and the gate read back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from shadow.core.phases import FAISS, POSTGRESQL
from shadow.evidence import EvidenceBook, Observed
from shadow.evidence_view import LIVE, REPLAY
from shadow.report.latencies import latencies

MEANS = {"recall": 0.98}


@pytest.fixture
def book(tmp_path: Path) -> Iterator[EvidenceBook]:
    with closing(EvidenceBook(tmp_path)) as found:
        found.open_era("settings", {}, why="test")
        yield found


def observed(*, recall: float = 1.0, postgresql_ms: float = 4.0) -> Observed:
    return Observed(
        judged=POSTGRESQL,
        figures={"recall": recall},
        strata=("all",),
        latencies_ms={FAISS: 1.0, POSTGRESQL: postgresql_ms},
        query_digest=b"q",
        at=60.0,
        watched={"recall": recall},
    )


def test_percentiles_count_what_was_not_answered(book: EvidenceBook) -> None:
    """Of ten queries one timed out: the ninth is known within two percent, and no tail beyond it."""
    batch = [observed(postgresql_ms=ms) for ms in (*range(1, 10), math.inf)]
    book.record(1, batch, watch_means=MEANS)
    faiss, postgresql = latencies(book, 1, LIVE)
    assert (faiss.store, faiss.count, faiss.unanswered) == (FAISS, 10, 0)
    assert (postgresql.store, postgresql.count, postgresql.unanswered) == (POSTGRESQL, 10, 1)
    assert postgresql.percentiles.p50 == pytest.approx(5.0, rel=0.02)
    assert postgresql.percentiles.p90 == pytest.approx(9.0, rel=0.02)
    assert postgresql.percentiles.p99 is None
    assert postgresql.cdf[-1] == (postgresql.percentiles.p90, 0.9)


def test_an_alarm_is_told_once_and_stands_until_queries_were_quiet(book: EvidenceBook) -> None:
    """A detector that went off begins anew; another batch of the bad ones sets it off again."""
    assert book.record(1, [observed()] * 300, watch_means=MEANS) == []
    assert book.record(1, [observed(recall=0.5)] * 100, watch_means=MEANS) == ["recall"]
    assert book.record(1, [observed()] * 100, watch_means=MEANS) == []
    assert book.alarm(1) == "recall"
    assert book.record(1, [observed()] * 150, watch_means=MEANS) == []
    assert book.alarm(1) is None


def test_what_is_replayed_sets_off_no_alarm(book: EvidenceBook) -> None:
    """It says nothing of the traffic."""
    assert book.record(1, [observed(recall=0.0)] * 300, source=REPLAY, watch_means=MEANS) == []
    assert book.alarm(1) is None
