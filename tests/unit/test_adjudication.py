"""Planted divergences of every kind, alone and mixed: each is labelled for what it is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pytest

from shadow.core.adjudication import Case, Label, RowFacts, RowVersion, adjudicate
from shadow.core.comparison import Cause
from vectorstore.errors import InvalidInput

K = 10
ROWS = 120
DIMENSION = 12
TOLERANCE = 1e-6


@dataclass
class Store:
    """Rows of one store: id to (vector, seq), and the ids that its filter lets through."""

    vectors: dict[str, npt.NDArray[np.float64]]
    seqs: dict[str, int]
    hidden: set[str] = field(default_factory=set)

    def copy(self) -> Store:
        return Store(dict(self.vectors), dict(self.seqs), set(self.hidden))

    def put(self, id: str, vector: npt.NDArray[np.float64], seq: int) -> None:
        self.vectors[id], self.seqs[id] = vector, seq

    def remove(self, id: str) -> None:
        del self.vectors[id], self.seqs[id]

    def exact(self, query: npt.NDArray[np.float64], k: int = K) -> list[tuple[str, float]]:
        scored = [(i, float(v @ query)) for i, v in self.vectors.items() if i not in self.hidden]
        return sorted(scored, key=lambda hit: (-hit[1], hit[0]))[:k]

    def version(self, id: str) -> RowVersion | None:
        if id not in self.vectors:
            return None
        return RowVersion(self.seqs[id], self.vectors[id].tobytes().hex()[:32])


class World:
    """Two stores with equal rows, a query, and ways of damaging one of them near the query."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        vectors = {f"r{i:03}": self.unit() for i in range(ROWS)}
        self.query = self.unit()
        self.primary = Store(vectors, {row: 100 + i for i, row in enumerate(vectors)})
        self.shadow = self.primary.copy()
        self.unfound: dict[str, set[str]] = {"primary": set(), "shadow": set()}
        self.failure: Cause | None = None
        self.ranked = [row for row, _ in self.primary.exact(self.query, ROWS)]

    def unit(self) -> npt.NDArray[np.float64]:
        vector = self.random.normal(size=DIMENSION)
        return vector / np.linalg.norm(vector)

    def near(self) -> npt.NDArray[np.float64]:
        vector = self.query + 0.02 * self.random.normal(size=DIMENSION)
        return vector / np.linalg.norm(vector)

    def pick(self) -> str:
        """One of the ten nearest rows."""
        return self.ranked[int(self.random.integers(K))]

    def far(self) -> str:
        return self.ranked[int(self.random.integers(40, ROWS))]

    def plant(self, cause: Cause) -> None:
        if cause is Cause.ANN_MISS:
            self.unfound["shadow"].add(self.pick())
        elif cause is Cause.PRIMARY_MISS:
            self.unfound["primary"].add(self.pick())
        elif cause is Cause.ROW_MISSING:
            self.shadow.remove(self.pick())
        elif cause is Cause.ROW_STALE:
            if self.random.random() < 0.5:
                self.shadow.put(self.pick(), -self.query, 1)
            else:
                self.shadow.put(self.far(), self.near(), 1)
        elif cause is Cause.ROW_EXTRA:
            self.shadow.put("ghost", self.near(), 50)
        elif cause is Cause.TIE:
            # Twins stand at the tenth and eleventh place; each store lists another one.
            twin = self.primary.vectors[self.ranked[K - 1]]
            for store in (self.primary, self.shadow):
                store.put(self.ranked[K], twin, 300)
            first, second = self.ranked[K - 1 : K + 1]
            self.unfound["primary"].add(first)
            self.unfound["shadow"].add(second)
        elif cause is Cause.FILTER:
            if self.random.random() < 0.5:
                self.shadow.hidden.add(self.pick())
            else:
                self.primary.hidden.add(self.pick())
        else:
            self.failure = cause

    def answer(self, name: str) -> list[tuple[str, float]]:
        store = self.primary if name == "primary" else self.shadow
        found = [h for h in store.exact(self.query, ROWS + 1) if h[0] not in self.unfound[name]]
        return found[:K]

    def case(self) -> Case:
        shadow = [] if self.failure else self.answer("shadow")
        ids = {*self.primary.vectors, *self.shadow.vectors}
        return Case(
            k=K,
            tolerance=TOLERANCE,
            primary=self.answer("primary"),
            shadow=shadow,
            primary_exact=self.primary.exact(self.query),
            shadow_exact=self.shadow.exact(self.query),
            facts={i: RowFacts(self.primary.version(i), self.shadow.version(i)) for i in ids},
            failure=self.failure,
        )


def missing(case: Case) -> set[str]:
    return {row for row, _ in case.primary} - {row for row, _ in case.shadow}


@pytest.mark.parametrize("cause", list(Cause))
def test_each_planted_cause_is_found(cause: Cause) -> None:
    """One fault of one kind gives labels of that kind only, as many as there are misses."""
    for seed in range(60):
        world = World(seed)
        world.plant(cause)
        case = world.case()
        found = adjudicate(case)
        assert {label.id for label in found.labels} == missing(case)
        assert set(found.causes) == {cause}, (seed, found.labels)
        misses = K if world.failure else 1
        assert found.causes[cause] == misses


def test_a_mix_at_known_rates_is_counted_as_planted() -> None:
    """1,000 queries, some damaged: labels are right in at least 99 %, and the counts add up."""
    random = np.random.default_rng(41)
    planted: Counter[Cause] = Counter()
    labelled: Counter[Cause] = Counter()
    misses = wrong = 0
    for seed in range(1000):
        world = World(1000 + seed)
        cause = list(Cause)[int(random.integers(len(Cause)))] if random.random() < 0.7 else None
        if cause is not None:
            world.plant(cause)
            planted[cause] += K if world.failure else 1
        case = world.case()
        found = adjudicate(case)
        labelled.update(found.causes)
        misses += len(missing(case))
        wrong += sum(label.cause is not cause for label in found.labels)
    assert sum(labelled.values()) == misses
    assert wrong <= 0.01 * misses
    for cause, count in planted.items():
        assert labelled[cause] == pytest.approx(count, rel=0.01)


def test_two_faults_in_one_query_are_told_apart() -> None:
    """A row that is not there and a row that the index missed get their own labels."""
    for seed in range(50):
        world = World(2000 + seed)
        gone, unfound = world.ranked[2], world.ranked[5]
        world.shadow.remove(gone)
        world.unfound["shadow"].add(unfound)
        found = adjudicate(world.case())
        assert {label.id: label.cause for label in found.labels} == {
            gone: Cause.ROW_MISSING,
            unfound: Cause.ANN_MISS,
        }


def test_recall_against_the_truth_tells_which_store_is_wrong() -> None:
    """A primary that misses rows has the lower recall, although the shadow disagrees with it."""
    world = World(7)
    world.unfound["primary"].update(world.ranked[:3])
    found = adjudicate(world.case())
    assert found.primary_recall == pytest.approx(0.7)
    assert found.shadow_recall == 1.0
    assert found.causes == {Cause.PRIMARY_MISS: 3}


def test_a_short_answer_of_the_primary_is_its_own_miss() -> None:
    """Rows beyond a primary's short list are labelled as well: it filtered after its scan."""
    world = World(8)
    case = world.case()
    found = adjudicate(replace(case, primary=case.primary[:3]))
    assert found.causes == {Cause.PRIMARY_MISS: 7}
    assert found.primary_recall == pytest.approx(0.3)
    assert found.shadow_recall == 1.0


def test_a_stale_row_is_no_right_answer_even_in_the_right_place() -> None:
    """The shadow lists the right id with an old version: found, and yet not the truth."""
    world = World(9)
    top = world.ranked[0]
    world.shadow.put(top, world.primary.vectors[top] * 1.0, 1)
    found = adjudicate(world.case())
    assert found.labels == ()
    assert (found.primary_recall, found.shadow_recall) == (1.0, 0.9)


def test_the_higher_seq_is_the_truth() -> None:
    """If the shadow holds the newer version of a row, the primary is the one that is wrong."""
    world = World(10)
    world.shadow.put(world.far(), world.near(), 999)
    found = adjudicate(world.case())
    assert found.causes == {Cause.ROW_STALE: 1}
    assert found.shadow_recall == 1.0
    assert found.primary_recall == pytest.approx(0.9)


def test_rows_written_between_the_reads_are_not_labelled() -> None:
    """A new row that only the shadow's answer has, struck, leaves nothing to explain."""
    world = World(11)
    world.shadow.put("new", world.near(), 999)
    case = world.case()
    # The exact scan goes one deeper, so that ten rows remain.
    deeper = replace(
        case,
        shadow_exact=world.shadow.exact(world.query, K + 1),
        struck=frozenset({"new"}),
    )
    found = adjudicate(deeper)
    assert found.labels == ()
    assert (found.primary_recall, found.shadow_recall) == (1.0, 1.0)
    assert adjudicate(case).causes == {Cause.ROW_EXTRA: 1}


def test_nothing_to_find_has_no_recall() -> None:
    """Where no row matches, neither store is right or wrong."""
    found = adjudicate(
        Case(
            k=K,
            tolerance=TOLERANCE,
            primary=[],
            shadow=[],
            primary_exact=[],
            shadow_exact=[],
            facts={},
        )
    )
    assert (found.labels, found.primary_recall, found.shadow_recall) == ((), None, None)


def test_ids_without_facts_are_refused() -> None:
    """A case that cannot be judged is an error that says what to fetch."""
    with pytest.raises(InvalidInput, match="no facts about 'a'"):
        adjudicate(
            Case(
                k=1,
                tolerance=TOLERANCE,
                primary=[("a", 1.0)],
                shadow=[],
                primary_exact=[],
                shadow_exact=[],
                facts={},
            )
        )


def test_the_row_that_took_the_place_is_named() -> None:
    """A label says which row stands where the missed one should."""
    world = World(12)
    world.shadow.put("ghost", world.near(), 50)
    found = adjudicate(world.case())
    assert found.labels == (Label(world.ranked[K - 1], Cause.ROW_EXTRA, "ghost"),)
