"""The promise of the journal, on a state machine over the real components.

Two router processes on one state directory, stepped by hand: real SQLite, real FAISS, real snapshots. In
the first profile PostgreSQL is a double, in the second the real server behind a proxy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from psycopg import conninfo

from tests.machine.rules import MigrationMachine
from tests.machine.server import Real
from tests.machine.world import World
from tests.plugins.tcp_proxy import TcpProxy

PROFILE = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    # To shrink takes up to five minutes, which no time limit of a test allows.
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


def test_no_acknowledged_write_is_ever_lost() -> None:
    """I1 to I12 hold whatever is written, killed, torn, replaced and flipped, in whatever order; and
    the runs did flip, roll back, crash and recover."""
    reached: Counter[str] = Counter()

    class Counting(MigrationMachine):
        def reached(self, world: World) -> None:
            reached.update(world.tally)

    least = {
        "drained": 100,
        "flips": 20,
        "rollbacks": 5,
        "reads by postgresql": 60,
        "kills": 40,
        "retries": 5,
        "repairs": 3,
        "torn snapshots found": 3,
    }
    # The rules that a run draws on are drawn as well, so that one in some dozens has few of a kind.
    for _ in range(3):
        run_state_machine_as_test(Counting, settings=PROFILE)
        print(dict(sorted(reached.items())))
        short = {name: reached[name] for name in least if reached[name] < least[name]}
        if not short:
            break
    assert not short


@pytest.fixture
def proxy(postgresql_dsn: str) -> Iterator[TcpProxy]:
    """A way to the session's server that can be shut."""
    parts = conninfo.conninfo_to_dict(postgresql_dsn)
    shut = TcpProxy((str(parts["host"]), int(str(parts["port"]))))
    yield shut
    shut.close()


def test_the_same_holds_on_a_real_server(postgresql_dsn: str, proxy: TcpProxy) -> None:
    """The invariants hold with PostgreSQL's own transactions, locks and connections."""
    reached: Counter[str] = Counter()

    class OnPostgresql(MigrationMachine):
        def make_world(self) -> World:
            return World(Real(postgresql_dsn, proxy), timeout_ms=100.0)

        def reached(self, world: World) -> None:
            reached.update(world.tally)

    run_state_machine_as_test(
        OnPostgresql, settings=settings(PROFILE, max_examples=6, stateful_step_count=25)
    )
    print(dict(sorted(reached.items())))
    assert reached["drained"] >= 6
    assert reached["reads by postgresql"] >= 1
