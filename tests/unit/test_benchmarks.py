"""The measuring itself: interleaving, comparing runs, datasets, and the verdict on wrong answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.bounds import BOUNDED_BY
from benchmarks.chart import latency_chart
from benchmarks.comparing import compare
from benchmarks.datasets import Dataset, Seeds, dataset
from benchmarks.document import write_document
from benchmarks.interleave import Side, Timings, interleave, ratio, unrest
from benchmarks.results import Figure, Reading, Results, read_results
from benchmarks.run import DOCUMENT

ENVIRONMENT = {
    "run": "make bench",
    "at": "2030-01-01 00:00:00 UTC",
    "processor": "an abacus",
    "cores": 2,
    "memory_gb": 1.0,
    "system": "Linux",
    "python": "3.11",
    "packages": {"numpy": "2"},
    "postgresql": "18",
    "pgvector": "0.8",
    "server_settings": {"fsync": "on"},
    "load_1min_at_start": 0.0,
    "seeds": "synthetic",
}


def results(*figures: Figure, recall: float = 1.0) -> Results:
    """A run with one reading a store."""
    readings = [
        Reading("reads", "382 x 1,536", side, us, 3 * us, 1e6 / us, recall, 0.999)
        for side, us in (("FaissStore", 40.0), ("PostgresStore", 200.0))
    ]
    return Results(ENVIRONMENT, readings, list(figures))


def figure(value: float, spread: float, target: str | None = "<= 1.15x") -> Figure:
    """A ratio with its quartiles ``spread`` away on either side."""
    return Figure("mirror", "p99", value, "x", value - spread, value + spread, 25, target, True)


def test_sides_take_turns_and_order_turns_round() -> None:
    """Blocks alternate, the order is reversed every other round, and hooks surround each block."""
    seen: list[str] = []
    sides = {
        name: Side(lambda _, name=name: seen.append(name), after=lambda: seen.append("|"))
        for name in ("a", "b")
    }
    found = interleave(sides, rounds=2, calls=4)
    assert "".join(seen) == "a|b|" + "aaaa|bbbb|" + "bbbb|aaaa|"
    assert [len(block) for block in found["a"].blocks] == [4, 4]


def test_ratio_is_taken_round_by_round() -> None:
    """A machine that slows down tenfold half-way changes no ratio."""
    one, other = Timings(), Timings()
    for speed in (1.0, 1.0, 10.0, 10.0, 10.0):
        one.blocks.append(np.full(9, 2e-3 * speed))
        other.blocks.append(np.full(9, 1e-3 * speed))
    found = ratio(one, other)
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))


@pytest.mark.parametrize(
    ("before", "now", "target", "verdict"),
    [
        (figure(1.05, 0.05), figure(1.07, 0.05), "<=", "noise"),
        (figure(1.05, 0.01), figure(1.30, 0.01), "<=", "worse"),
        (figure(1.05, 0.01), figure(0.90, 0.01), "<=", "better"),
        (figure(1.05, 0.80), figure(1.30, 0.80), "<=", "noise"),
        (figure(4.0, 0.1, ">= 4x"), figure(3.0, 0.1, ">= 4x"), ">=", "worse"),
    ],
)
def test_regressions_are_told_from_noise(
    before: Figure, now: Figure, target: str, verdict: str
) -> None:
    """A figure is worse only if it moved farther than the spread of both runs explains."""
    (change,) = compare(results(now), results(before))
    assert change.verdict == verdict


def test_a_fast_wrong_answer_is_wrong() -> None:
    """A reading whose recall is below what it must be is listed as wrong, whatever its speed."""
    assert results(recall=0.9).wrong
    assert not results(recall=1.0).wrong


def test_results_survive_their_file(tmp_path: Path) -> None:
    """What was written is read back equal; another format is refused."""
    path = tmp_path / "run.json"
    before = results(figure(1.0, 0.1))
    before.write(path)
    assert read_results(path) == before
    path.write_text('{"format": 0}')
    with pytest.raises(ValueError, match="format"):
        read_results(path)


def test_document_and_chart_hold_the_figures(tmp_path: Path) -> None:
    """The page answers the question with the run's numbers; the chart names each side."""
    found = results(figure(1.2, 0.1))
    write_document(found, tmp_path / "performance.md")
    page = (tmp_path / "performance.md").read_text()
    assert "Measured by `make bench` 2030-01-01" in page
    assert "| 382 x 1,536 | 40.0 |  | 200 | 1.0000 | 5x | +0.16 ms |" in page
    assert "| p99 | 1.200x | 1.100 to 1.300 | <= 1.15x | yes |" in page
    assert "PostgresStore" in latency_chart(found)


def test_unrest_is_a_side_over_itself() -> None:
    """Each block over the one before it, of a quantile or of the wall time."""
    side = Timings([np.array([t]) for t in (1.0, 2.0, 1.0, 2.0, 1.0)], [3.0, 3.0, 3.0, 3.0, 3.0])
    found = unrest(side)
    assert (found.low, found.high, found.rounds) == (0.5, 2.0, 4)
    still = unrest(side, share=None)
    assert (still.low, still.value, still.high) == (1.0, 1.0, 1.0)


def test_parts_measured_anew_take_the_place_of_those_of_an_earlier_run() -> None:
    """Of the same machine and size; the page says which and when."""
    before = results(figure(1.2, 0.1), Figure("gate", "evaluation", 0.5, "ms"))
    newer = Results({**ENVIRONMENT, "at": "later"}, [], [figure(1.1, 0.1)])
    found = before.renewed(newer)
    assert [(one.part, one.value) for one in found.figures] == [("gate", 0.5), ("mirror", 1.1)]
    assert found.readings == before.readings
    assert found.environment["renewed"] == {"mirror": "later"}
    elsewhere = Results({**ENVIRONMENT, "processor": "another"}, [], [])
    with pytest.raises(ValueError, match="processor"):
        before.renewed(elsewhere)


def test_a_missed_target_is_told_with_what_bounds_it(tmp_path: Path) -> None:
    """On the page, below its table; a target that was met is not told of."""
    missed, bounds = next(iter(BOUNDED_BY.items()))
    found = results(
        Figure("mirror", missed, 1.6, target="<= 1.35x", met=False),
        Figure("mirror", bounds[0], 1.4),
        Figure("mirror", "fine", 1.0, target="<= 1.05x", met=True),
    )
    write_document(found, tmp_path / "performance.md")
    page = (tmp_path / "performance.md").read_text()
    assert f"- {missed}: 1.600x. *{bounds[0]}* is 1.400x." in page
    assert "- fine" not in page


def test_what_bounds_a_figure_is_measured() -> None:
    """A figure that was renamed must not lose what is told of it: the page of a whole run has them all."""
    page = DOCUMENT.read_text()
    for missed, bounds in BOUNDED_BY.items():
        for name in (missed, *bounds):
            assert f"| {name}" in page


def test_rows_keep_the_geometry_of_the_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """More dimensions change no inner product; rows are unit vectors and the same every time."""
    random = np.random.default_rng(1)
    vectors = random.normal(size=(50, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    monkeypatch.setattr("benchmarks.datasets.seeds", lambda: Seeds(vectors, ("text",), "test"))
    narrow, wide = dataset(80, 384), dataset(80, 1536)
    assert wide.vectors.shape == (80, 1536)
    assert np.abs(wide.vectors @ wide.vectors.T - narrow.vectors @ narrow.vectors.T).max() < 1e-5
    assert np.allclose(np.linalg.norm(wide.vectors, axis=1), 1.0, atol=1e-5)
    assert np.array_equal(dataset(80, 384).vectors, narrow.vectors)


def test_nearest_is_exact() -> None:
    """The reference answer is the brute-force ranking in double precision."""
    vectors = np.eye(5, 4, dtype=np.float32)
    vectors[4] = [0.6, 0.8, 0, 0]
    data = Dataset(vectors, vectors[4:5], ("text",), "test")
    assert data.nearest(k=3, queries=1) == [["guide-00000004", "guide-00000001", "guide-00000000"]]
