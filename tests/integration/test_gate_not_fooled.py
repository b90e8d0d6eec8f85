"""The ways in which evidence could deceive the gate; none of them may lead to a Pass."""

from __future__ import annotations

import math
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from pydantic import SecretStr

from shadow.core.gate import Hold, Pass, Undecided, Verdict
from shadow.core.phases import FAISS, POSTGRESQL, Phase, Route
from shadow.evidence import EvidenceBook, Observed
from shadow.evidence_view import UNDER_WAY_S, Verification
from shadow.mirror import Mirror
from shadow.observation import Observation
from shadow.verdict import open_sentences
from tests.fakes.pair import DIMENSION, SHADOW_ROUTE, WATCHED, Pair, cluster_records, pair_of
from tests.plugins.migrations import SmallMigration
from vectorstore.errors import StoreUnavailable
from vectorstore.filters import Filter
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Query, Vector

CLUSTERS = 40
NEEDED = 300

Made = Callable[..., tuple[Pair, list[Vector]]]


@pytest.fixture
def made(tmp_path: Path, postgres_store: Callable[..., PostgresStore]) -> Iterator[Made]:
    pairs: list[Pair] = []

    def make(**options: Any) -> tuple[Pair, list[Vector]]:
        records, centres = cluster_records(CLUSTERS)
        pair = pair_of(
            records, directory=tmp_path, postgresql=postgres_store(dimension=DIMENSION), **options
        )
        pair.book.record_verification(Verification(time.time(), "clean", 400, 0, "crc32c", ""))
        pairs.append(pair)
        return pair, centres

    yield make
    for pair in pairs:
        pair.close()


def _judged(pair: Pair, queries: Sequence[Query]) -> list[Observed]:
    judge = pair.judge()
    return [judge.judge(pair.observe(query)) for query in queries]


def _verdict(pair: Pair) -> Verdict:
    return pair.desk().ready()


def _said(verdict: Verdict) -> str:
    return " | ".join(open_sentences(verdict))


def test_honest_evidence_passes(made: Made) -> None:
    """The counterpart of all that follows: equal stores, different queries, nothing lost."""
    pair, centres = made()
    pair.record(_judged(pair, [Query(centre) for centre in centres]), times=NEEDED // CLUSTERS + 1)
    verdict = _verdict(pair)
    assert isinstance(verdict, Pass), _said(verdict)


def test_fallback_answers_are_no_evidence(made: Made) -> None:
    """FAISS fails and PostgreSQL answers in its place: never is PostgreSQL compared with itself."""
    pair, centres = made()
    judge = pair.judge()
    for centre in centres:
        failed = Observation(SHADOW_ROUTE, Query(centre), FAISS, None, math.inf, 0, time.time())
        pair.record([judge.judge(failed)], times=NEEDED // CLUSTERS + 1)
    verdict = _verdict(pair)
    assert isinstance(verdict, Undecided)
    assert "recall (all): no traffic yet" in _said(verdict)
    assert "more different queries: 0 of 20" in _said(verdict)


def test_identical_health_checks_are_one_query(made: Made) -> None:
    """85 perfect comparisons of one query would be enough for recall, and say nothing of the others."""
    pair, centres = made()
    pair.record(_judged(pair, [Query(centres[0])]), times=85)
    verdict = _verdict(pair)
    assert isinstance(verdict, Undecided)
    assert all(figure.passed for figure in verdict.figures if figure.name == "recall")
    assert "19 more different queries" in _said(verdict)


@pytest.mark.parametrize("hole", ["dropped", "killed"])
def test_observations_that_never_resolve_count_as_misses(made: Made, hole: str) -> None:
    """A full queue drops, a process is killed with what it had taken: both hold the verdict back, the
    second once it can no longer be under way."""
    pair, centres = made()
    pair.record(_judged(pair, [Query(centre) for centre in centres]), times=NEEDED // CLUSTERS + 1)
    lost = {"sampled": 60, "dropped": 60} if hole == "dropped" else {"sampled": 60, "issued": 60}
    pair.book.tally(pair.era(), "postgresql", **lost)
    deadline = time.monotonic() + 2 * UNDER_WAY_S
    while isinstance(verdict := _verdict(pair), Pass) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert isinstance(verdict, Hold)
    assert "were dropped" in _said(verdict)
    recall = next(figure for figure in verdict.figures if figure.name == "recall")
    assert recall.mean is not None
    assert not recall.passed
    assert recall.mean < 0.95


class _FailingBook(EvidenceBook):
    """Evidence that cannot be written down every second time, where ``fails`` says."""

    fails = ""
    calls = 0

    def _call(self, name: str) -> None:
        self.calls += name == self.fails
        if name == self.fails and self.calls % 2:
            raise sqlite3.OperationalError("planted: database or disk is full")

    def tally(self, *words: Any, **more: int) -> None:
        self._call("tally")
        super().tally(*words, **more)

    def record(self, *words: Any, **options: Any) -> list[str]:
        self._call("record")
        return super().record(*words, **options)


@pytest.mark.parametrize("fails", ["tally", "record", "judge", "era"])
def test_batches_that_fail_count_as_misses(made: Made, tmp_path: Path, fails: str) -> None:
    """Every second batch is not written down, not judged or not recorded, under steady traffic: at
    once, and not only when the process has gone, all that was sampled is compared or missing."""
    pair, centres = made()
    era, judge, judged = pair.era(), pair.judge(), [0, 0]
    book = _FailingBook(tmp_path)
    book.fails = fails

    def judge_batch(batch: Sequence[Observation]) -> Sequence[Observed]:
        judged[0] += 1
        if fails == "judge" and judged[0] % 2:
            raise ValueError("planted: a query that cannot be judged")
        return judge.judge_batch(batch)

    def era_in_force() -> int:
        judged[1] += 1
        if fails == "era" and judged[1] % 2:
            raise sqlite3.OperationalError("planted: database is locked")
        return era

    mirror = Mirror(
        evidence=book,
        judge=judge_batch,
        era=era_in_force,
        watch_means=WATCHED,
        settings=pair.mirror,
    )
    mirror.begin()
    mirror.start()
    offered = 0
    for _ in range(16):
        for centre in centres:
            query = Query(centre)
            mirror.offer(SHADOW_ROUTE, query, pair.faiss.search(query), 0.05)
            offered += 1
        assert mirror.drain(10.0)
    tally = book.total(era, POSTGRESQL)
    assert 0.3 < tally.resolved / offered < 0.7
    # The last batch that failed may still be under way, or untold.
    assert tally.sampled >= offered - 32
    assert 0 <= tally.sampled - tally.resolved - tally.dropped - tally.lost <= 16
    verdict = _verdict(pair)
    assert isinstance(verdict, Hold)
    assert "were dropped" in _said(verdict)
    mirror.close()
    tally = book.total(era, POSTGRESQL)
    assert tally.sampled >= offered - 16 * (fails in ("tally", "era"))
    book.close()


def test_what_could_not_be_told_is_told_when_no_more_traffic_comes(
    made: Made, tmp_path: Path
) -> None:
    """The disk is full while the last queries come: they are missing when there is room again."""
    pair, centres = made()
    era, book = pair.era(), _FailingBook(tmp_path)
    book.fails = "tally"
    mirror = Mirror(
        evidence=book,
        judge=pair.judge().judge_batch,
        era=pair.era,
        watch_means=WATCHED,
        settings=pair.mirror,
    )
    mirror.begin()
    mirror.start()
    query = Query(centres[0])
    mirror.offer(SHADOW_ROUTE, query, pair.faiss.search(query), 0.05)
    deadline = time.monotonic() + 10.0
    while not (tally := book.total(era, POSTGRESQL)).sampled and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (tally.sampled, tally.dropped, tally.resolved, tally.lost) == (1, 1, 0, 0)
    mirror.close()
    book.close()


def test_what_is_left_in_the_queue_at_the_end_counts_as_dropped(made: Made) -> None:
    """A process ends while its mirror is stuck: what nobody looked at is missing."""
    pair, centres = made(mirror={"timeout_ms": 100.0})
    era, stuck, entered = pair.era(), threading.Event(), threading.Event()

    def judge_batch(batch: Sequence[Observation]) -> Sequence[Observed]:
        entered.set()
        assert stuck.wait(30.0)
        return []

    mirror = Mirror(
        evidence=pair.book,
        judge=judge_batch,
        era=pair.era,
        watch_means=WATCHED,
        settings=pair.mirror,
    )
    mirror.begin()
    mirror.start()
    for centre in centres:
        query = Query(centre)
        mirror.offer(SHADOW_ROUTE, query, pair.faiss.search(query), 0.05)
    assert entered.wait(10.0)
    mirror.close()
    tally = pair.book.total(era, POSTGRESQL)
    assert (tally.sampled, tally.dropped) == (CLUSTERS, CLUSTERS - 16)
    stuck.set()


def test_a_batch_at_hand_is_not_missing_and_an_earlier_one_is(made: Made, tmp_path: Path) -> None:
    """What is merely under way does not make the verdict flicker; a process that is gone has nothing
    under way, nor has one that was seen in the future; and no count is ever negative."""
    pair, _ = made()
    era, now = pair.era(), [1_000.0]
    gone, busy = (EvidenceBook(tmp_path, clock=lambda: now[0]) for _ in range(2))
    gone.tally(era, POSTGRESQL, sampled=7, issued=7)
    busy.tally(era, POSTGRESQL, sampled=16, issued=16)
    assert busy.total(era, POSTGRESQL).lost == 0
    busy.tally(era, POSTGRESQL, sampled=5, issued=5)
    assert busy.total(era, POSTGRESQL).lost == 16
    now[0] += UNDER_WAY_S + 1.0
    busy.tally(era, POSTGRESQL, sampled=2, issued=2)
    assert busy.total(era, POSTGRESQL).lost == 7 + 16 + 5
    now[0] -= 500.0
    assert busy.total(era, POSTGRESQL).lost == 7 + 16 + 5 + 2
    one = Observed(POSTGRESQL, {"success": 1.0}, ("all",), {}, b"", 0.0)
    busy.record(era, [one] * 40, watch_means={})
    assert busy.total(era, POSTGRESQL).lost == 7
    gone.close()
    busy.close()


def test_a_bad_query_in_a_third_of_the_traffic_shows_at_a_tenth_of_it(made: Made) -> None:
    """Each occurrence is drawn by itself: a frequent query weighs in the sample what it weighs in the
    traffic, also after it was sampled before."""
    pair, centres = made()
    pair.postgresql.fails[centres[0].tobytes()] = StoreUnavailable("planted")
    seen = _judged(pair, [Query(centre) for centre in centres])
    mirror = Mirror(
        evidence=pair.book,
        judge=pair.judge().judge_batch,
        era=pair.era,
        watch_means=WATCHED,
        settings=pair.mirror,
    )
    mirror.begin()
    route = Route(1, Phase.SHADOW, mirror_rate=0.1)
    draw, sampled = random.Random(5), [0, 0]
    for _ in range(8_000):
        is_bad = draw.random() < 0.3
        sampled[is_bad] += mirror.samples(route)
    assert 650 < sum(sampled) < 950
    assert 0.22 < sampled[1] / sum(sampled) < 0.38
    pair.record(seen[:1], times=sampled[1])
    pair.record(seen[1:], times=sampled[0] // (CLUSTERS - 1) + 1)
    verdict = _verdict(pair)
    assert isinstance(verdict, Hold)
    assert "recall (all): at most" in _said(verdict)


@pytest.mark.parametrize("only_in", ["faiss", "postgresql"])
def test_rows_in_one_store_only_hold_it_back(made: Made, only_in: str) -> None:
    """A row that only one store has is a miss, also where PostgreSQL's own row is nearer."""
    pair, centres = made()
    store: PostgresStore = pair.postgresql._store
    if only_in == "faiss":
        text = sql.SQL("DELETE FROM {} WHERE id LIKE '%%-05'").format(store.names.table)
    else:
        columns = "(id, seq, embedding, text, metadata)"
        text = sql.SQL(
            f"INSERT INTO {{0}} {columns} SELECT id || 'x', seq, embedding, text, metadata FROM {{0}}"
            " WHERE id LIKE '%%-00'"
        ).format(store.names.table)
    store.transact(lambda connection: connection.execute(text, ()))
    pair.record(_judged(pair, [Query(centre) for centre in centres]), times=60)
    verdict = _verdict(pair)
    assert isinstance(verdict, Hold)
    assert "recall (all): at most" in _said(verdict)


def test_an_old_store_that_is_wrong_cannot_make_a_wrong_new_one_pass(made: Made) -> None:
    """Both miss the same rows and agree perfectly; the audit's threshold, if set, is not met."""
    pair, centres = made(gate={"exact_recall_min": 0.95}, mirror={"audit_rate": 1.0})
    for number, centre in enumerate(centres):
        pair.faiss.forgets[centre.tobytes()] = f"c{number:03d}-05"
        pair.postgresql.forgets[centre.tobytes()] = f"c{number:03d}-05"
    pair.record(_judged(pair, [Query(centre) for centre in centres]), times=60)
    verdict = _verdict(pair)
    assert isinstance(verdict, Hold)
    assert all(figure.passed for figure in verdict.figures if figure.name == "recall")
    assert "audit_recall (all): at most 0.9" in _said(verdict)


def test_an_old_store_that_is_wrong_does_not_hold_a_right_new_one_back(made: Made) -> None:
    """FAISS misses a row of each answer, PostgreSQL does not: that is no fault of PostgreSQL's."""
    pair, centres = made(gate={"exact_recall_min": 0.95}, mirror={"audit_rate": 1.0})
    for number, centre in enumerate(centres):
        pair.faiss.forgets[centre.tobytes()] = f"c{number:03d}-05"
    pair.record(_judged(pair, [Query(centre) for centre in centres]), times=10)
    verdict = _verdict(pair)
    assert isinstance(verdict, Pass), _said(verdict)
    exact = pair.book.counts(pair.era(), "faiss")["audit_recall", "all"]
    assert exact == {0.9: 400}


def test_evidence_from_before_a_setting_changed_does_not_count(made: Made) -> None:
    """A new era begins without evidence, whatever the one before had shown."""
    pair, centres = made()
    pair.record(_judged(pair, [Query(centre) for centre in centres]), times=NEEDED // CLUSTERS + 1)
    assert isinstance(_verdict(pair), Pass)
    pair.era({"postgresql.ef_search": 40})
    verdict = _verdict(pair)
    assert isinstance(verdict, Undecided)
    assert "recall (all): no traffic yet" in _said(verdict)


def test_a_bad_stratum_is_not_averaged_away(made: Made) -> None:
    """One query in fifty is filtered and always wrong: all traffic passes, the stratum holds."""
    pair, centres = made(gate={"strata": ("filtered",)})
    good = _judged(pair, [Query(centre) for centre in centres])
    pair.record(good, times=100)
    store: PostgresStore = pair.postgresql._store
    gone = sql.SQL("DELETE FROM {} WHERE metadata @> '{{\"cluster\": 0}}'").format(
        store.names.table
    )
    store.transact(lambda connection: connection.execute(gone))
    bad = _judged(pair, [Query(centres[0], filter=Filter.of({"cluster": 0}))])
    pair.record(bad, times=80)
    verdict = _verdict(pair)
    assert isinstance(verdict, Hold)
    assert [f.passed for f in verdict.figures if f.name == "recall"] == [True, False]
    assert "recall (filtered): at most" in _said(verdict)


@pytest.mark.parametrize("opened", ["before the clock was set", "without traffic"])
def test_time_in_which_nothing_was_gathered_is_no_time(
    made: Made, tmp_path: Path, opened: str
) -> None:
    """An era of fifty years ago, or of two days ago whose queries all came just now, has not had a day;
    one whose queries came throughout a day has, also with pauses."""
    pair, centres = made(gate={"duration_s_min": 86_400.0})
    now = time.time()
    age_s = 50 * 365 * 86_400.0 if opened == "before the clock was set" else 2 * 86_400.0
    pair.book.close()
    pair.book = EvidenceBook(tmp_path, clock=lambda: now - age_s)
    pair.era()
    seen = _judged(pair, [Query(centre) for centre in centres])
    before = [replace(one, at=now - age_s) for one in seen[:1]]
    pair.record(before * (opened == "before the clock was set"))
    pair.record(seen, times=NEEDED // CLUSTERS + 1)
    verdict = _verdict(pair)
    assert isinstance(verdict, Undecided)
    assert "more time: " in _said(verdict)
    for half_hours in range(49):
        pair.record([replace(one, at=now - half_hours * 1_800.0) for one in seen[:1]])
    verdict = _verdict(pair)
    assert isinstance(verdict, Pass), _said(verdict)


def test_a_declared_stratum_without_traffic_is_named(made: Made) -> None:
    """What was declared must be shown, not assumed."""
    pair, centres = made(gate={"strata": ("filtered",)})
    pair.record(_judged(pair, [Query(centre) for centre in centres]), times=NEEDED // CLUSTERS + 1)
    verdict = _verdict(pair)
    assert isinstance(verdict, Undecided)
    assert "recall (filtered): no traffic yet" in _said(verdict)


def test_the_latency_ratio_counts_timeouts_and_holes_as_infinite(made: Made) -> None:
    """PostgreSQL within twice FAISS's p95 passes; with a tenth of its answers lost it does not."""
    pair, centres = made(gate={"latency_ratio_max": 2.0, "drops_share_max": 0.5})
    era, seen = pair.era(), _judged(pair, [Query(centre) for centre in centres])
    for one in seen:
        even = Observed(
            judged=one.judged,
            figures=one.figures,
            strata=one.strata,
            latencies_ms={"faiss": 1.0, "postgresql": 1.2},
            query_digest=one.query_digest,
            at=one.at,
        )
        pair.book.tally(era, "postgresql", sampled=50, issued=50)
        pair.book.record(era, [even] * 50, watch_means=WATCHED)
    verdict = _verdict(pair)
    assert isinstance(verdict, Pass), _said(verdict)
    assert verdict.ratio is not None
    pair.book.tally(era, "postgresql", sampled=250, dropped=250)
    verdict = _verdict(pair)
    assert not isinstance(verdict, Pass)
    assert "latency p95: " in _said(verdict)


def test_a_new_era_by_hand_ends_the_alarm_and_the_old_counts(made: Made) -> None:
    """After an outage was mended the misses of the outage hold nothing back."""
    pair, centres = made()
    pair.postgresql.fails = {centre.tobytes(): StoreUnavailable("out") for centre in centres}
    pair.record(_judged(pair, [Query(centre) for centre in centres]), times=10)
    assert "change detector" in _said(_verdict(pair))
    pair.postgresql.fails = {}
    seen = _judged(pair, [Query(centre) for centre in centres])
    before = pair.book.era()
    era = pair.book.begin_era(why="the outage was mended")
    assert before is not None
    assert (era.number, era.fingerprint) == (before.number + 1, before.fingerprint)
    for one in seen:
        pair.book.tally(era.number, "postgresql", sampled=8, issued=8)
        pair.book.record(era.number, [one] * 8, watch_means=WATCHED)
    verdict = _verdict(pair)
    assert isinstance(verdict, Pass), _said(verdict)


def test_counts_of_many_processes_merge_in_any_order(made: Made, tmp_path: Path) -> None:
    """Books of several processes on one file, written in shuffled order: the verdict is the same."""
    pair, centres = made()
    pair.postgresql.forgets[centres[0].tobytes()] = "c000-05"
    seen = _judged(pair, [Query(centre) for centre in centres])
    verdicts = []
    for seed in range(4):
        folder = tmp_path / f"order-{seed}"
        folder.mkdir()
        books = [EvidenceBook(folder) for _ in range(3)]
        books[0].record_verification(Verification(0.0, "clean", 1, 0, "md5", ""))
        era = books[0].open_era("same", {}, why="a test").number
        work = [(one, number % 3) for one in seen for number in range(8)]
        random.Random(seed).shuffle(work)
        for one, process in work:
            books[process].tally(era, one.judged, sampled=1, issued=1)
            books[process].record(era, [one], watch_means={})
        pair.book.close()
        pair.book = books[1]
        verdicts.append(_verdict(pair).figures)
        books[0].close()
        books[2].close()
    # The time of each comparison differs, and no figure depends on it.
    assert all(one == verdicts[0] for one in verdicts[1:])


def test_a_store_that_cannot_be_asked_is_not_level(small_migration: SmallMigration) -> None:
    """However level it was when it was last seen, and though nothing was written since."""
    small_migration.filled()
    away = small_migration.with_settings(
        postgresql={"dsn": SecretStr("postgresql://nobody@127.0.0.1:9/none")}
    )
    unknown = "the lag of both stores must be known"
    with small_migration.opened() as migration:
        migration.postgresql.look()
        assert unknown not in _said(migration.desk.ready())
        # Seen, and then gone.
        migration.postgresql.lost("the connection was refused")
        assert unknown in _said(migration.desk.ready())
        assert not isinstance(migration.desk.ready(), Pass)
    with away.opened() as migration:
        assert migration.postgresql.look().state == "unavailable"
        assert unknown in _said(migration.desk.ready())
