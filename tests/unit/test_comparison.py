"""Two answers compared: what counts as a hit, what as a miss, and what is never favoured."""

from __future__ import annotations

import timeit
from collections.abc import Callable, Sequence

import pytest

from shadow.core.comparison import Cause, Comparison, Scored, compare, missed
from vectorstore.errors import InvalidInput

TEN = [(f"doc-{i}", 1.0 - i / 100) for i in range(10)]


def hold(
    primary: Sequence[Scored],
    shadow: Sequence[Scored],
    *,
    k: int = 10,
    tolerance: float = 1e-5,
    live: Callable[[str], bool] = lambda _: True,
    struck: frozenset[str] = frozenset(),
) -> Comparison:
    return compare(primary, shadow, k=k, tolerance=tolerance, live=live, struck=struck)


def test_equal_answers_agree() -> None:
    """The same ids in the same order match in full, whatever float32 did to the scores."""
    other = [(row, score + 1e-7) for row, score in TEN]
    assert hold(TEN, other) == Comparison(1.0, 10, 10, True)


def test_another_order_is_no_miss_but_may_cost_the_first_place() -> None:
    """Recall ignores the order; the first place does not."""
    found = hold(TEN, [TEN[1], TEN[0], *TEN[2:]])
    assert (found.recall, found.missing, found.extra) == (1.0, (), ())
    assert not found.top1_agrees


def test_a_worse_row_in_place_of_a_hit_is_a_miss() -> None:
    """A live row that does not reach the k-th score does not count."""
    found = hold(TEN, [*TEN[:9], ("far", 0.5)])
    assert found == Comparison(0.9, 9, 10, True, ("doc-9",), ("far",), 0)


def test_a_tie_at_the_end_is_a_hit() -> None:
    """A live row with the k-th score counts and is reported as a tie."""
    found = hold(TEN, [*TEN[:9], ("twin", TEN[9][1] - 0.9e-5)])
    assert (found.recall, found.ties, found.missing, found.extra) == (
        1.0,
        1,
        ("doc-9",),
        ("twin",),
    )


def test_a_row_that_is_not_live_never_counts() -> None:
    """A row that only the shadow holds is a miss however near it is."""
    found = hold(TEN, [("ghost", 2.0), *TEN[:9]], live=lambda row: row != "ghost")
    assert (found.recall, found.ties, found.top1_agrees) == (0.9, 0, False)


def test_a_tie_for_the_first_place_agrees() -> None:
    """Two rows with equal scores may stand in either order."""
    twins = [("a", 0.9), ("b", 0.9), ("c", 0.1)]
    assert hold(twins, [twins[1], twins[0], twins[2]], k=3).top1_agrees


def test_one_id_listed_ten_times_counts_once() -> None:
    """Repeating a hit does not raise the recall."""
    assert hold(TEN, [TEN[0]] * 10).recall == 0.1


def test_a_short_answer_is_missing_hits() -> None:
    """The denominator is what the primary found, not what the shadow offered."""
    assert hold(TEN, TEN[:4]).recall == 0.4
    assert hold(TEN, []) == Comparison(0.0, 0, 10, False, tuple(row for row, _ in TEN))


def test_few_matching_rows_make_a_smaller_denominator() -> None:
    """Three of three is full recall; two of three is floored to the 1/k grid."""
    assert hold(TEN[:3], TEN[:3]) == Comparison(1.0, 3, 3, True)
    assert hold(TEN[:3], TEN[:2]).recall == 0.6
    for expected in range(1, 11):
        for matched in range(expected + 1):
            recall = hold(TEN[:expected], TEN[:matched]).recall
            assert recall * 10 == pytest.approx(round(recall * 10))
            assert recall <= matched / expected + 1e-12


def test_nothing_can_tie_with_a_list_that_is_not_full() -> None:
    """If the primary found three rows in all, a fourth one does not replace one of them."""
    assert hold(TEN[:3], [*TEN[:2], ("other", 0.99)]).recall == 0.6


def test_two_empty_answers_agree_and_one_empty_answer_does_not() -> None:
    """Nothing found by both is agreement; by the primary alone, it holds the verdict back."""
    assert hold([], []) == Comparison(1.0, 0, 0, True)
    assert hold([], TEN).recall == 0.0
    assert not hold([], TEN).top1_agrees


def test_a_row_written_between_the_reads_is_nobodys_fault() -> None:
    """A new row in the shadow's list takes a place: the primary's last hit is not asked for."""
    shadow = [("new", 0.999), *TEN[:9]]
    assert hold(TEN, shadow, live=lambda row: row != "new").recall == 0.9
    assert hold(TEN, shadow, struck=frozenset({"new"})) == Comparison(1.0, 9, 9, True)


def test_a_row_deleted_between_the_reads_is_nobodys_fault() -> None:
    """A struck row of the primary is not missed, and the row that followed it is not held against."""
    shadow = [*TEN[1:], ("eleventh", 0.5)]
    found = hold(TEN, shadow, struck=frozenset({"doc-0"}))
    assert (found.recall, found.expected, found.missing) == (1.0, 9, ())


def test_a_real_miss_beside_a_struck_row_is_still_a_miss() -> None:
    """Striking does not hide what has nothing to do with it."""
    shadow = [("new", 0.999), *TEN[1:9], ("far", 0.1)]
    found = hold(TEN, shadow, struck=frozenset({"new"}))
    assert found.missing == ("doc-0",)
    assert found.recall == 0.8


def test_hits_beyond_the_kth_are_ignored() -> None:
    """A store that answers more than was asked gains nothing by it."""
    assert hold(TEN[:2], [("x", 0.1), ("y", 0.1), *TEN[:2]], k=2).recall == 0.0
    assert hold(TEN, TEN, k=3) == Comparison(1.0, 3, 3, True)


def test_a_query_without_an_answer_is_k_misses() -> None:
    """Errors, timeouts and drops count in full."""
    lost = missed(5, Cause.TIMEOUT)
    assert (lost.recall, lost.matched, lost.expected, lost.top1_agrees) == (0.0, 0, 5, False)
    assert lost.cause is Cause.TIMEOUT


def test_a_k_of_nothing_is_refused() -> None:
    """k starts at 1."""
    with pytest.raises(InvalidInput):
        missed(0, Cause.ERROR)
    with pytest.raises(InvalidInput):
        hold([], [], k=0)


def test_the_common_path_takes_about_half_a_microsecond() -> None:
    """Equal answers cost less than 3 microseconds even on a busy machine."""
    other = [("doc-" + str(i), score) for i, (_, score) in enumerate(TEN)]

    def live(_: str) -> bool:
        return True

    seconds = min(
        timeit.repeat(
            lambda: compare(TEN, other, k=10, tolerance=1e-5, live=live), number=2000, repeat=20
        )
    )
    assert seconds / 2000 < 3e-6
