"""PRIMARY=auto: live traffic alone decides, and takes its decision back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo, sql

from tests.acceptance.operator import Operator
from tests.acceptance.test_migration import DIMENSION, ROWS, bare, vectors
from tests.faults.tcp_proxy import TcpProxy


@pytest.fixture
def proxy(postgresql_dsn: str) -> Iterator[TcpProxy]:
    parts = conninfo.conninfo_to_dict(postgresql_dsn)
    with TcpProxy((str(parts["host"]), int(str(parts["port"])))) as found:
        yield found


@pytest.fixture
def operator(tmp_path: Path, proxy: TcpProxy, postgresql_dsn: str, fresh_table: str) -> Operator:
    """A copied and verified migration, whose PostgreSQL is reached through the proxy."""
    index = tmp_path / "index"
    index.mkdir()
    bare(index, vectors(ROWS, DIMENSION))
    port = conninfo.conninfo_to_dict(postgresql_dsn)["port"]
    found = Operator(
        tmp_path,
        {
            "SHADOW_FAISS__PATH": str(index),
            "DATABASE_URL": postgresql_dsn.replace(f":{port}/", f":{proxy.port}/"),
            "SHADOW_POSTGRESQL__TABLE": fresh_table,
        },
    )
    found.done("backfill")
    found.done("verify")
    return found


def test_traffic_alone_flips_and_a_regression_flips_back_and_latches(
    operator: Operator, proxy: TcpProxy
) -> None:
    """With PRIMARY=auto the gate's Pass flips, after a rehearsal; a slow PostgreSQL is rolled back from,
    no answer fails, and the latch holds until it is cleared."""
    with operator.application(vectors(300, DIMENSION, seed=2), PRIMARY="auto") as application:
        operator.until(
            "the flip", lambda found: found["phase"] == "postgresql" and not found["rehearsing"]
        )
        application.until(
            "answers by PostgreSQL", lambda told: told["answered"].get("postgresql", 0) > 20
        )
        proxy.switch("slow", latency_ms=450)
        operator.until("the way back", lambda found: found["latch"] is not None, seconds=90)
        proxy.switch("pass")
        application.until("FAISS again", lambda told: told["phase"] == "shadow")
        assert operator.run("cutover", "--wait", "0.5").returncode != 0
        found = operator.status()
        assert found["phase"] == "shadow"
        assert any("latched" in sentence for sentence in found["waiting_for"])
        operator.done("rollback", "--clear-latch")
        assert operator.status()["latch"] is None
    told = application.told()
    assert told["failed"] == []
    assert told["unseen"] == []


def test_a_threshold_above_what_the_shadow_delivers_never_flips(
    operator: Operator, postgresql_dsn: str, fresh_table: str
) -> None:
    """A copy that lacks rows shows in recall, and with PRIMARY=auto FAISS goes on answering."""
    with psycopg.connect(postgresql_dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("DELETE FROM {} WHERE right(id, 1) IN ('3', '7')").format(
                sql.Identifier(fresh_table)
            )
        )
    with operator.application(
        vectors(300, DIMENSION, seed=2), writes=False, PRIMARY="auto"
    ) as running:
        found = operator.until("evidence", lambda found: found["evidence"]["compared"] > 400)
        assert found["verdict"] == "hold"
        recall = next(figure for figure in found["figures"] if figure["name"] == "recall")
        assert recall["upper_bound"] < recall["threshold"]
        assert found["phase"] == "shadow"
    assert running.told()["answered"].keys() == {"faiss"}
    assert operator.run("report").returncode == 3
    differs = operator.run("verify")
    assert differs.returncode == 3
    assert "missing" in differs.stderr
