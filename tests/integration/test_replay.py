"""Capture and replay: what is kept of live queries, and a report on queries that were replayed."""

from __future__ import annotations

import json
import math
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from psycopg import sql
from typer.testing import CliRunner

from shadow.captures import CaptureBook
from shadow.cli import app
from shadow.config import EvidenceSettings
from shadow.config_sources import load_settings
from shadow.core.phases import POSTGRESQL
from shadow.evidence_view import LIVE, REPLAY
from shadow.opening import Migration, open_migration
from shadow.replay import queries_of_file, questions_of_file, replay
from shadow.service import open_router
from tests.fakes.pair import DIMENSION, cluster_records
from vectorstore.errors import InvalidInput
from vectorstore.filters import Filter
from vectorstore.types import Query, Vector

CLUSTERS = 30


def _settings(**values: Any) -> EvidenceSettings:
    return EvidenceSettings.model_validate(values)


def _query(value: float) -> Query:
    return Query(np.full(4, value), k=3, filter=Filter.of({"who": "Chisomo"}), label="private")


def test_nothing_is_captured_unless_asked_for_and_switching_it_off_deletes(tmp_path: Path) -> None:
    """The default keeps no file; what was captured goes when capture is switched off."""
    book = CaptureBook(tmp_path, _settings())
    book.add([_query(1.0)])
    assert book.queries() == []
    assert list(tmp_path.iterdir()) == []
    on = CaptureBook(tmp_path, _settings(capture_max=5))
    on.add([_query(1.0)])
    on.close()
    CaptureBook(tmp_path, _settings()).close()
    assert list(tmp_path.iterdir()) == []


def test_capture_keeps_vectors_only_unless_told_otherwise(tmp_path: Path) -> None:
    """Filters and labels may hold what people wrote; the file is the owner's alone."""
    book = CaptureBook(tmp_path, _settings(capture_max=5))
    book.add([_query(1.0)])
    (kept,) = book.queries()
    assert (kept.k, kept.filter, kept.label) == (3, None, None)
    assert np.array_equal(kept.vector, np.ones(4))
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert b"Chisomo" not in path.read_bytes()
    book.close()
    told = CaptureBook(tmp_path, _settings(capture_max=5, capture_filters=True))
    told.add([_query(2.0)])
    assert told.queries()[1].filter == Filter.of({"who": "Chisomo"})
    assert told.queries()[1].label == "private"
    told.close()


def test_capture_is_capped_and_expires(tmp_path: Path) -> None:
    """The oldest go first, by number and by age, also if nobody reads for long."""
    now = [1_000.0]
    book = CaptureBook(
        tmp_path, _settings(capture_max=3, capture_age_s_max=60.0), clock=lambda: now[0]
    )
    for value in range(5):
        book.add([_query(float(value) + 1.0)])
        now[0] += 20.0
    assert [query.vector[0] for query in book.queries()] == [3.0, 4.0, 5.0]
    book.add([_query(6.0)])
    assert [query.vector[0] for query in book.queries()] == [4.0, 5.0, 6.0]
    now[0] += 100.0
    assert book.queries() == []
    book.close()


def test_files_of_queries_say_which_line_is_wrong(tmp_path: Path) -> None:
    """Arrays without pickles; lines with vector or text, k, filter and label."""
    array = tmp_path / "queries.npy"
    np.save(array, np.eye(4))
    assert [query.k for query in queries_of_file(array, k=7)] == [7] * 4
    lines = tmp_path / "queries.jsonl"
    lines.write_text(
        '{"vector": [1, 2], "k": 2, "filter": {"a": 1}, "label": "x"}\n\n{"text": "maize"}\n'
    )
    embedded = queries_of_file(lines, k=5, embed=lambda texts: np.ones((len(texts), 2)))
    assert [(query.k, query.label) for query in embedded] == [(2, "x"), (5, None)]
    with pytest.raises(InvalidInput, match="--embedder"):
        queries_of_file(lines, k=5)
    for text, wrong in (
        ('{"vector": "x"}', "list of numbers"),
        ("{", "not JSON"),
        ("[]", "object"),
        ("[" * 100_000, "not JSON"),
        (f'{{"vector": [1{"0" * 400}]}}', "list of numbers"),
    ):
        lines.write_text(f'{{"vector": [1]}}\n{text}\n')
        with pytest.raises(InvalidInput, match=f"line 2.*{wrong}"):
            queries_of_file(lines, k=5)
    hostile = tmp_path / "hostile.npy"
    np.save(hostile, np.array([object()], dtype=object), allow_pickle=True)
    empty = tmp_path / "empty.npy"
    empty.touch()
    for path in (hostile, empty):
        with pytest.raises(InvalidInput, match="no plain array") as refused:
            queries_of_file(path, k=5)
        # NumPy's own words would have the pickle run.
        assert "allow_pickle" not in str(refused.value)
    lines.write_bytes(b'{"text": "\xff"}\n')
    with pytest.raises(InvalidInput, match="not text in UTF-8"):
        queries_of_file(lines, k=5)
    with pytest.raises(InvalidInput, match="not text in UTF-8"):
        questions_of_file(lines)


@pytest.fixture
def config(tmp_path: Path, postgresql_dsn: str, fresh_table: str) -> Path:
    path = tmp_path / "shadow.toml"
    path.write_text(
        f'state_directory = "{tmp_path / "state"}"\n'
        f"[faiss]\ndimension = {DIMENSION}\n"
        f'[postgresql]\ndsn = "{postgresql_dsn}"\ntable = "{fresh_table}"\n'
        "[gate]\nduration_s_min = 0.0\ndistinct_queries_min = 20\n"
        "[evidence]\ncapture_max = 100\n"
    )
    return path


@pytest.fixture
def centres(config: Path) -> list[Vector]:
    """A migration with clusters in both stores, verified; the clusters' centres."""
    records, found = cluster_records(CLUSTERS)
    router = open_router(load_settings(config))
    router.upsert(records)
    router.close()
    for command in ("backfill", "verify"):
        result = CliRunner().invoke(app, [command, "-c", str(config)])
        assert result.exit_code == 0, result.output
    return found


@pytest.fixture
def migration(config: Path, centres: list[Vector]) -> Iterator[Migration]:
    opened = open_migration(load_settings(config))
    yield opened
    opened.close()


def test_a_replay_reports_in_minutes_and_leaves_live_evidence_alone(
    config: Path, centres: list[Vector], tmp_path: Path
) -> None:
    """The command runs a file at a concurrency, writes a report of its own, and flips nothing."""
    file = tmp_path / "queries.npy"
    np.save(file, np.tile(np.stack(centres), (5, 1)))
    result = CliRunner().invoke(
        app, ["replay", str(file), "-c", str(config), "--concurrency", "4", "--json"]
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["verdict"] == "pass"
    assert "150 replayed queries, which are no live evidence" in report["headline"]
    assert report["sampling"]["compared"] == 150
    assert {one["store"] for one in report["latency"]} == {"faiss", "postgresql"}
    assert (tmp_path / "state" / "replay" / "report.html").exists() or list(
        (tmp_path / "state" / "replay").iterdir()
    )
    live = CliRunner().invoke(app, ["report", "-c", str(config), "--json"])
    assert live.exit_code == 4
    assert json.loads(live.stdout)["sampling"]["compared"] == 0


def test_without_a_copy_nothing_is_replayed(config: Path, tmp_path: Path) -> None:
    """Before the first backfill every row is missing from PostgreSQL, which is no divergence: the command
    says what to run first, and leaves no report and no evidence."""
    records, found = cluster_records(CLUSTERS)
    router = open_router(load_settings(config))
    router.upsert(records)
    router.close()
    file = tmp_path / "queries.npy"
    np.save(file, np.stack(found))
    result = CliRunner().invoke(app, ["replay", str(file), "-c", str(config)])
    assert result.exit_code == 1, result.output
    assert "run `shadow backfill`" in " ".join(result.stderr.split())
    assert not (tmp_path / "state" / "replay").exists()


def test_replayed_misses_are_all_adjudicated_and_a_second_run_replaces_the_first(
    migration: Migration, centres: list[Vector]
) -> None:
    """Row deleted behind the router's back in every second cluster: counted once, however often run."""
    store = migration.link.open()
    gone = [f"c{number:03d}-04" for number in range(0, CLUSTERS, 2)]
    text = sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(store.names.table)
    store.transact(lambda connection: connection.execute(text, (gone,)))
    queries = [Query(centre) for centre in centres]
    for _ in range(2):
        done = replay(migration, queries, concurrency=2)
        assert done.queries == CLUSTERS
        causes = migration.evidence.causes(done.era, POSTGRESQL, source=REPLAY)
        assert causes == {"row_missing": len(gone)}
    assert migration.evidence.counts(done.era, POSTGRESQL, source=LIVE) == {}
    assert migration.evidence.alarm(done.era) is None
    assert math.isfinite(done.seconds)


def test_live_queries_are_captured_and_can_be_replayed(config: Path, centres: list[Vector]) -> None:
    """A router with capture on keeps mirrored queries; `replay --captured` runs them."""
    router = open_router(load_settings(config))
    try:
        deadline = time.monotonic() + 20.0
        state = load_settings(config).state_directory
        captured: list[Query] = []
        while len(captured) < 25 and time.monotonic() < deadline:
            for centre in centres:
                router.search(Query(centre))
            book = CaptureBook(state, _settings(capture_max=100))
            captured = book.queries()
            book.close()
            time.sleep(0.05)
        assert len(captured) >= 25
    finally:
        router.close()
    result = CliRunner().invoke(app, ["replay", "--captured", "-c", str(config), "--json"])
    assert json.loads(result.stdout)["sampling"]["compared"] >= 25, result.output


def test_what_cannot_be_replayed_is_refused(migration: Migration, centres: list[Vector]) -> None:
    """More at a time than there are connections, or a vector of another length."""
    with pytest.raises(InvalidInput, match="pool_size_max"):
        replay(migration, [Query(centres[0])], concurrency=9)
    with pytest.raises(InvalidInput, match="shape"):
        replay(migration, [Query(np.ones(3))])


def test_a_new_era_is_begun_by_command_and_noted(config: Path, centres: list[Vector]) -> None:
    """The number rises by one, the reason is in the audit log and in the report."""
    result = CliRunner().invoke(app, ["new-era", "the disk was replaced", "-c", str(config)])
    assert result.exit_code == 0, result.output
    assert "era 2 has begun" in result.output
    report = json.loads(CliRunner().invoke(app, ["report", "-c", str(config), "--json"]).stdout)
    assert report["era"]["why"] == "by hand: the disk was replaced"
    assert report["era"]["promise_alpha_sum"] == pytest.approx(0.10)
    assert any(entry["what"] == "new era" for entry in report["audit"])


def test_the_doctor_finds_nothing_in_a_sound_migration_and_names_what_was_planted(
    config: Path, centres: list[Vector]
) -> None:
    """The whole command on a live pair: exit code 0, and 3 once the index is missing."""
    sound = CliRunner().invoke(app, ["doctor", "-c", str(config)])
    assert (sound.exit_code, sound.output.strip()) == (0, "no trap found")
    config.write_text(config.read_text().replace("[gate]", "exact_rows_max = 0\n[gate]"))
    found = CliRunner().invoke(app, ["doctor", "-c", str(config)])
    assert found.exit_code == 3
    assert "the index is absent or unused (trap 5)" in found.output
    built = CliRunner().invoke(app, ["index", "-c", str(config)])
    assert (built.exit_code, built.output.strip().splitlines()[-1]) == (
        0,
        "the index is there and valid",
    )
    assert CliRunner().invoke(app, ["doctor", "-c", str(config)]).exit_code == 0


def test_tune_proposes_and_writes_by_command(config: Path, centres: list[Vector]) -> None:
    """Table, chart and settings from captured or filed queries; the file still loads."""
    file = config.with_name("queries.npy")
    np.save(file, np.stack(centres))
    result = CliRunner().invoke(app, ["tune", str(file), "-c", str(config), "--write", "--json"])
    assert result.exit_code == 0, result.output
    proposed = json.loads(result.stdout)["proposed"]
    written = load_settings(config).postgresql
    assert all(str(getattr(written, key)) == str(value) for key, value in proposed.items())
    assert (config.parent / "state" / "frontier.svg").read_text().startswith("<svg")
