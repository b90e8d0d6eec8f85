"""Each of the fifteen traps planted, and found; and a sound pair, of which nothing is said."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import conninfo, sql
from typer.testing import CliRunner

from shadow.cli import app
from shadow.core.phases import Phase
from shadow.doctor import examine
from shadow.doctor.files import damaged_snapshots, pickles_of
from shadow.doctor.finding import Finding, Severity
from shadow.doctor.subject import Running, Subject, subject_of
from shadow.intake import changed_sources
from tests.foreign.layouts import flat_chunk, write_bot_layout
from tests.plugins.migrations import SmallMigration
from vectorstore import Metric
from vectorstore.faiss.snapshot import write_snapshot
from vectorstore.faiss.store import FaissStore
from vectorstore.postgres.index import ensure_index
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Record

DIMENSION = 16
ROWS = 600

Opened = Callable[..., PostgresStore]

SOUND = Running(
    phase=Phase.SHADOW,
    primary="faiss",
    rehearsed=False,
    standing_state="following",
    standing_trouble=None,
    lag_entries=0,
    lag_oldest_ms=None,
    staleness_ms_max=1_000.0,
    sampled=100,
    dropped=0,
    drops_share_max=0.05,
    cpu_share_max=0.25,
    source_changed=(),
    source_elsewhere=None,
    source_pickles=(),
    snapshots_damaged=(),
)


def _records(rows: int = ROWS, *, dimension: int = DIMENSION) -> list[Record]:
    draw = np.random.default_rng(2)
    return [
        Record(
            f"r{row:04d}",
            draw.normal(size=dimension).astype(np.float32),
            "",
            {"kind": "rare" if row % 60 == 0 else "common"},
        )
        for row in range(rows)
    ]


def _faiss(records: list[Record], **options: Any) -> FaissStore:
    store = FaissStore.empty(
        **{"dimension": DIMENSION, "metric": Metric.COSINE, "kind": "flat", **options}
    )
    store.upsert(records)
    return store


def _found(
    store: PostgresStore | None, faiss: FaissStore | None = None, **running: Any
) -> list[Finding]:
    subject = Subject(
        faiss=faiss or _faiss(_records()),
        postgresql=store,
        recall_min=0.95,
        running=replace(SOUND, **running),
        why="connection refused",
    )
    return examine(subject)


def _trap(findings: list[Finding], trap: int) -> Finding:
    chosen = [one for one in findings if one.trap == trap]
    assert len(chosen) == 1, [(one.trap, one.what) for one in findings]
    assert chosen[0].evidence
    assert chosen[0].fix
    return chosen[0]


def _execute(store: PostgresStore, text: str, *values: Any) -> None:
    statement = sql.SQL(text).format(table=store.names.table)
    store.read(lambda connection: connection.execute(statement, values))


def _indexed(postgres_store: Opened, **options: Any) -> PostgresStore:
    store = postgres_store(**{"dimension": DIMENSION, "exact_rows_max": 0, **options})
    store.upsert(_records())
    ensure_index(store, concurrently=False)
    return store


def test_of_a_sound_pair_nothing_is_said(postgres_store: Opened) -> None:
    """Exact search on one side and a sound index on the other."""
    assert _found(_indexed(postgres_store)) == []


def test_trap_1_filters_that_run_out_of_candidates(postgres_store: Opened) -> None:
    """Without iterative scan the index alone gives too few rows for a rare value."""
    records = [replace(one, metadata={"half": one.id[-1] in "02468"}) for one in _records(4_000)]
    store = postgres_store(
        dimension=DIMENSION, exact_rows_max=0, iterative_scan="off", ef_search=12, hnsw_m=32
    )
    store.upsert(records)
    ensure_index(store, concurrently=False)
    _execute(store, "VACUUM ANALYZE {table}")
    finding = _trap(_found(store, _faiss(records)), 1)
    assert finding.severity is Severity.WARNING
    assert "the index alone gave" in finding.evidence[0]


def test_trap_2_an_approximate_shadow(postgres_store: Opened) -> None:
    """A thin graph searched with few candidates misses true neighbours."""
    store = _indexed(postgres_store, hnsw_m=2, hnsw_ef_construction=4, ef_search=10)
    finding = _trap(_found(store), 2)
    assert finding.severity is Severity.FAULT
    assert finding.what.startswith("postgresql finds 0.")


def test_trap_2_an_approximate_old_store(postgres_store: Opened) -> None:
    """It can be FAISS that misses, and then its answers are no measure."""
    faiss = _faiss(_records(), kind="hnsw")
    faiss.set_breadth(1)
    finding = _trap(_found(_indexed(postgres_store), faiss), 2)
    assert finding.severity is Severity.WARNING
    assert "primary_miss" in finding.fix


def test_trap_3_score_conventions(postgres_store: Opened) -> None:
    """FAISS ranks by inner product what PostgreSQL ranks by cosine."""
    faiss = _faiss(_records(), metric=Metric.INNER_PRODUCT)
    finding = _trap(_found(_indexed(postgres_store), faiss), 3)
    assert "FAISS ranks by inner_product, PostgreSQL by cosine" in finding.evidence
    assert any("in FAISS" in line for line in finding.evidence)


def test_trap_4_duplicates(postgres_store: Opened) -> None:
    """Equal vectors are named, and nothing is held against anybody."""
    records = _records()
    records.append(replace(records[0], id="again"))
    finding = _trap(_found(_indexed(postgres_store), _faiss(records)), 4)
    assert finding.severity is Severity.NOTE
    assert finding.evidence == ("r0000 and again",)


def test_trap_5_no_index(postgres_store: Opened) -> None:
    """More rows than are searched exactly, and no index."""
    store = postgres_store(dimension=DIMENSION, exact_rows_max=0)
    store.upsert(_records())
    assert "no vector index" in _trap(_found(store), 5).evidence[0]


def test_trap_5_an_index_that_queries_cannot_use(postgres_store: Opened) -> None:
    """An index with the operator class of another metric: EXPLAIN shows that it is left alone."""
    store = postgres_store(dimension=DIMENSION, exact_rows_max=0)
    store.upsert(_records())
    _execute(store, "CREATE INDEX ON {table} USING hnsw (embedding vector_l2_ops)")
    evidence = _trap(_found(store), 5).evidence
    assert "vector_l2_ops; queries need vector_cosine_ops" in evidence[0]
    assert evidence[1].startswith("EXPLAIN shows no index scan")


def test_trap_5_ivfflat_built_on_an_empty_table(postgres_store: Opened) -> None:
    """Its lists were drawn from nothing."""
    store = postgres_store(dimension=DIMENSION, exact_rows_max=0)
    _execute(
        store,
        "CREATE INDEX ON {table} USING ivfflat (embedding vector_cosine_ops) WITH (lists = 10)",
    )
    store.upsert(_records())
    assert "ivfflat" in _trap(_found(store), 5).evidence[0]


@pytest.mark.parametrize(("dimension", "severity"), [(4_100, "fault"), (2_100, "note")])
def test_trap_6_dimensions(postgres_store: Opened, dimension: int, severity: str) -> None:
    """Above 4,000 nothing can be indexed; above 2,000 only halfvec."""
    records = _records(4, dimension=dimension)
    store = postgres_store(dimension=dimension, exact_rows_max=0)
    store.upsert(records)
    ensure_index(store, concurrently=False)
    found = _found(store, _faiss(records, dimension=dimension))
    assert _trap(found, 6).severity == severity


def test_trap_7_a_build_that_spills(postgres_store: Opened) -> None:
    """The index is larger than the memory that a build may use."""
    store = _indexed(postgres_store, maintenance_work_mem="64kB")
    assert "spills to disk" in _trap(_found(store), 7).evidence[0]


def test_trap_8_dead_rows(postgres_store: Opened) -> None:
    """Many updates, and a table that nobody vacuums."""
    store = _indexed(postgres_store)
    _execute(store, "ALTER TABLE {table} SET (autovacuum_enabled = false)")
    for _ in range(2):
        _execute(store, "UPDATE {table} SET seq = seq")
    _execute(store, "SELECT pg_stat_force_next_flush()")
    _execute(store, "SELECT 1")
    evidence = _trap(_found(store), 8).evidence
    assert "autovacuum is switched off for the table" in evidence
    assert any("dead beside" in line for line in evidence)


def test_trap_8_a_transaction_that_holds_vacuum_back(
    postgres_store: Opened, postgresql_dsn: str
) -> None:
    """Named by its process and age, and not by what it asked; nothing is said when it has ended, or of
    one in another database."""
    store = _indexed(postgres_store)
    database = "doctor_elsewhere"
    with psycopg.connect(postgresql_dsn, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {database}")
        admin.execute(f"CREATE DATABASE {database}")
        held = "SELECT 'a question', pg_backend_pid()"
        level = "ISOLATION LEVEL REPEATABLE READ"
        with (
            psycopg.connect(conninfo.make_conninfo(postgresql_dsn, dbname=database)) as elsewhere,
            psycopg.connect(postgresql_dsn) as open_one,
        ):
            for connection in (elsewhere, open_one):
                connection.execute(f"SET TRANSACTION {level}")
                row = connection.execute(held).fetchone()
            assert row is not None
            admin.execute("CREATE TEMP TABLE spent (n integer)")
            admin.execute(
                "DO $$ BEGIN FOR n IN 1..10100 LOOP BEGIN INSERT INTO spent VALUES (n); "
                "EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$"
            )
            finding = _trap(_found(store), 8)
            assert finding.severity is Severity.WARNING
            (line,) = finding.evidence
            assert line.startswith(f"process {row[1]} of the server: 10,1")
            assert "idle in transaction, its transaction began" in line
            assert "question" not in f"{finding}"
        assert _found(store) == []
        admin.execute(f"DROP DATABASE {database}")


def test_trap_9_deleted_rows_of_an_hnsw_index(postgres_store: Opened) -> None:
    """FAISS's HNSW cannot delete: what is gone is searched through all the same."""
    faiss = _faiss(_records(), kind="hnsw")
    faiss.delete([f"r{row:04d}" for row in range(0, ROWS, 3)])
    finding = _trap(_found(_indexed(postgres_store), faiss), 9)
    assert "200 of 600" in finding.what


def test_trap_10_somebody_still_saves_to_the_old_files(tmp_path: Path) -> None:
    """The files that were taken in are not what they were: writes go past the router."""
    source, origin = tmp_path / "kb", tmp_path / "origin"
    for folder in (source, origin):
        folder.mkdir()
        (folder / "index.faiss").write_bytes(b"as it was")
    assert changed_sources(source, origin) == ()
    (source / "index.faiss").write_bytes(b"as it is now")
    changed = changed_sources(source, origin)
    assert _trap(_found(None, source_changed=changed), 10).severity is Severity.FAULT


def test_trap_10_an_index_elsewhere(tmp_path: Path) -> None:
    """faiss.path was changed: nobody saves to the old files, so that is not said of the new ones."""
    paths = [tmp_path / "one", tmp_path / "two"]
    for seed, path in enumerate(paths):
        vectors = np.random.default_rng(seed).normal(size=(20, 4)).astype(np.float32)
        write_bot_layout(path, "flat", vectors, [flat_chunk(at) for at in range(20)])
    config = tmp_path / "shadow.toml"
    told: list[dict[str, Any]] = []
    for path in paths:
        config.write_text(
            f'state_directory = "{tmp_path / "state"}"\n[faiss]\npath = "{path}"\n[postgresql]\n'
            'dsn = "postgresql://nobody@127.0.0.1:1/none"\nconnect_timeout_ms = 500\n'
        )
        result = CliRunner().invoke(app, ["doctor", "-c", str(config), "--json"])
        told = [one for one in json.loads(result.stdout)["findings"] if one["trap"] == 10]
        if path == paths[0]:
            assert told == []
    assert [one["severity"] for one in told] == ["warning"]
    assert f"took its index in from {paths[0]}" in told[0]["evidence"][0]


def test_trap_10_a_torn_snapshot(tmp_path: Path) -> None:
    """A snapshot that lost bytes is named, with what is wrong with it."""
    folder = tmp_path / "snapshots"
    path = write_snapshot(_faiss(_records(20)), folder, incarnation="x" * 32)
    assert damaged_snapshots(folder) == ()
    victim = max(path.iterdir(), key=lambda one: one.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-7])
    damaged = damaged_snapshots(folder)
    assert _trap(_found(None, snapshots_damaged=damaged), 10).evidence[0].startswith("snapshot ")


def test_trap_11_pickles_are_named_with_what_they_would_import(tmp_path: Path) -> None:
    """Read from the opcodes: what the pickle would run is never run."""

    class Attack:
        def __reduce__(self) -> Any:
            return shutil.rmtree, (str(tmp_path),)

    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"0": "a"}))
    assert _trap(_found(None, source_pickles=pickles_of(tmp_path)), 11).severity == "warning"
    (tmp_path / "index.pkl").write_bytes(pickle.dumps(Attack()))
    found = pickles_of(tmp_path)
    assert tmp_path.exists()
    finding = _trap(_found(None, source_pickles=found), 11)
    assert finding.severity is Severity.FAULT
    assert "shutil.rmtree" in finding.evidence[0]


def test_trap_12_settings_lost_in_a_pool(postgres_store: Opened) -> None:
    """Between two transactions somebody reset the session, as a pooler does."""
    store = _indexed(postgres_store, pool_size_max=1, ef_search=77)
    _execute(store, "RESET hnsw.ef_search")
    finding = _trap(_found(store), 12)
    assert finding.severity is Severity.FAULT
    assert "was set to 77" in finding.evidence[0]


@pytest.mark.parametrize("sickness", ["away", "detached", "behind"])
def test_trap_13_a_sick_secondary(postgres_store: Opened, sickness: str) -> None:
    """Away, let go of, or too far behind: no write fails by it, and the doctor says so."""
    store = None if sickness == "away" else _indexed(postgres_store)
    running: dict[str, Any] = {
        "away": {"standing_state": "unavailable"},
        "detached": {"standing_state": "detached"},
        "behind": {"lag_entries": 40, "lag_oldest_ms": 90_000.0},
    }[sickness]
    assert _trap(_found(store, **running), 13).severity is Severity.FAULT


def test_trap_13_a_copy_that_is_yet_to_be_made(postgres_store: Opened) -> None:
    """Before the first copy nothing is wrong; a table that is empty later on has lost its rows."""
    store = _indexed(postgres_store)
    finding = _trap(_found(store, phase=Phase.FAISS, standing_state="empty"), 13)
    assert finding.severity is Severity.NOTE
    assert _trap(_found(store, standing_state="empty"), 13).severity is Severity.FAULT


def test_the_command_finds_nothing_wrong_with_a_migration_that_begins(
    small_migration: SmallMigration,
) -> None:
    """As the page of the cut-over has it run: before anything was copied, and exit code 0."""
    with small_migration.command("doctor") as command:
        told, complaints = command.communicate(timeout=60.0)
    assert command.returncode == 0, told + complaints
    assert "PostgreSQL holds no copy yet" in told
    assert "findings: 1, serious: 0" in told


def test_trap_13_a_state_directory_that_was_changed(
    small_migration: SmallMigration, tmp_path: Path
) -> None:
    """The table is another migration's: it is not used, its rows stay, and the doctor says where to look."""
    small_migration.filled(5)
    changed = {"state_directory": tmp_path / "elsewhere"}
    other = SmallMigration(small_migration.settings.model_copy(update=changed))
    with other.opened() as migration:
        finding = _trap(examine(subject_of(migration)), 13)
        assert finding.evidence[0] == "PostgreSQL's table is foreign and follows no writes"
        assert finding.fix.startswith("if state_directory was changed")
        assert migration.link.open().count() == 5


def test_trap_14_mirroring_that_cannot_keep_up() -> None:
    """Drops above the share that the gate allows."""
    finding = _trap(_found(None, dropped=10), 14)
    assert "10 of 100 sampled queries were dropped" in finding.evidence[0]


def test_trap_15_a_way_back_that_was_not_tried() -> None:
    """PostgreSQL answers, and no rehearsal succeeded in this era."""
    assert _trap(_found(None, primary="postgresql"), 15).severity is Severity.WARNING
    assert not [one for one in _found(None, primary="postgresql", rehearsed=True) if one.trap == 15]


def test_the_command_examines_a_migration_whose_postgresql_is_away(tmp_path: Path) -> None:
    """Exit code 3 and JSON for a script; nothing hangs and nothing is raised."""
    config = tmp_path / "shadow.toml"
    config.write_text(
        f'state_directory = "{tmp_path / "state"}"\n[faiss]\ndimension = 4\n'
        '[postgresql]\ndsn = "postgresql://nobody@127.0.0.1:1/none"\nconnect_timeout_ms = 500\n'
    )
    result = CliRunner().invoke(app, ["doctor", "-c", str(config), "--json"])
    assert result.exit_code == 3, result.output
    report = json.loads(result.stdout)
    assert [one["trap"] for one in report["findings"]] == [13]
    assert report["serious"] == 1
