"""Verify, and the gate at ten million comparisons."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from benchmarks.bench import Bench
from benchmarks.interleave import Side, Timings, interleave, ratio
from benchmarks.results import Figure
from benchmarks.stores import filled_table, taken_in, write_index_files
from shadow.config import Settings
from shadow.core.phases import POSTGRESQL
from shadow.opening import Migration, open_migration
from shadow.writes.verify import Clean, verify
from vectorstore.columns import RecordColumns
from vectorstore.digests import row_digests
from vectorstore.postgres.digests import digest_range, split_ranges
from vectorstore.postgres.wire import register_vectors
from vectorstore.types import Record

__all__ = ["gate", "verifying"]

PART = "verify"
ROWS = {"quick": 4_000, "core": 16_000, "full": 100_000}
COMPARISONS = 10_000_000
MINUTES = 2 * 24 * 60
# By text, both sides of a table of thousands would take minutes.
NAIVE_ROWS = 1_000
FETCH_ROWS = 2_000
BLOCK_ROWS = 64


def verifying(bench: Bench) -> None:
    """Whole tables, bit for bit."""
    data = bench.data(ROWS[bench.scale.name], 1536)
    store, source = filled_table(bench.dsn, data), taken_in(bench.directory, data)
    # No journal, so there is nothing to follow.
    still: Any = SimpleNamespace(store=source, follow=source.applied_seq)
    ranges = split_ranges(store, 2)
    pool = ThreadPoolExecutor(2)
    connection = psycopg.connect(bench.dsn, autocommit=True)
    register_vectors(connection)
    columns = sql.SQL("SELECT id, embedding, text, metadata, seq FROM {}").format(store.names.table)
    as_text = sql.SQL(
        "SELECT bit_xor(('x' || substr(md5(id || seq::text || embedding::text || text || "
        "metadata::text), 1, 16))::bit(64)::bigint) FROM {}"
    ).format(store.names.table)

    vectors_alone = sql.SQL("SELECT sum(length(vector_send(embedding))) FROM {}").format(
        store.names.table
    )

    def product(_: int) -> None:
        found = verify(faiss=still, postgresql=store)
        assert isinstance(found, Clean), found

    def server(_: int) -> None:
        digest_range(store)

    def server_twice(_: int) -> None:
        list(pool.map(lambda part: digest_range(store, after=part[0], upto=part[1]), ranges))

    def pulled(_: int) -> None:
        with connection.transaction(), connection.cursor("rows", binary=True) as cursor:
            cursor.execute(columns)
            while rows := cursor.fetchmany(FETCH_ROWS):
                # Digested in blocks, as the product digests its own side.
                for start in range(0, len(rows), BLOCK_ROWS):
                    part = rows[start : start + BLOCK_ROWS]
                    ids, vectors, *others = zip(*part, strict=True)
                    row_digests(RecordColumns(ids, np.stack(vectors), *others), "crc32c")

    def vectors(_: int) -> None:
        connection.execute(vectors_alone)

    def here(_: int) -> None:
        source.digests(source.ids(limit=data.rows), "crc32c")

    def md5_of_text(_: int) -> None:
        connection.execute(as_text)

    def md5_alone(_: int) -> None:
        with connection.transaction():
            connection.execute("SET LOCAL max_parallel_workers_per_gather = 0")
            connection.execute(as_text)

    def md5_of_both(_: int) -> None:
        some = source.ids(limit=NAIVE_ROWS)
        these = as_text + sql.SQL(" WHERE id = ANY(%s)")
        row = connection.execute(these, (some,)).fetchone()
        assert row is not None
        assert row[0] == _md5_of_text(source.get(some))

    sides = {
        "verify, both stores": Side(product, per_call=data.rows),
        "server digests, one connection": Side(server, per_call=data.rows),
        "server digests, two ranges": Side(server_twice, per_call=data.rows),
        "server, the vectors' wire form alone": Side(vectors, per_call=data.rows),
        "FAISS digests alone": Side(here, per_call=data.rows),
        "pulled in binary, digested here": Side(pulled, per_call=data.rows),
        "md5 of text on the server": Side(md5_of_text, per_call=data.rows),
        "md5 of text on the server, one process": Side(md5_alone, per_call=data.rows),
        "md5 of text, both stores": Side(md5_of_both, per_call=NAIVE_ROWS),
    }
    found = interleave(sides, rounds=bench.scale.rounds(7), calls=1)
    bench.results.read(PART, data.name, found)
    # Whole against whole, the server's part against the server's part, and the whole against that part.
    whole, part = "verify, both stores", "server digests, two ranges"
    for name, over, ours, least in (
        ("verify / pulling in binary", "pulled in binary, digested here", whole, 2.5),
        (f"{part} / pulling in binary", "pulled in binary, digested here", part, 2.5),
        ("verify / md5 of text, both stores", "md5 of text, both stores", whole, 12.0),
        (f"{part} / md5 of text on the server", "md5 of text on the server", part, 12.0),
        (
            f"{part} / md5 of text on the server, one process",
            "md5 of text on the server, one process",
            part,
            12.0,
        ),
        ("verify / md5 of text on the server", "md5 of text on the server", whole, 12.0),
    ):
        bench.results.ratio(PART, f"{name}, rows/s", ratio(found[over], found[ours]),
                            at_least=least)  # fmt: skip
    for words, sides_named in (
        ("both digests", ("server digests, one connection", "FAISS digests alone")),
        ("the vectors' wire form alone", ("server, the vectors' wire form alone",)),
    ):
        bench.results.ratio(
            PART, f"{words}, if no core were ever idle / md5 of text on the server, rows/s",
            ratio(
                found["md5 of text on the server"],
                _over_all_cores([found[side] for side in sides_named]),
            ),
        )  # fmt: skip
    pool.shutdown()
    connection.close()
    store.close()


def _over_all_cores(parts: Sequence[Timings]) -> Timings:
    """What these take of the processor together, spread over all cores without a gap."""
    together = zip(*(part.blocks for part in parts), strict=True)
    return Timings([np.sum(blocks, axis=0) / (os.cpu_count() or 1) for blocks in together])


def _md5_of_text(records: Sequence[Record]) -> int:
    """Rows of FAISS as PostgreSQL prints them, hashed: what comparing by text takes on this side."""
    total = 0
    for record in records:
        vector = "[" + ",".join(record.embedding.astype(str).tolist()) + "]"
        # As jsonb prints it: keys by length, then by bytes.
        ordered = sorted(record.metadata.items(), key=lambda item: (len(item[0]), item[0]))
        metadata = json.dumps(dict(ordered), ensure_ascii=False)
        text = f"{record.id}{record.seq}{vector}{record.text}{metadata}"
        total ^= int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:16], 16)
    return total - (total >> 63 << 64)


def gate(bench: Bench) -> None:
    """The verdict over ten million recorded comparisons, and over ten thousand for the growth."""
    data = bench.data(382, 1536)
    source = write_index_files(data, bench.directory / "gate-index")
    migrations = []
    sides = {}
    for total in (10_000, COMPARISONS):
        migration = open_migration(
            Settings.model_validate(
                {
                    "state_directory": bench.directory / f"gate-state-{total}",
                    "faiss": {"path": source, "metric": "cosine"},
                    "postgresql": {"dsn": bench.dsn, "table": "gate"},
                }
            )
        )
        migrations.append(migration)
        era = migration.evidence.open_era("benchmark", {}, why="benchmark")
        _record(migration.evidence._path, era.number, total)
        sides[f"{total:,} comparisons"] = Side(partial(_verdict, migration))
    few, many = interleave(sides, rounds=bench.scale.rounds(15), calls=50).values()
    for migration in migrations:
        migration.close()
    found, growth = many.us() / 1e3, ratio(many, few)
    bench.results.figures.append(
        Figure("gate", f"gate evaluation at {COMPARISONS:,} comparisons", found, "ms",
               target="<= 1 ms", met=found <= 1.0)
    )  # fmt: skip
    bench.results.figures.append(
        Figure("gate", f"the same over that at 10,000 ({few.us() / 1e3:.2f} ms)", growth.value, "x",
               growth.low, growth.high, growth.rounds, "no rescan: about 1x", growth.value <= 1.5)
    )  # fmt: skip


def _verdict(migration: Migration, _: int) -> object:
    return migration.desk.ready()


def _record(path: Path, era: int, total: int) -> None:
    """Leave the counts, tallies and digests that so many comparisons of two days leave."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN")
    connection.execute("DELETE FROM counts")
    connection.execute("DELETE FROM tallies")
    shares = {1.0: 0.97, 0.9: 0.02, 0.8: 0.01}
    for figure in ("recall", "top1", "success", "latency"):
        for value, share in shares.items() if figure == "recall" else ((1.0, 1.0),):
            connection.execute(
                "INSERT INTO counts VALUES (?, 'live', ?, ?, 'all', ?, ?)",
                (era, POSTGRESQL, figure, value, int(share * total)),
            )
    connection.execute(
        "INSERT INTO tallies (process, era, judged, offered, sampled, issued, resolved, seen_at)"
        " VALUES ('benchmark', ?, ?, ?, ?, ?, ?, 0)",
        (era, POSTGRESQL, total, total, total, total),
    )
    minute = int(time.time() // 60)
    connection.execute("UPDATE eras SET opened_at = opened_at - ?", (60 * MINUTES,))
    connection.executemany(
        "INSERT INTO minutes VALUES (?, 'live', ?, ?, ?, ?)",
        (
            (era, POSTGRESQL, minute - ago, total // MINUTES, float(total // MINUTES))
            for ago in range(MINUTES)
        ),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO queries VALUES (?, 'live', ?)",
        ((era, number.to_bytes(8, "big")) for number in range(min(total, 10_000))),
    )
    connection.execute("COMMIT")
    connection.close()
