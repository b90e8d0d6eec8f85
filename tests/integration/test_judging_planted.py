"""Differences planted in real stores, and what the live judge says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from psycopg import sql

from shadow.evidence import WORST_KEPT_MAX
from shadow.evidence_view import AUDIT_RECALL
from tests.fakes.pair import DIMENSION, Pair, cluster_records, pair_of
from tests.fakes.running import until
from vectorstore.errors import DeadlineExceeded, StoreUnavailable
from vectorstore.filters import Filter
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Query, Record, Vector

CLUSTERS = 90
DOSE = 0.1
KINDS = (
    "none",
    "ann_miss",
    "primary_miss",
    "row_missing",
    "row_stale",
    "row_extra",
    "filter",
    "error",
    "timeout",
    "written_between",
)


class Planted:
    """One cluster for each query, and one difference planted in it."""

    def __init__(self, pair: Pair, centres: list[Vector]) -> None:
        self.pair = pair
        self.centres = centres
        self.filtered: set[int] = set()

    def query(self, cluster: int) -> Query:
        """The cluster's own query: it answers with the ten rows of the cluster."""
        doses = Filter.of({"dose": DOSE}) if cluster in self.filtered else None
        return Query(self.centres[cluster], k=10, filter=doses)

    def plant(self, cluster: int, kind: str) -> None:
        """Make the stores differ on the cluster in one way."""
        row, key = f"c{cluster:03d}-05", self.centres[cluster].tobytes()
        match kind:
            case "ann_miss":
                self.pair.postgresql.forgets[key] = row
            case "primary_miss":
                self.pair.faiss.forgets[key] = row
            case "error":
                self.pair.postgresql.fails[key] = StoreUnavailable("planted")
            case "timeout":
                self.pair.postgresql.fails[key] = DeadlineExceeded("planted")
            case "row_missing":
                self._sql("DELETE FROM {} WHERE id = %s", row)
            case "row_stale":
                # An older version that lies elsewhere: the update never arrived.
                away = _text(-self.centres[cluster])
                self._sql("UPDATE {} SET embedding = %s::vector, seq = 1 WHERE id = %s", away, row)
            case "filter":
                # A number that jsonb keeps apart from the dose and that a client reads as the dose: the
                # row is the same to whoever fetches it, and only the server's filter refuses it.
                self.filtered.add(cluster)
                self._sql(
                    "UPDATE {} SET metadata = metadata || '{{\"dose\": 0.10000000000000000555}}'"
                    " WHERE id = %s",
                    row,
                )
            case "row_extra":
                near = _text(self.centres[cluster])
                self._sql(
                    "INSERT INTO {} (id, seq, embedding, text, metadata)"
                    " VALUES (%s, 1, %s::vector, 'extra', '{{}}')",
                    f"extra-{cluster}",
                    near,
                )

    def _sql(self, text: str, *values: Any) -> None:
        store: PostgresStore = self.pair.postgresql._store
        statement = sql.SQL(text).format(store.names.table)
        store.transact(lambda connection: connection.execute(statement, values))


@pytest.fixture
def planted(tmp_path: Path, postgres_store: Callable[..., PostgresStore]) -> Iterator[Planted]:
    records, centres = cluster_records(CLUSTERS)
    records = [replace(one, metadata={**one.metadata, "dose": DOSE}) for one in records]
    pair = pair_of(records, directory=tmp_path, postgresql=postgres_store(dimension=DIMENSION))
    yield Planted(pair, centres)
    pair.close()


@pytest.mark.parametrize("kind", [one for one in KINDS if one != "written_between"])
def test_a_difference_planted_alone_gets_its_own_label(planted: Planted, kind: str) -> None:
    """Each kind by itself, on eight queries: the cause is the planted one and nothing else."""
    judge = planted.pair.judge()
    for cluster in range(8):
        planted.plant(cluster, kind)
        seen = judge.judge(planted.pair.observe(planted.query(cluster)))
        if kind in ("none", "primary_miss"):
            # A row that FAISS missed and PostgreSQL found is nearer than FAISS's k-th: no miss.
            assert (seen.figures["recall"], seen.causes) == (1.0, {})
        elif kind in ("error", "timeout"):
            assert (seen.figures["recall"], dict(seen.causes)) == (0.0, {kind: 10})
        else:
            assert (seen.figures["recall"], dict(seen.causes)) == (0.9, {kind: 1})


def test_a_shadow_that_is_away_is_left_alone_and_misses_all_the_same(planted: Planted) -> None:
    """After a few failures in a row the store is not asked for a moment, each query counts as missed
    for the same cause, and it is asked again after that."""
    judge = planted.pair.judge()
    planted.plant(0, "timeout")
    query, asked = planted.query(0), planted.pair.postgresql.asked
    for _ in range(50):
        seen = judge.judge(planted.pair.observe(query))
        assert (seen.figures["success"], dict(seen.causes)) == (0.0, {"timeout": 10})
    assert planted.pair.postgresql.asked - asked < 10
    planted.pair.postgresql.fails.clear()
    until("an answer", lambda: judge.judge(planted.pair.observe(query)).figures["success"] == 1.0)


def test_an_outage_does_not_push_what_diverged_off_the_list(planted: Planted) -> None:
    """Queries that failed are listed, those of a store that was left alone are counted only."""
    judge, seen = planted.pair.judge(), []
    planted.plant(0, "row_missing")
    planted.plant(1, "error")
    seen.append(judge.judge(planted.pair.observe(planted.query(0))))
    failed = planted.pair.observe(planted.query(1))
    seen += [judge.judge(failed) for _ in range(WORST_KEPT_MAX + 50)]
    planted.pair.record(seen)
    era, book = planted.pair.era(), planted.pair.book
    assert book.causes(era, "postgresql") == {"error": 10 * (len(seen) - 1), "row_missing": 1}
    listed = book.worst(era, "postgresql", limit=WORST_KEPT_MAX)
    assert [one["causes"] for one in listed[-1:]] == [{"row_missing": 1}]
    assert {"error": 10} in [one["causes"] for one in listed]


def test_differences_planted_at_known_rates_are_counted_as_planted(planted: Planted) -> None:
    """Mixed at random over the clusters, each queried three times: the counts that the report reads
    equal the planted ones, and the causes add up to all misses."""
    draw = np.random.default_rng(11)
    kinds = draw.choice(KINDS[:-1], size=CLUSTERS)
    for cluster, kind in enumerate(kinds):
        planted.plant(cluster, str(kind))
    judge, right, missed = planted.pair.judge(), 0, 0
    expected: Counter[str] = Counter()
    for cluster, kind in [(c, str(kind)) for c, kind in enumerate(kinds)] * 3:
        seen = judge.judge(planted.pair.observe(planted.query(cluster)))
        planted.pair.record([seen])
        missed += round(10 * (1.0 - seen.figures["recall"]))
        if kind in ("none", "primary_miss"):
            right += not seen.causes
        else:
            misses = 10 if kind in ("error", "timeout") else 1
            right += dict(seen.causes) == {kind: misses}
            expected[kind] += misses
    assert right >= 0.99 * 3 * CLUSTERS
    found = planted.pair.book.causes(planted.pair.era(), "postgresql")
    assert found == dict(expected)
    assert sum(found.values()) == missed


def test_what_is_written_between_the_two_reads_is_no_miss(planted: Planted) -> None:
    """FAISS holds a write that PostgreSQL has not applied, and the other way round."""
    judge, centre = planted.pair.judge(), planted.centres[0]
    planted.pair.write([("fresh", Record("fresh", centre, "new", {}))])
    planted.pair.follow(postgresql=False)
    seen = judge.judge(planted.pair.observe(planted.query(0)))
    assert (seen.figures["recall"], seen.causes) == (1.0, {})
    before = planted.pair.observe(planted.query(0))
    planted.pair.write([("c000-03", None)])
    planted.pair.follow()
    seen = judge.judge(before)
    assert (seen.figures["recall"], seen.causes) == (1.0, {})


def test_a_real_difference_beside_a_concurrent_write_keeps_its_label(planted: Planted) -> None:
    """Striking what was written meanwhile hides nothing else."""
    planted.plant(0, "row_missing")
    before = planted.pair.observe(planted.query(0))
    planted.pair.write(
        [("c000-03", None), ("fresh", Record("fresh", planted.centres[0], "new", {}))]
    )
    planted.pair.follow()
    seen = planted.pair.judge().judge(before)
    assert dict(seen.causes) == {"row_missing": 1}


def test_a_write_between_the_answers_and_the_scans_takes_no_place_in_them(
    planted: Planted,
) -> None:
    """The exact lists go on for as many rows as were written meanwhile, so the farthest keep theirs."""
    pair = planted.pair
    before = pair.observe(planted.query(0))
    assert before.hits is not None
    farthest = before.hits[-1].id
    pair.postgresql.forgets[planted.centres[0].tobytes()] = farthest

    def write() -> None:
        pair.write([(f"f{n}", Record(f"f{n}", planted.centres[0], "", {})) for n in range(3)])
        pair.follow()

    pair.faiss.before_exact.append(write)
    seen = pair.judge().judge(before)
    assert dict(seen.causes) == {"ann_miss": 1}


def test_the_audit_holds_both_stores_against_the_exact_answer(planted: Planted) -> None:
    """The stores agree, and both miss the same row: agreement is perfect and the audit is not."""
    planted.pair.mirror = planted.pair.mirror.model_copy(update={"audit_rate": 1.0})
    for cluster in range(4):
        planted.plant(cluster, "ann_miss")
        planted.plant(cluster, "primary_miss")
    judge = planted.pair.judge()
    for cluster in range(4):
        seen = judge.judge(planted.pair.observe(planted.query(cluster)))
        assert seen.figures["recall"] == 1.0
        assert dict(seen.exact) == {
            ("faiss", AUDIT_RECALL): 0.9,
            ("postgresql", AUDIT_RECALL): 0.9,
        }


def test_the_audit_shows_the_old_store_to_be_the_wrong_one(planted: Planted) -> None:
    """FAISS misses a row that PostgreSQL finds: the audit says which of them is right."""
    planted.pair.mirror = planted.pair.mirror.model_copy(update={"audit_rate": 1.0})
    planted.plant(0, "primary_miss")
    seen = planted.pair.judge().judge(planted.pair.observe(planted.query(0)))
    assert dict(seen.exact) == {("faiss", AUDIT_RECALL): 0.9, ("postgresql", AUDIT_RECALL): 1.0}


def test_the_audit_is_drawn_before_results_are_known(planted: Planted) -> None:
    """Whether a query is audited is decided by the draw alone, at the rate that is set."""
    draws = iter([0.009, 0.011] * 40)
    planted.pair.draw = lambda: next(draws)
    planted.pair.mirror = planted.pair.mirror.model_copy(update={"audit_rate": 0.01})
    judge = planted.pair.judge()
    audited = [
        bool(judge.judge(planted.pair.observe(planted.query(cluster))).exact)
        for cluster in range(20)
    ]
    assert audited == [True, False] * 10


def test_after_the_flip_what_was_not_judged_is_not_watched_as_right(planted: Planted) -> None:
    """PostgreSQL misses a row of every query, and the budget is spent after a few of them: the change
    detector is told of those few, and of no query that nobody held against the exact answer."""
    for cluster in range(60):
        planted.plant(cluster, "ann_miss")
    judge = planted.pair.judge(adjudications_per_s_max=4.0)
    seen = [
        judge.judge(planted.pair.observe(planted.query(cluster), flipped=True))
        for cluster in range(60)
    ]
    watched = [one.watched["recall"] for one in seen if "recall" in one.watched]
    assert len(watched) >= 4
    assert set(watched) == {0.9}
    assert all(one.watched["success"] == 1.0 for one in seen)


def test_after_the_flip_it_is_drawn_before_the_result_whose_recall_is_watched(
    planted: Planted,
) -> None:
    """What agrees is cheap to judge and what diverges is not: all the same, both are watched in the
    shares in which they come."""
    for cluster in range(0, 60, 2):
        planted.plant(cluster, "ann_miss")
    judge = planted.pair.judge(adjudications_per_s_max=8.0)
    seen = [
        judge.judge(planted.pair.observe(planted.query(cluster), flipped=True))
        for cluster in range(60)
    ]
    assert [one.watched.get("recall") for one in seen[:8]] == [0.9, 1.0] * 4
    left_out = [cluster for cluster, one in enumerate(seen) if "recall" not in one.watched]
    assert {cluster % 2 for cluster in left_out} == {0, 1}


def test_after_the_flip_a_fault_of_faiss_is_not_watched_as_one_of_postgresql(
    planted: Planted,
) -> None:
    """Each kind by itself: only what PostgreSQL holds and did not find speaks against it."""
    expected = {"none": 1.0, "ann_miss": 0.9, "primary_miss": 1.0, "row_extra": 1.0}
    for cluster, kind in enumerate(expected):
        planted.plant(cluster, kind)
    judge = planted.pair.judge()
    for cluster, (kind, recall) in enumerate(expected.items()):
        seen = judge.judge(planted.pair.observe(planted.query(cluster), flipped=True))
        assert (kind, seen.watched["recall"]) == (kind, recall)


def test_after_the_flip_a_fall_of_recall_raises_the_alarm(planted: Planted) -> None:
    """PostgreSQL begins to miss a tenth: FAISS lists all that PostgreSQL does and more, which is no miss
    of FAISS's and is one of PostgreSQL's."""
    judge, pair = planted.pair.judge(), planted.pair
    for cluster in range(40):
        pair.record([judge.judge(pair.observe(planted.query(cluster), flipped=True))])
    assert pair.book.alarm(pair.era()) is None
    for cluster in range(40):
        planted.plant(cluster, "ann_miss")
        pair.record([judge.judge(pair.observe(planted.query(cluster), flipped=True))])
    assert pair.book.alarm(pair.era()) == "recall"


def test_a_query_counts_in_every_declared_stratum_that_it_belongs_to(planted: Planted) -> None:
    """Filter, k and label decide; all traffic is counted besides."""
    planted.pair.gate = planted.pair.gate.model_copy(
        update={"strata": ("filtered", "unfiltered", "k<=5", "label:crops")}
    )
    judge = planted.pair.judge()
    found = [
        judge.judge(planted.pair.observe(query)).strata
        for query in (
            Query(planted.centres[0], k=5, label="crops"),
            Query(planted.centres[0], k=6, filter=Filter.of({"cluster": 0}), label="pests"),
        )
    ]
    assert found == [("all", "unfiltered", "k<=5", "label:crops"), ("all", "filtered")]


def test_end_to_end_latency_counts_what_the_application_spent_before(planted: Planted) -> None:
    """The embedding's time is in the objective and kept by store; a query that tells none is left out."""
    planted.pair.gate = planted.pair.gate.model_copy(
        update={"latency_scope": "end_to_end", "latency_budget_ms": 1_000.0}
    )
    judge = planted.pair.judge()
    slow, quick, silent = (
        judge.judge(planted.pair.observe(Query(planted.centres[0], k=10, spent_ms=spent)))
        for spent in (1_500.0, 30.0, None)
    )
    assert (slow.figures["latency"], quick.figures["latency"]) == (0.0, 1.0)
    assert "latency" not in silent.figures
    assert quick.latencies_ms["faiss end to end"] == pytest.approx(30.05)
    assert set(silent.latencies_ms) == {"faiss", "postgresql"}


def _text(vector: Vector) -> str:
    return "[" + ",".join(str(float(value)) for value in vector) + "]"
