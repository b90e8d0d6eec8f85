"""Tune: the frontier that is measured, what is proposed, and what is written."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from shadow.config_sources import config_file, load_settings
from shadow.core.frontier import Candidate, Grid, Measured, affordable, frontier
from shadow.tuning import COPY_MARK, SUFFIX, tune
from shadow.tuning_output import chart, rows, settings_of, write_settings
from tests.fakes.file_limit import file_limit
from tests.plugins.migrations import SmallMigration
from vectorstore.errors import ConfigurationError, InvalidInput, StoreUnavailable
from vectorstore.filters import Filter
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Query, Record, Vector

Opened = Callable[..., PostgresStore]

QUICK = Grid(builds=((8, 32),), ef_search=(10, 40, 200), rerank_factors=(1, 4))


def _clustered(
    rows: int, dimension: int, queries: int, seed: int = 9
) -> tuple[list[Vector], list[Vector]]:
    """Rows around many centres, unit length, and queries drawn in the same way."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(max(20, rows // 2_000), dimension))
    picked = centres[draw.integers(len(centres), size=rows + queries)]
    # Embeddings vary more along some directions than along others.
    spread = np.arange(1, dimension + 1) ** -0.3
    points = ((picked + draw.normal(size=picked.shape)) * spread).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return list(points[:rows]), list(points[rows:])


def _filled(store: PostgresStore, vectors: list[Vector]) -> PostgresStore:
    for start in range(0, len(vectors), 5_000):
        store.upsert(
            [
                Record(f"r{row:06d}", vector, f"text {row}", {"even": row % 2 == 0})
                for row, vector in enumerate(vectors[start : start + 5_000], start)
            ]
        )
    return store


def _measured(ef_search: int, recall: float, p50_ms: float, p95_ms: float = 1.0) -> Measured:
    return Measured(Candidate(ef_search=ef_search), recall, p50_ms, p95_ms, 50)


def test_the_frontier_holds_what_no_other_beats() -> None:
    """Slower and no better is out; equal speed keeps the better one."""
    found = frontier(
        [
            _measured(1, 0.9, 1.0),
            _measured(2, 0.8, 2.0),
            _measured(3, 0.95, 1.0),
            _measured(4, 1.0, 5.0),
        ]
    )
    assert [one.candidate.ef_search for one in found] == [3, 4]


def test_the_cheapest_that_meets_both_thresholds_comes_first() -> None:
    """Recall and p95 both decide; the median orders."""
    found = affordable(
        [
            _measured(1, 0.9, 1.0),
            _measured(2, 0.96, 3.0),
            _measured(3, 0.99, 2.0, 80.0),
            _measured(4, 0.99, 4.0),
        ],
        recall_min=0.95,
        latency_budget_ms=50.0,
    )
    assert [one.candidate.ef_search for one in found] == [2, 4]


def test_the_grid_leaves_out_what_cannot_differ() -> None:
    """Rerank only for halfvec; iteration only where there are filters; exact search first."""
    plain, filtered = list(QUICK.candidates(filtered=False)), list(QUICK.candidates(filtered=True))
    assert plain[0].exact
    assert len(plain) == 1 + 3 + 3 * 2
    assert len(filtered) == 1 + 2 * (len(plain) - 1)
    assert len({one.name for one in filtered}) == len(filtered)


def test_tune_measures_a_copy_and_leaves_the_table_alone(postgres_store: Opened) -> None:
    """Every candidate has a recall; the copy is gone afterwards, and no index was made."""
    vectors, asked = _clustered(2_000, 16, 60)
    store = _filled(postgres_store(dimension=16), vectors)
    queries = [
        Query(v, filter=Filter.of({"even": True}) if n % 3 == 0 else None)
        for n, v in enumerate(asked)
    ]
    tuned = tune(store, queries, recall_min=0.9, latency_budget_ms=1_000.0, grid=QUICK)
    assert len(tuned.measured) == len(list(QUICK.candidates(filtered=True)))
    assert tuned.measured[0].recall == 1.0
    assert max(one.recall for one in tuned.measured[1:]) > 0.95
    assert min(one.recall for one in tuned.measured) < 0.99
    assert tuned.proposed in tuned.frontier
    assert tuned.rows == 2_000
    tables = store.read(
        lambda connection: connection.execute(
            "SELECT relname FROM pg_class WHERE relname LIKE %s", (f"{store.settings.table}%tune%",)
        ).fetchall()
    )
    assert tables == []
    assert store.describe()["index_kind"] == "none"
    drawn = ElementTree.fromstring(chart(tuned))
    assert len(drawn.findall(".//{*}circle")) >= len(tuned.measured)
    assert len(rows(tuned)) == len(tuned.frontier)


def test_tune_drops_no_table_but_its_own(postgres_store: Opened) -> None:
    """A table of the copy's name that something else made is left as it is; what a killed run left goes."""
    vectors, asked = _clustered(200, 16, 30)
    store = _filled(postgres_store(dimension=16), vectors)
    table = f"{store.settings.table[: 40 - len(SUFFIX)]}{SUFFIX}"
    other = _filled(PostgresStore.open(replace(store.settings, table=table)), vectors[:3])
    queries = [Query(one) for one in asked]
    try:
        with pytest.raises(ConfigurationError, match="is none of tune's copies"):
            tune(store, queries, recall_min=0.9, latency_budget_ms=1_000.0, grid=QUICK)
        assert other.count() == 3
        marked = f"COMMENT ON TABLE {table} IS '{COPY_MARK}'".encode()
        other.transact(lambda connection: connection.execute(marked))
        tune(store, queries, recall_min=0.9, latency_budget_ms=1_000.0, grid=QUICK)
        with pytest.raises(ConfigurationError, match="dropped or altered"):
            other.count()
    finally:
        other.close()


def test_nothing_is_proposed_where_nothing_is_good_enough(postgres_store: Opened) -> None:
    """Thresholds that no way to search meets."""
    vectors, asked = _clustered(300, 16, 20)
    store = _filled(postgres_store(dimension=16), vectors)
    quick = Grid(builds=((8, 32),), index_types=("auto",), ef_search=(40,))
    queries = [Query(vector) for vector in asked]
    tuned = tune(store, queries, recall_min=0.9, latency_budget_ms=1e-6, grid=quick)
    assert tuned.proposed is None
    with pytest.raises(StoreUnavailable, match="shadow backfill"):
        tune(postgres_store(dimension=16), queries, recall_min=0.9, latency_budget_ms=50.0)
    with pytest.raises(InvalidInput, match="too few"):
        tune(store, queries[:19], recall_min=0.9, latency_budget_ms=50.0)


def test_a_proposal_is_written_into_the_file_and_nothing_else_changes(tmp_path: Path) -> None:
    """Keys that are there are replaced, commented ones come to life, comments and sections stay."""
    path = tmp_path / "shadow.toml"
    path.write_text(
        '# mine\nlog_level = "info"\n\n[postgresql]\n# ef_search = 100\nhnsw_m = 16 # old\ntable = "t"\n\n'
        "[gate]\nrecall_min = 0.9\n"
    )
    values = settings_of(Candidate(ef_search=80, hnsw_m=32, index_type="halfvec"), rows=10)
    write_settings(path, values)
    text = path.read_text()
    assert text.startswith("# mine\n")
    assert tomllib.loads(text)["gate"] == {"recall_min": 0.9}
    found = load_settings(path, {}).postgresql
    assert (found.ef_search, found.hnsw_m, found.index_type, found.table) == (
        80,
        32,
        "halfvec",
        "t",
    )
    assert text.count("ef_search") == 1
    bare = tmp_path / "new.toml"
    write_settings(bare, settings_of(Candidate(exact=True), rows=30_000))
    assert load_settings(bare, {}).postgresql.exact_rows_max == 60_000
    path.write_text("[postgresql\n")
    with pytest.raises(ConfigurationError, match="left as it is"):
        write_settings(path, values)
    assert path.read_text() == "[postgresql\n"


def test_what_cannot_be_written_is_said_before_anything_is_measured(
    tmp_path: Path, small_migration: SmallMigration
) -> None:
    """The chart, and the file that settings come from, which is the one that is written."""
    queries = tmp_path / "queries.npy"
    np.save(queries, np.ones((40, 8), dtype=np.float32))
    nowhere = tmp_path / "nowhere" / "frontier.svg"
    asked = small_migration.command("tune", str(queries), "--svg", str(nowhere))
    _, said = asked.communicate(timeout=60)
    assert (asked.returncode, f"cannot write {nowhere}" in said) == (2, True), said
    given, named = tmp_path / "given.toml", {"SHADOW_CONFIG": str(tmp_path / "named.toml")}
    assert config_file(given, named) == given
    assert config_file(None, named) == tmp_path / "named.toml"


def test_a_disk_that_takes_no_more_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """The operator's settings are not cut off half way."""
    path = tmp_path / "shadow.toml"
    path.write_text("# mine\n" * 1_000)
    before = path.read_text()
    with file_limit(path.stat().st_size + 10), pytest.raises(ConfigurationError, match="by hand"):
        write_settings(path, settings_of(Candidate(ef_search=80), rows=10))
    assert path.read_text() == before


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_what_was_measured_is_told_although_it_cannot_be_written(
    tmp_path: Path, small_migration: SmallMigration, options: list[str]
) -> None:
    """The table and the proposal, or the JSON, come before the refusal of the file."""
    small_migration.filled(40)
    queries, given = tmp_path / "queries.npy", tmp_path / "given.toml"
    np.save(queries, np.random.default_rng(3).normal(size=(40, 8)).astype(np.float32))
    # Such a section cannot be added to.
    given.write_text('postgresql = { index_type = "auto" }\n')
    asked = small_migration.command("tune", str(queries), "-c", str(given), "--write", *options)
    told, said = asked.communicate(timeout=120)
    assert (asked.returncode, "was left as it is" in said) == (2, True), said
    if options:
        assert "exact_rows_max" in json.loads(told)["proposed"]
    else:
        assert "way to search" in told
        assert "postgresql.exact_rows_max = " in told


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_tune_finds_a_setting_that_beats_exact_search_on_fifty_thousand_vectors(
    postgres_store: Opened,
) -> None:
    """Clustered, 384 dimensions: recall@10 of at least .99, faster than exact, and the frontier holds
    on queries that chose nothing."""
    vectors, asked = _clustered(50_000, 384, 200)
    store = _filled(postgres_store(dimension=384, maintenance_work_mem="512MB"), vectors)
    grid = Grid(builds=((16, 64), (32, 128)), ef_search=(40, 100, 250, 600), rerank_factors=(1, 2))
    queries = [Query(vector) for vector in asked]
    tuned = tune(store, queries, recall_min=0.99, latency_budget_ms=200.0, grid=grid, on_step=print)
    exact = tuned.measured[0]
    print(*rows(tuned), sep="\n")
    assert tuned.proposed is not None
    assert tuned.proposed.recall >= 0.99
    assert tuned.proposed.p50_ms < exact.p50_ms / 2
    for one, again in zip(tuned.frontier, tuned.confirmed, strict=True):
        assert again.recall == pytest.approx(one.recall, abs=0.03)
        assert again.p50_ms == pytest.approx(one.p50_ms, rel=0.5)
