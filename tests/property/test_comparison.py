"""Properties of a comparison for any two answers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shadow.core.comparison import Scored, compare

# Few scores and few ids, so that ties and overlaps are common.
hits = st.lists(
    st.tuples(st.sampled_from("abcdefghijkl"), st.integers(0, 6).map(float)),
    max_size=8,
    unique_by=lambda hit: hit[0],
).map(lambda rows: sorted(rows, key=lambda hit: -hit[1]))
ids = st.frozensets(st.sampled_from("abcdefghijkl"), max_size=5)


@given(hits, hits, st.integers(1, 8), ids, ids)
def test_the_figure_is_bounded_on_its_grid_and_consistent(
    primary: list[Scored],
    shadow: list[Scored],
    k: int,
    dead: frozenset[str],
    struck: frozenset[str],
) -> None:
    """Recall is a multiple of 1/k in [0, 1], never above matched / expected."""
    found = compare(
        primary, shadow, k=k, tolerance=0.5, live=lambda row: row not in dead, struck=struck
    )
    assert 0.0 <= found.recall <= 1.0
    assert found.recall == round(found.recall * k) / k
    assert 0 <= found.matched <= found.expected <= k
    if found.expected:
        assert found.recall <= found.matched / found.expected + 1e-12
    assert not set(found.missing) & {row for row, _ in shadow[:k]}
    assert not set(found.extra) & {row for row, _ in primary[:k]}
    assert not struck & {*found.missing, *found.extra}
    assert found.ties <= len(found.extra)
    assert found.matched >= found.expected - len(found.missing)


@given(hits, st.integers(1, 8), ids)
def test_an_answer_agrees_with_itself(answer: list[Scored], k: int, struck: frozenset[str]) -> None:
    """Whatever is struck, equal answers have full recall."""
    found = compare(answer, answer, k=k, tolerance=0.0, live=lambda _: False, struck=struck)
    assert found.recall == 1.0
    assert found.top1_agrees


@given(hits, hits, st.integers(1, 8), st.floats(0, 3), st.floats(0, 3))
def test_tolerance_and_live_rows_only_ever_help(
    primary: list[Scored], shadow: list[Scored], k: int, tolerance: float, more: float
) -> None:
    """A wider tolerance never lowers the recall; a row that is not live never raises it."""

    def recall(width: float, alive: bool) -> float:
        return compare(primary, shadow, k=k, tolerance=width, live=lambda _: alive).recall

    assert recall(tolerance, True) <= recall(tolerance + more, True)
    assert recall(tolerance, False) <= recall(tolerance, True)


@given(hits.filter(lambda rows: len(rows) >= 2), st.data())
def test_swapping_rows_of_equal_score_changes_nothing(
    answer: list[Scored], data: st.DataObject
) -> None:
    """The order among ties is not held against the shadow, not even in the first place."""
    shuffled = sorted(data.draw(st.permutations(answer)), key=lambda hit: -hit[1])
    found = compare(answer, shuffled, k=len(answer), tolerance=0.0, live=lambda _: True)
    assert found.recall == 1.0
    assert found.top1_agrees
