"""Properties of adjudication for any lists and facts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shadow.core.adjudication import Case, RowFacts, RowVersion, adjudicate
from shadow.core.comparison import Cause, compare

IDS = "abcdefghij"
hits = st.lists(
    st.tuples(st.sampled_from(IDS), st.integers(0, 5).map(float)),
    max_size=7,
    unique_by=lambda hit: hit[0],
).map(lambda rows: sorted(rows, key=lambda hit: -hit[1]))
version = st.none() | st.builds(RowVersion, st.integers(0, 2), st.sampled_from(["x", "y"]))
facts = st.fixed_dictionaries({row: st.builds(RowFacts, version, version) for row in IDS})
cases = st.builds(
    Case,
    k=st.integers(1, 6),
    tolerance=st.just(0.5),
    primary=hits,
    shadow=hits,
    primary_exact=hits,
    shadow_exact=hits,
    facts=facts,
    struck=st.frozensets(st.sampled_from(IDS), max_size=3),
    failure=st.none() | st.sampled_from([Cause.ERROR, Cause.TIMEOUT, Cause.DROPPED]),
)


@given(cases)
def test_causes_add_up_to_all_misses_of_the_comparison(case: Case) -> None:
    """However contradictory the facts, each missing hit has exactly one label and a cause."""
    found = adjudicate(case)
    assert sum(found.causes.values()) == len(found.labels)
    ids = [label.id for label in found.labels]
    assert len(ids) == len(set(ids))
    if case.failure is None:
        compared = compare(
            case.primary,
            case.shadow,
            k=case.k,
            tolerance=case.tolerance,
            live=lambda _: True,
            struck=case.struck,
        )
        assert set(compared.missing) <= set(ids)
        assert set(ids) <= set(compared.missing) | set(compared.extra)
        if len(case.primary) >= case.k:
            assert ids == list(compared.missing)
    for recall in (found.primary_recall, found.shadow_recall):
        assert recall is None or 0.0 <= recall <= 1.0
