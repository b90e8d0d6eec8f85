"""SIGKILL at random, of routers and of PostgreSQL: what was acknowledged stays, everywhere."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.router_kills import PostgresqlKiller, check, kill_routers, settings_of


@pytest.fixture
def killer() -> Iterator[PostgresqlKiller]:
    """A server of this test's own."""
    directory = Path(tempfile.mkdtemp(prefix="shadow-kills-"))
    killing = PostgresqlKiller(directory, seed=7)
    yield killing
    killing.close()
    shutil.rmtree(directory, ignore_errors=True)


def test_killed_routers_lose_nothing(tmp_path: Path, killer: PostgresqlKiller) -> None:
    """Three writers on eight ids, a backfill, and an operator who flips, snapshots and truncates are
    killed 40 times; then the journal has no gap and both stores hold every acknowledged write."""
    settings = settings_of(tmp_path, killer.dsn)
    report = kill_routers(tmp_path, settings, kills=40, seed=20)
    tally = check(settings, report)
    print(dict(tally))
    assert tally["acknowledged"] >= 100
    assert tally["backfills"] >= 1
    assert tally["flips"] >= 1
    # Which ones chance decides; test_kills_inside.py leaves none of them to it.
    assert sum(report.interrupted().values()) >= 3


def test_killed_postgresql_loses_nothing(tmp_path: Path, killer: PostgresqlKiller) -> None:
    """While PostgreSQL is stopped at once and its backends are killed, and routers too, writes go on
    and both stores end up the same."""
    settings = settings_of(tmp_path, killer.dsn)
    with killer.at_work():
        report = kill_routers(tmp_path, settings, kills=20, seed=21)
    tally = check(settings, report)
    print(dict(tally), dict(killer.kills))
    assert tally["acknowledged"] >= 50
    assert sum(killer.kills.values()) >= 2
