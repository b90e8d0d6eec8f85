"""Evidence of many processes in one book: the order in which they add to it changes no verdict."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadow.config import GateSettings
from shadow.core.gate import GateInputs, Verdict
from shadow.core.phases import FAISS, POSTGRESQL
from shadow.evidence import EvidenceBook, Observed
from shadow.evidence_view import Verification
from shadow.lag import LagClock
from shadow.verdict import VerdictDesk
from shadow.writes.journal import Journal

PROCESSES = 4
GATE = GateSettings.model_validate(
    {
        "distinct_queries_min": 2,
        "duration_s_min": 10.0,
        "recall_min": 0.8,
        "success_min": 0.8,
        "latency_share_min": 0.8,
        "latency_ratio_max": 5.0,
        "strata": ["filtered"],
    }
)


@dataclass(frozen=True)
class Batch:
    """What one process adds at once: the same comparison so many times, and queries it dropped."""

    process: int
    one: Observed
    times: int
    dropped: int


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    good = draw(st.booleans())
    recall = draw(st.sampled_from([1.0] if good else [0.0, 0.5, 0.9, 1.0]))
    shadow_ms = draw(st.sampled_from([1.0, 2.0, 30.0]))
    return Batch(
        draw(st.integers(0, PROCESSES - 1)),
        Observed(
            judged=POSTGRESQL,
            figures={"recall": recall, "success": float(recall > 0), "latency": 1.0},
            strata=draw(st.sampled_from([("all",), ("all", "filtered")])),
            latencies_ms={FAISS: 1.0, POSTGRESQL: shadow_ms},
            query_digest=draw(st.binary(min_size=1, max_size=1)),
            at=100.0,
            causes={} if recall == 1.0 else {"ann_miss": 1},
        ),
        draw(st.sampled_from([1, 40, 400])),
        draw(st.sampled_from([0, 0, 0, 1, 20])),
    )


@pytest.fixture(scope="module")
def lag(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LagClock]:
    """Nothing was written, so nothing lags."""
    with closing(Journal.open(tmp_path_factory.mktemp("journal"))) as journal:
        yield LagClock(journal, head_age_ms_max=250.0)


def outcome(order: Sequence[Batch], lag: LagClock) -> tuple[GateInputs, Verdict, dict[str, int]]:
    """What the gate is told and says when the processes add these batches in this order."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        directory = Path(folder)
        books = [
            stack.enter_context(closing(EvidenceBook(directory, clock=lambda: 50.0)))
            for _ in range(PROCESSES)
        ]
        era = books[0].open_era("same", {}, why="a test").number
        books[0].record_verification(Verification(50.0, "clean", 1, 0, "crc32c", ""))
        for batch in order:
            book, n = books[batch.process], batch.times
            tally: dict[str, Any] = {"offered": n, "sampled": n + batch.dropped, "issued": n}
            book.tally(era, POSTGRESQL, dropped=batch.dropped, **tally)
            # The change detector reads an order by design, and is not part of what is merged.
            book.record(era, [batch.one] * n, watch_means={})
        reader = stack.enter_context(closing(EvidenceBook(directory)))
        desk = VerdictDesk(
            evidence=reader,
            lag=lag,
            postgresql_seq=lambda: 0,
            copy=lambda: "",
            settings=GATE,
            staleness_ms_max=1_000.0,
            clock=lambda: 100.0,
        )
        return desk.inputs(), desk.ready(), reader.causes(era, POSTGRESQL)


@settings(max_examples=25, deadline=None)
@given(
    order=st.lists(batches(), min_size=2, max_size=8),
    shuffler=st.randoms(use_true_random=False),
)
def test_processes_may_add_their_evidence_in_any_order(
    lag: LagClock, order: list[Batch], shuffler: random.Random
) -> None:
    """Several processes' batches, shuffled: inputs, causes and verdict are equal to the last bit."""
    shuffled = list(order)
    shuffler.shuffle(shuffled)
    assert outcome(shuffled, lag) == outcome(order, lag)


def test_the_batches_of_the_property_reach_more_than_one_verdict(lag: LagClock) -> None:
    """Good evidence passes and bad evidence does not, so the property compares more than one word."""

    def verdict(recall: float) -> str:
        one = Observed(
            judged=POSTGRESQL,
            figures={"recall": recall, "success": 1.0, "latency": 1.0},
            strata=("all", "filtered"),
            latencies_ms={FAISS: 1.0, POSTGRESQL: 1.0},
            query_digest=b"",
            at=100.0,
        )
        parts = [
            Batch(process, replace(one, query_digest=bytes([process])), 400, 0)
            for process in range(PROCESSES)
        ]
        return type(outcome(parts, lag)[1]).__name__

    assert (verdict(1.0), verdict(0.5)) == ("Pass", "Hold")


def test_queries_that_judged_faiss_do_not_count_as_different_ones(tmp_path: Path) -> None:
    """After a flip the mirror judges FAISS; the gate asks how many different queries judged PostgreSQL."""
    one = Observed(
        judged=FAISS,
        figures={"recall": 1.0, "success": 1.0},
        strata=("all",),
        latencies_ms={FAISS: 1.0, POSTGRESQL: 1.0},
        query_digest=b"one",
        at=100.0,
    )
    with closing(EvidenceBook(tmp_path)) as book:
        era = book.open_era("print", {}, why="test").number
        book.record(era, [one], watch_means={})
        assert book.distinct_queries(era) == 0
        mine = replace(one, judged=POSTGRESQL)
        book.record(era, [mine, mine, replace(mine, query_digest=b"two")], watch_means={})
        assert book.distinct_queries(era) == 2
