"""What PostgreSQL adds to the contract: schema, following a journal, indexes."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import psycopg
import pytest

from tests.conformance.suite import DIMENSION, changes, query, record
from vectorstore.errors import (
    ConfigurationError,
    InvalidInput,
    StoreCorrupt,
    StoreUnavailable,
    Unsupported,
)
from vectorstore.filters import Filter
from vectorstore.postgres.building import BuildProgress, build_watched
from vectorstore.postgres.index import drop_index, ensure_index
from vectorstore.postgres.loading import begin_load, finish_load, load_block
from vectorstore.postgres.pool import connect
from vectorstore.postgres.schema import LOCK_MS_MAX
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Change, Metric, Query, Record

OpenStore = Callable[..., PostgresStore]


def following(postgres_store: OpenStore, **options: object) -> PostgresStore:
    store = postgres_store(**options)
    begin_load(store, incarnation="j", snapshot_id="empty", seq=0)
    finish_load(store)
    return store


def test_processes_may_open_a_fresh_table_at_once(
    postgres_store: OpenStore, fresh_table: str
) -> None:
    """Migrations run once, whoever comes first."""
    with ThreadPoolExecutor(6) as threads:
        stores = list(threads.map(lambda _: postgres_store(table=fresh_table), range(6)))
    stores[0].upsert([record("one")])
    assert [store.count() for store in stores] == [1] * 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dimension": 9}, "8 dimensions.*9"),
        ({"metric": Metric.L2}, "metric cosine.*l2"),
    ],
)
def test_a_table_made_otherwise_is_refused(
    postgres_store: OpenStore, fresh_table: str, options: dict[str, object], words: str
) -> None:
    """Dimension and metric belong to the table; the error names both sides."""
    postgres_store(table=fresh_table)
    with pytest.raises(ConfigurationError, match=words):
        postgres_store(table=fresh_table, **options)


def test_a_foreign_table_is_left_alone(
    postgres_store: OpenStore, fresh_table: str, postgresql_dsn: str
) -> None:
    """A table of that name that somebody else made is neither used nor changed."""
    with psycopg.connect(postgresql_dsn) as connection:
        connection.execute(f"CREATE TABLE {fresh_table} (mine int)")
    with pytest.raises(ConfigurationError, match="did not make"):
        postgres_store(table=fresh_table)
    with psycopg.connect(postgresql_dsn) as connection:
        assert connection.execute(f"SELECT count(*) FROM {fresh_table}").fetchone() == (0,)
        left = connection.execute("SELECT to_regclass(%s)", (f"{fresh_table}_schema",)).fetchone()
        assert left == (None,)


def behind_by_a_migration(connection: psycopg.Connection, table: str) -> None:
    """As the release before the last migration left it."""
    connection.execute(
        f"CREATE INDEX {table}_source_document ON {table} USING hash (source_document)"
    )
    connection.execute(f"DELETE FROM {table}_schema WHERE version = 4")
    connection.commit()


def test_an_upgrade_does_not_queue_reads_behind_a_long_statement(
    postgres_store: OpenStore, fresh_table: str, postgresql_dsn: str
) -> None:
    """Whoever waits for a table's lock holds off all readers that come later: it gives up instead."""
    store = postgres_store(table=fresh_table)
    with psycopg.connect(postgresql_dsn) as other:
        behind_by_a_migration(other, fresh_table)
        other.execute(f"LOCK TABLE {fresh_table} IN ACCESS SHARE MODE")
        with pytest.raises(StoreUnavailable, match="long statement holds the table"):
            postgres_store(table=fresh_table)
        assert store.count() == 0
    postgres_store(table=fresh_table)
    with psycopg.connect(postgresql_dsn) as connection:
        row = connection.execute(
            "SELECT to_regclass(%s), (SELECT max(version) FROM " + fresh_table + "_schema)",
            (f"{fresh_table}_source_document",),
        ).fetchone()
        assert row == (None, 4)


def test_two_that_open_a_table_at_once_wait_for_each_other(
    postgres_store: OpenStore, fresh_table: str, postgresql_dsn: str
) -> None:
    """However long the other one takes to make the tables."""
    with psycopg.connect(postgresql_dsn) as other, ThreadPoolExecutor(1) as threads:
        other.execute(
            "SELECT pg_advisory_lock(hashtextextended(%s, 0))",
            (f"shadow-cutover schema {fresh_table}",),
        )
        opening = threads.submit(postgres_store, table=fresh_table)
        with pytest.raises(TimeoutError):
            opening.result(timeout=3 * LOCK_MS_MAX / 1e3)
        other.close()
        assert opening.result(timeout=30).count() == 0


def test_a_database_without_the_extension_is_explained(postgresql_dsn: str) -> None:
    """A role that may not enable pgvector is told who can."""
    with psycopg.connect(postgresql_dsn, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS bare")
        connection.execute("DROP ROLE IF EXISTS guest")
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
        connection.execute("CREATE DATABASE bare")
    place = postgresql_dsn.split("@")[1].split("/")[0]
    settings = PostgresSettings(dsn=f"postgresql://guest:guest@{place}/bare", dimension=8)
    with pytest.raises(ConfigurationError, match="CREATE EXTENSION vector"):
        PostgresStore.open(settings)
    with psycopg.connect(
        postgresql_dsn.replace("/postgres", "/bare").replace("//bare", "//postgres")
    ) as connection:
        connection.execute("CREATE EXTENSION vector")
    with pytest.raises(ConfigurationError, match=r"CREATE on the schema|may not"):
        PostgresStore.open(settings)
    with psycopg.connect(postgresql_dsn, autocommit=True) as connection:
        connection.execute("DROP DATABASE bare WITH (FORCE)")
        connection.execute("DROP ROLE guest")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("table", 'x"; DROP TABLE y'),
        ("table", "a" * 41),
        ("dimension", 0),
        ("ef_search", 1001),
        ("pool_size_min", 9),
        ("maintenance_work_mem", "lots"),
        ("iterative_scan", "sometimes"),
        ("hnsw_ef_construction", 31),
        ("dsn", "postgresql://u:p@h:notaport/x?what=1"),
    ],
)
def test_settings_are_checked(postgresql_dsn: str, name: str, value: object) -> None:
    """A bad value is refused before anything connects."""
    options: dict[str, object] = {"dsn": postgresql_dsn, "dimension": 8, name: value}
    with pytest.raises(ConfigurationError):
        PostgresSettings(**options)  # type: ignore[arg-type]


def test_vectors_stay_in_the_row(postgres_store: OpenStore, postgresql_dsn: str) -> None:
    """At 1,536 dimensions the TOAST table holds texts at most, even when the text is long."""
    store = postgres_store(dimension=1536)
    # Neither text compresses: one leaves the row short enough for its page, one does not.
    short, long = (
        base64.b64encode(np.random.default_rng(0).bytes(n)).decode() for n in (900, 3000)
    )
    store.upsert(
        [
            record("short", dimension=1536, text=short),
            record("long", dimension=1536, text=long),
        ]
    )
    with psycopg.connect(postgresql_dsn) as connection:
        found = connection.execute(
            "SELECT id, pg_column_toast_chunk_id(embedding) IS NULL, "
            f"pg_column_toast_chunk_id(text) IS NULL FROM {store.settings.table} ORDER BY id"
        ).fetchall()
    assert found == [("long", True, False), ("short", True, True)]


def test_plain_writes_are_refused_while_following(postgres_store: OpenStore) -> None:
    """There is one write path at a time; after finalize it is this one, and seqs go on."""
    store = following(postgres_store)
    store.apply(changes("a", "b"))
    for write in (lambda: store.upsert([record("x")]), lambda: store.delete(["a"])):
        with pytest.raises(Unsupported, match="router"):
            write()
    assert store.finalize().state == "final"
    assert store.upsert([record("c")]) == 3
    assert store.delete(["a"]) == 4
    with pytest.raises(Unsupported):
        store.apply(changes("z", start=5))


def test_entries_of_another_journal_are_refused(
    postgres_store: OpenStore, fresh_table: str
) -> None:
    """The incarnation is compared when binding and again under the lock of every apply."""
    store = following(postgres_store, table=fresh_table)
    other = postgres_store(table=fresh_table)
    with pytest.raises(StoreCorrupt, match="backfill"):
        other.bind("k")
    with pytest.raises(Unsupported, match="bind"):
        other.apply(changes("a"))
    begin_load(other, incarnation="k", snapshot_id="s", seq=0)
    finish_load(other)
    with pytest.raises(StoreCorrupt, match="nothing was applied"):
        store.apply(changes("a"))
    assert store.count() == 0


def test_a_table_never_loaded_takes_no_entries(postgres_store: OpenStore) -> None:
    """Rows from before the journal would be missing, so the first step is a load."""
    store = postgres_store()
    assert store.bind("j").state == "empty"
    with pytest.raises(StoreUnavailable, match="backfill"):
        store.apply(changes("a"))
    with pytest.raises(Unsupported, match="router"):
        store.upsert([record("x")])


def test_a_detached_table_needs_a_load(postgres_store: OpenStore) -> None:
    """Entries may be gone from the journal; applying later ones would leave a hole."""
    store = following(postgres_store)
    store.apply(changes("a"))
    assert store.detach().state == "detached"
    with pytest.raises(Unsupported, match="backfill"):
        store.apply(changes("a", "b"))
    begin_load(store, incarnation="j", snapshot_id="s2", seq=1)
    finish_load(store)
    assert store.apply(changes("a", "b")) == 2


@pytest.mark.parametrize(
    "isolation", ["read%5C%20committed", "repeatable%5C%20read", "serializable"]
)
def test_appliers_at_once_apply_each_entry_once(
    postgres_store: OpenStore, fresh_table: str, postgresql_dsn: str, isolation: str
) -> None:
    """Several processes offer stretches that overlap or begin right where the table stands, with
    deletes and without; each entry takes effect once, and whatever isolation role or database have by
    default, none of them fails."""
    dsn = f"{postgresql_dsn}?options=-c%20default_transaction_isolation%3D{isolation}"
    stores = [following(postgres_store, table=fresh_table, dsn=dsn)]
    for _ in range(3):
        stores.append(postgres_store(table=fresh_table, dsn=dsn))
        stores[-1].bind("j")
    marks = [f"{'-' if n % 3 == 2 else ''}id{n % 7}" for n in range(120)]
    journal = changes(*marks)

    def follow(store: PostgresStore) -> None:
        for back in itertools.cycle((0, 0, 3)):
            reached = store.applied_seq()
            if reached == len(journal):
                return
            store.apply(journal[max(0, reached - back) : reached + 2 + back])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(follow, stores))
    last = {entry.id: entry for entry in journal}
    expected = sorted((e.id, e.seq) for e in last.values() if e.record is not None)
    assert [(row.id, row.seq) for row in stores[0].scan()] == expected


def test_one_entry_and_many_leave_the_same_rows(postgres_store: OpenStore) -> None:
    """One entry goes by another statement than several; what it writes is the same to the last byte."""
    random = np.random.default_rng(3)
    entries = [
        Change(
            seq,
            f"id {seq % 3} é",
            Record(
                f"id {seq % 3} é",
                random.standard_normal(DIMENSION).astype(np.float32),
                f"text {seq} mpunga \U0001f33d",
                {"page": seq, "é": [1.5, None, {"deep": "ŵ"}], "big": 2**70, "no": False},
                seq,
            ),
            seq * 11,
        )
        for seq in range(1, 8)
    ]
    singly, together = following(postgres_store), following(postgres_store)
    for entry in entries:
        assert singly.apply([entry], after_mark=(entry.seq - 1) * 11 or None) == entry.seq
    assert together.apply(entries) == 7
    assert singly.cursor() == together.cursor()
    for one, other in zip(singly.scan(), together.scan(), strict=True):
        assert (one.id, one.seq, one.text, one.metadata) == (
            other.id, other.seq, other.text, other.metadata,
        )  # fmt: skip
        assert one.embedding.tobytes() == other.embedding.tobytes()
        written = entries[one.seq - 1].record
        assert written is not None
        assert one.embedding.tobytes() == written.embedding.tobytes()


def test_one_entry_that_comes_too_late_changes_nothing(postgres_store: OpenStore) -> None:
    """Another process had it: neither the row nor the cursor goes back."""
    store = following(postgres_store)
    entries = changes("a", "a", "b")
    assert store.apply(entries) == 3
    assert store.apply(entries[:1]) == 3
    assert [(row.id, row.seq) for row in store.scan()] == [("a", 2), ("b", 3)]


def test_a_table_on_another_entry_of_the_same_number_is_left_alone(
    postgres_store: OpenStore,
) -> None:
    """The entry before the first one must be the journal's own, told by its mark."""
    store = following(postgres_store)
    first, second = (replace(change, mark=7) for change in changes("a", "b"))
    store.apply([first])
    with pytest.raises(StoreCorrupt, match="another write 1"):
        store.apply([second], after_mark=8)
    assert store.count() == 1
    assert store.apply([second], after_mark=7) == 2
    assert store.cursor().mark == 7


def test_statements_do_not_pile_up_on_the_server(postgres_store: OpenStore) -> None:
    """Each k is a statement of its own; a connection keeps a bounded number of them."""
    store = postgres_store(pool_size_max=1)
    store.upsert([record("a")])
    for k in range(1, 200):
        assert [hit.id for hit in store.search(replace(query(), k=k)).hits] == ["a"]
    held = store.read(lambda c: c.execute("SELECT count(*) FROM pg_prepared_statements").fetchone())
    assert held is not None
    assert held[0] < 150


def test_a_search_after_a_rollback_is_prepared_anew(postgres_store: OpenStore) -> None:
    """The driver deallocates every statement of a connection after a rollback."""
    store = postgres_store(pool_size_max=1)
    store.upsert([record("a")])
    assert store.search(query()).hits

    def fail(connection: object) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        store.transact(fail)
    assert [hit.id for hit in store.search(query()).hits] == ["a"]


def test_a_newer_row_is_not_taken_back(postgres_store: OpenStore) -> None:
    """A row may be ahead of the cursor (a repair, a fuzzy snapshot); older entries pass it by."""
    store = postgres_store()
    begin_load(store, incarnation="j", snapshot_id="s", seq=2)
    ahead = [replace(record(record_id, text="newer"), seq=9) for record_id in ("a", "b")]
    load_block(store, ahead, position_start=0, position_end=2)
    finish_load(store)
    assert store.apply(changes("a", "-b", start=3)) == 4
    assert [(row.id, row.seq, row.text) for row in store.scan()] == [
        ("a", 9, "newer"),
        ("b", 9, "newer"),
    ]


def test_repair_puts_a_row_back_at_its_own_seq(postgres_store: OpenStore) -> None:
    """A damaged row is replaced though its seq does not rise; a row that moved on is left alone."""
    store = following(postgres_store)
    store.apply(changes("a", "b", "c"))
    (whole,) = store.get(["a"])
    store.transact(
        lambda c: c.execute(f"UPDATE {store.settings.table} SET text = 'rot' WHERE id = 'a'")
    )
    assert store.repair("a", whole, expected_seq=1)
    assert store.get(["a"])[0].text == whole.text
    assert store.repair("c", None, expected_seq=3)
    assert store.repair("c", changes("x", "x", "c")[2].record, expected_seq=None)
    assert [(row.id, row.seq) for row in store.scan()] == [("a", 1), ("b", 2), ("c", 3)]
    store.apply(changes("a", start=4))
    assert not store.repair("a", whole, expected_seq=1)
    assert (store.get(["a"])[0].seq, store.applied_seq()) == (4, 4)


def test_a_failed_batch_leaves_rows_and_cursor_together(postgres_store: OpenStore) -> None:
    """Rows and cursor move in one transaction: an entry that fails takes its batch back."""
    store = following(postgres_store)
    good = changes("a", "b")
    bad = changes("c", start=3)[0]
    assert bad.record
    poison = type(bad)(3, "c", Record("c", np.ones(5, np.float32), "wrong dimension", {}, 3))
    with pytest.raises(Exception, match="dimension"):
        store.apply([*good, poison])
    assert (store.applied_seq(), store.count()) == (0, 0)
    assert store.apply([*good, bad]) == 3


def test_what_an_altered_table_holds_is_not_the_callers_mistake(
    postgres_store: OpenStore, postgresql_dsn: str
) -> None:
    """A row that cannot be compared fails the store, for every caller; what cannot be written is told
    to the one who writes it."""
    store = postgres_store()
    store.upsert([record("one")])
    table = store.settings.table
    with psycopg.connect(postgresql_dsn, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE {table} ALTER COLUMN embedding TYPE vector")
        connection.execute(
            f"INSERT INTO {table} (id, seq, embedding, text, metadata) "
            "VALUES ('odd', 0, '[1,2,3]', '', '{}')"
        )
        connection.execute(f"ALTER TABLE {table} ALTER COLUMN text TYPE varchar(20)")
    for ask in (
        lambda: store.search(query()),
        lambda: store.search(query(filter=Filter.of({}))),
        lambda: store.search_exact(query()),
        lambda: store.search_many([query()]),
    ):
        with pytest.raises(StoreCorrupt, match=r"different vector dimensions.*backfill"):
            ask()
    with pytest.raises(InvalidInput, match="too long"):
        store.upsert([record("long", text="longer than the column allows")])


def test_a_server_that_takes_no_writes_says_so(
    postgres_store: OpenStore, fresh_table: str, postgresql_dsn: str
) -> None:
    """A standby, or one that was set so: it may pass, so it is no mistake in the settings, and nothing
    here overrides it."""
    postgres_store(table=fresh_table).upsert([record("one")])
    read_only = f"{postgresql_dsn}?options=-c%20default_transaction_read_only%3Don"
    store = postgres_store(table=fresh_table, dsn=read_only)
    assert store.search(query()).hits
    for write in (lambda: store.upsert([record("two")]), lambda: postgres_store(dsn=read_only)):
        with pytest.raises(StoreUnavailable, match=r"takes no writes.*standby"):
            write()


def test_the_index_is_built_above_the_row_count_only(postgres_store: OpenStore) -> None:
    """Up to exact_rows_max there is none; above, one that fits the metric, reported while it grows."""
    small = postgres_store(exact_rows_max=200)
    small.upsert([record(f"r{n}", seed=n) for n in range(200)])
    assert not ensure_index(small)
    small.upsert([record("one more")])
    seen: list[BuildProgress] = []
    assert ensure_index(small, on_progress=seen.append)
    described = small.describe()
    assert described["index_kind"] == "hnsw"
    assert described["index_operator_class"] == "vector_cosine_ops"
    assert (described["index_m"], described["index_ef_construction"]) == (16, 64)
    assert described["index_valid"] is True
    drop_index(small)
    assert small.describe()["index_kind"] == "none"


def test_build_progress_is_reported(postgres_store: OpenStore) -> None:
    """A build long enough to watch tells its phase and how much of it is done."""
    store = postgres_store(dimension=128, exact_rows_max=0)
    for start in range(0, 6000, 1000):
        store.upsert([record(f"r{n}", seed=n, dimension=128) for n in range(start, start + 1000)])
    seen: list[BuildProgress] = []
    assert ensure_index(store, on_progress=seen.append)
    assert any(step.total > 0 and 0 < step.done <= step.total for step in seen), seen


def test_a_build_outlives_a_look_at_how_far_it_is(postgres_store: OpenStore) -> None:
    """A server that does not say in time is busy with the build, which goes on."""
    store = postgres_store()
    with connect(store.settings) as connection:
        silent = postgres_store()
        silent.close()
        ended: list[object] = []
        build_watched(
            connection,
            silent,
            lambda: ended.append(connection.execute("SELECT pg_sleep(0.7)").fetchone()),
            lambda _: None,
        )
    assert len(ended) == 1


@pytest.mark.parametrize("metric", list(Metric))
def test_a_large_table_is_searched_through_its_index(
    postgres_store: OpenStore, metric: Metric
) -> None:
    """The planner uses the index for the plain search and cannot for the exact one."""
    store = postgres_store(exact_rows_max=0, metric=metric, pool_size_max=1)
    store.upsert([record(f"r{n:04d}", seed=n, metadata={"n": n}) for n in range(3000)])
    assert ensure_index(store)
    store.transact(lambda c: c.execute(f"ANALYZE {store.settings.table}"))
    scans = index_scans(store)
    found = [hit.id for hit in store.search(query(k=10)).hits]
    assert index_scans(store) == scans + 1
    true = [hit.id for hit in store.search_exact(query(k=10)).hits]
    assert index_scans(store) == scans + 1
    assert len(set(found) & set(true)) >= 9


@pytest.mark.parametrize("iterative_scan", ["strict_order", "off"])
def test_a_selective_filter_still_gives_every_match(
    postgres_store: OpenStore, postgresql_dsn: str, iterative_scan: str
) -> None:
    """Matching rows far from the query are found, even where the index stops looking early."""
    # In a table this small the planner would rather not use the vector index.
    planner = "options=-c%20enable_bitmapscan%3Doff%20-c%20enable_sort%3Doff"
    store = postgres_store(
        dsn=f"{postgresql_dsn}?{planner}",
        exact_rows_max=0,
        ef_search=10,
        iterative_scan=iterative_scan,
    )
    store.upsert(
        [
            record(f"r{n:04d}", seed=n, metadata={"rare": n % 250 == 0, "half": n % 2 == 0, "n": n})
            for n in range(3000)
        ]
    )
    assert ensure_index(store)
    for condition, expected in (
        ({"half": True}, 50),
        ({"rare": True}, 12),
        ({"n": [1, 2, 3]}, 3),
        ({"rare": False}, 50),
    ):
        hits = store.search(query(k=50, filter=Filter.of(condition))).hits
        assert len(hits) == expected
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)


def test_beyond_2000_dimensions_the_index_is_on_halfvec(postgres_store: OpenStore) -> None:
    """The query uses the expression index and ranks by the full vectors, with exact scores."""
    dimension = 2100
    store = postgres_store(dimension=dimension, exact_rows_max=0, pool_size_max=1)
    rows = [record(f"r{n:03d}", seed=n, dimension=dimension) for n in range(300)]
    store.upsert(rows)
    assert ensure_index(store)
    assert store.describe()["index_operator_class"] == "halfvec_cosine_ops"
    store.transact(lambda c: c.execute(f"ANALYZE {store.settings.table}"))
    vector = np.random.default_rng(1).normal(size=dimension)
    scans = index_scans(store)
    answer = store.search(Query(vector, k=10))
    assert index_scans(store) == scans + 1
    exact = store.search_exact(Query(vector, k=10))
    true = {hit.id: hit.score for hit in exact.hits}
    assert sum(hit.id in true for hit in answer.hits) >= 9
    for hit in answer.hits:
        assert hit.score == pytest.approx(true.get(hit.id, hit.score), abs=1e-7)


def test_beyond_4000_dimensions_the_search_is_exact(postgres_store: OpenStore) -> None:
    """There is no index to be had, and no error either."""
    store = postgres_store(dimension=4100, exact_rows_max=0)
    store.upsert([record(f"r{n}", seed=n, dimension=4100) for n in range(5)])
    assert not ensure_index(store)
    assert len(store.search(Query(np.ones(4100), k=3)).hits) == 3


def index_scans(store: PostgresStore) -> int:
    """How often the vector index has been scanned."""
    row = store.read(
        lambda c: (
            c.execute("SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot()")
            and c.execute(
                "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = %s",
                (store.names.vector_index,),
            ).fetchone()
        )
    )
    assert row
    return int(row[0])
