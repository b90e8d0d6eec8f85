"""The process that asks PostgreSQL for a busy mirror: same answers, and no loss when it fails."""

from __future__ import annotations

import math
import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from psycopg import sql

from shadow.asking_process import STARTS_MAX, AskingProcess
from shadow.asking_worker import TEXT_EXCERPT_MAX
from shadow.core.phases import POSTGRESQL
from tests.fakes.pair import DIMENSION, Pair, cluster_records, pair_of
from tests.fakes.running import QUERY, record_of, running, until
from tests.plugins.tcp_proxy import TcpProxy
from vectorstore.errors import DeadlineExceeded, StoreUnavailable
from vectorstore.filters import Filter
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Answer, Query, Vector

CLUSTERS = 40
TIMEOUT_MS = 10_000.0


class Asking:
    """A pair of stores, its queries, and a process that asks for it."""

    def __init__(self, pair: Pair, centres: list[Vector], settings: PostgresSettings) -> None:
        self.pair = pair
        self.centres = centres
        self.settings = settings
        self.process = AskingProcess(lambda: self.settings, grace_s=0.5)
        self.pids: list[int] = []

    def queries(self) -> list[Query]:
        """Plain ones, filtered ones, and ones with a k of their own."""
        even = Filter.of({"half": "even", "cluster": [0, 1, 2, 3, 1.5, True]})
        return [
            Query(centre, k=3 + n % 5, filter=even if n % 3 == 0 else None, timeout_ms=TIMEOUT_MS)
            for n, centre in enumerate(self.centres)
        ]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with structlog.testing.capture_logs() as logs:
            self.process.start()
            until("the process", lambda: bool(self.process.ask(self.queries()[:1])))
        self.pids += [log["pid"] for log in logs if log["event"] == "mirror_process_started"]


@pytest.fixture
def asking(tmp_path: Path, postgres_store: Callable[..., PostgresStore]) -> Iterator[Asking]:
    store = postgres_store(dimension=DIMENSION)
    records, centres = cluster_records(CLUSTERS)
    long = "é" * 3 * TEXT_EXCERPT_MAX
    records = [replace(record, text=f"{record.text} {long}") for record in records]
    pair = pair_of(records, directory=tmp_path / "state", postgresql=store)
    found = Asking(pair, centres, store.settings)
    yield found
    found.process.close()
    pair.close()


def test_it_answers_as_the_store_does(asking: Asking) -> None:
    """Ids, scores and seqs to the bit, filters and k included; of the texts the beginning."""
    asking.start()
    queries = asking.queries()
    for query, asked in zip(queries, asking.process.ask(queries), strict=True):
        assert isinstance(asked.outcome, Answer)
        direct = asking.pair.postgresql.search(query)
        assert [(hit.id, hit.score, hit.seq) for hit in asked.outcome.hits] == [
            (hit.id, hit.score, hit.seq) for hit in direct.hits
        ]
        assert [hit.text for hit in asked.outcome.hits] == [
            hit.text[:TEXT_EXCERPT_MAX] for hit in direct.hits
        ]
        assert asked.outcome.applied_seq == direct.applied_seq
        assert 0.0 < asked.latency_ms < TIMEOUT_MS
    assert asking.process.cpu_s > 0.0


def test_a_judge_comes_to_the_same_with_and_without_it(asking: Asking) -> None:
    """A row that PostgreSQL lost is found either way; what is equal is found equal."""
    record_id, store = "c005-03", asking.pair.postgresql
    lost = sql.SQL("DELETE FROM {} WHERE id = %s").format(store.names.table)
    store.transact(lambda connection: connection.execute(lost, (record_id,)))
    batch = [asking.pair.observe(replace(q, k=10, timeout_ms=None)) for q in asking.queries()]
    without = list(asking.pair.judge().judge_batch(batch))
    asking.start()
    before = asking.pair.postgresql.asked
    within = list(asking.pair.judge(asking=asking.process).judge_batch(batch))
    assert asking.pair.postgresql.asked == before, "asked from the thread"
    assert [(one.figures, one.causes) for one in within] == [
        (one.figures, one.causes) for one in without
    ]
    # Measured where it was asked: neither nought nor the wait for the whole batch.
    measured = [one.latencies_ms["postgresql"] for one in within]
    assert min(measured) > 0.0
    assert len(set(measured)) == len(measured)
    told = [one for one in within if one.figures["recall"] < 1.0]
    assert told
    for one in told:
        assert one.causes == {"row_missing": 1}
        assert one.detail is not None
        assert record_id in str(one.detail["primary_hits"])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_what_it_does_not_answer_is_asked_from_the_thread(
    asking: Asking, how: signal.Signals
) -> None:
    """Killed or stuck: every observation of the batch is judged, and none as a miss."""
    asking.pair.mirror = asking.pair.mirror.model_copy(update={"timeout_ms": 400.0})
    asking.start()
    batch = [asking.pair.observe(Query(centre)) for centre in asking.centres[:5]]
    os.kill(asking.pids[0], how)
    with structlog.testing.capture_logs() as logs:
        seen = list(asking.pair.judge(asking=asking.process).judge_batch(batch))
    assert [one.figures["success"] for one in seen] == [1.0] * len(batch)
    assert [log["event"] for log in logs] == ["mirror_process_ended"]
    assert not _runs(asking.pids[0])


def test_one_that_talks_nonsense_costs_no_observation(
    asking: Asking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where an interpreter prints when it starts: the thread asks, and nothing is lost or missed."""
    (tmp_path / "sitecustomize.py").write_text("print('good morning', flush=True)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    judge = asking.pair.judge(asking=asking.process)
    batch = [asking.pair.observe(Query(centre)) for centre in asking.centres[:5]]
    asking.process.start()
    with structlog.testing.capture_logs() as logs:

        def ended() -> bool:
            seen = list(judge.judge_batch(batch))
            assert [one.figures["success"] for one in seen] == [1.0] * len(batch)
            return bool(logs)

        until("its end", ended)
    assert [log["event"] for log in logs] == ["mirror_process_ended"]


def test_what_a_library_prints_in_it_is_no_reply(
    asking: Asking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard output is not the way to the parent once the process is under way."""
    chatty = """
        import json
        loads = json.loads
        def talking(text):
            print("a library that talks", flush=True)
            return loads(text)
        json.loads = talking
    """
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(chatty))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    asking.start()
    assert len(asking.process.ask(asking.queries())) == CLUSTERS


def test_it_works_where_many_files_are_open(asking: Asking) -> None:
    """A server with thousands of clients: its socket gets a number that select() does not take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4_096, hard), hard))
    with ExitStack() as opened:
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1_100):
            opened.enter_context(Path(os.devnull).open())
        asking.start()
        assert len(asking.process.ask(asking.queries())) == CLUSTERS


def test_a_batch_ends_with_its_first_failure(asking: Asking) -> None:
    """A deadline that cannot be met: the ones before it are answered, the ones after it are left."""
    asking.start()
    queries = asking.queries()[:4]
    queries[2] = replace(queries[2], timeout_ms=1e-3)
    asked = asking.process.ask(queries)
    assert [type(one.outcome) for one in asked] == [Answer, Answer, DeadlineExceeded]


def test_a_failure_that_it_met_is_a_miss_and_gets_no_second_try(
    asking: Asking, proxied_dsn: str, postgres_proxy: TcpProxy
) -> None:
    """PostgreSQL fails it and would answer the thread: that query missed, the ones after it are asked."""
    asking.settings = replace(asking.settings, dsn=proxied_dsn)
    asking.start()
    batch = [asking.pair.observe(Query(centre)) for centre in asking.centres[:5]]
    postgres_proxy.refuse()
    seen = list(asking.pair.judge(asking=asking.process).judge_batch(batch))
    assert [one.figures["success"] for one in seen] == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert seen[0].causes == {"error": 10}
    assert seen[0].latencies_ms["postgresql"] == math.inf


def test_the_password_is_not_on_its_command_line(asking: Asking) -> None:
    """What may be read by every account of the machine holds no secret."""
    asking.start()
    line = Path(f"/proc/{asking.pids[0]}/cmdline").read_bytes().replace(b"\0", b" ")
    assert b"asking_worker" in line
    assert b"postgres" not in line


def test_it_ends_by_itself_and_starts_again(asking: Asking) -> None:
    """Idle, it gives its memory back; that is not a failure."""
    asking.process = AskingProcess(lambda: asking.settings, idle_s=0.2)
    asking.start()
    cpu_s = asking.process.cpu_s
    until("its end", lambda: not _runs(asking.pids[0]))
    with structlog.testing.capture_logs() as logs:
        assert asking.process.ask(asking.queries()[:1]) == []
    assert logs == []
    assert asking.process.cpu_s == cpu_s
    asking.start()
    assert len(asking.pids) == 2


def test_it_ends_with_a_parent_that_was_killed(asking: Asking) -> None:
    """No process is left behind, whatever happens to the application."""
    script = textwrap.dedent("""
        import sys, time
        from shadow.asking_process import AskingProcess
        from vectorstore.postgres.settings import PostgresSettings
        from vectorstore.types import Query
        settings = PostgresSettings(dsn=sys.argv[1], dimension=int(sys.argv[2]), table=sys.argv[3])
        process = AskingProcess(lambda: settings)
        process.start()
        query = Query([1.0] * settings.dimension, timeout_ms=10_000.0)
        while not process.ask([query]):
            time.sleep(0.01)
        print("asked", flush=True)
        time.sleep(60)
    """)
    settings = asking.settings
    with subprocess.Popen(
        [sys.executable, "-c", script, settings.dsn, str(DIMENSION), settings.table],
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(re.findall(r"mirror_process_started.*pid=(\d+)", parent.stdout.readline())[0])
        assert parent.stdout.readline() == "asked\n"
        assert _runs(pid)
        parent.kill()
    until("its end", lambda: not _runs(pid))


def test_one_that_cannot_connect_is_given_up(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says why, and is not started for ever."""
    monkeypatch.setattr("shadow.asking_process.PAUSE_S", 0.0)
    asking.settings = replace(
        asking.settings, dsn="postgresql://nobody:secret@127.0.0.1:9/x", connect_timeout_ms=200
    )
    with structlog.testing.capture_logs() as logs:
        for _ in range(STARTS_MAX + 2):
            asking.process.start()
            until("its end", lambda: _asked_and_gone(asking))
    ended = [log for log in logs if log["event"] == "mirror_process_ended"]
    assert len(ended) == STARTS_MAX
    assert all("StoreUnavailable" in log["error"] and "secret" not in str(log) for log in ended)


def test_nothing_is_started_while_postgresql_is_away(asking: Asking) -> None:
    """The link has no store: there is nothing to ask, and that is no failed start."""

    def away() -> PostgresSettings:
        raise StoreUnavailable("away")

    process = AskingProcess(away)
    process.start()
    assert process.ask(asking.queries()) == []
    assert process.cpu_s == 0.0


def test_a_busy_mirror_starts_it_and_an_outage_costs_no_answer(
    tmp_path: Path,
    postgresql_dsn: str,
    proxied_dsn: str,
    postgres_proxy: TcpProxy,
    fresh_table: str,
) -> None:
    """Asked hard, the mirror takes a process; all that was sampled is resolved; while PostgreSQL is
    away the reader is answered all the same and each mirrored query is a miss."""
    mirror = {"rate": 1.0, "cpu_share_max": 1.0, "events": "off", "timeout_ms": 2_000.0}
    with (
        structlog.testing.capture_logs() as logs,
        running(tmp_path, proxied_dsn, fresh_table, mirror=mirror) as run,
    ):
        run.router.upsert([record_of(n) for n in range(300)])
        run.fill()

        def started() -> bool:
            for _ in range(50):
                assert run.router.search(QUERY).store == "faiss"
            return any(log["event"] == "mirror_process_started" for log in logs)

        until("a process", started)
        book = run.operator.evidence
        assert run.router._mirror.drain(30.0)
        era = book.era()
        assert era is not None
        tally = book.total(era.number, POSTGRESQL)
        assert tally.sampled - tally.dropped == tally.resolved
        postgres_proxy.refuse()

        def fifty_sampled() -> bool:
            # On a machine that was busy the budget may still draw fewer than all.
            for _ in range(50):
                assert run.router.search(QUERY).store == "faiss"
            assert run.router._mirror.drain(30.0)
            return book.total(era.number, POSTGRESQL).sampled >= tally.sampled + 50

        until("fifty queries to be sampled", fifty_sampled)
        after = book.total(era.number, POSTGRESQL)
        missed = after.sampled - after.dropped - (tally.sampled - tally.dropped)
        assert after.resolved == tally.resolved + missed
        assert book.causes(era.number, POSTGRESQL) == {"error": missed * QUERY.k}
    pid = next(log["pid"] for log in logs if log["event"] == "mirror_process_started")
    assert not _runs(pid), "left running after the router was closed"


def _asked_and_gone(asking: Asking) -> bool:
    asking.process.ask(asking.queries()[:1])
    return asking.process._running is None


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"
