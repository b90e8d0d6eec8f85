"""The promise of the journal, on a state machine over the real components and a double of PostgreSQL."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machine.rules import MigrationMachine
from tests.machine.world import World

EXAMPLES = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def test_no_acknowledged_write_is_ever_lost() -> None:
    """I1 to I12 hold whatever is written, killed, torn, replaced and flipped, in whatever order; and
    the runs did flip, roll back, crash and recover."""
    reached: Counter[str] = Counter()

    class Counting(MigrationMachine):
        def reached(self, world: World) -> None:
            reached.update(world.tally)

    run_state_machine_as_test(Counting, settings=EXAMPLES)
    print(dict(sorted(reached.items())))
    assert reached["flips"] >= 30
    assert reached["rollbacks"] >= 15
    assert reached["reads by postgresql"] >= 50
    assert reached["kills"] >= 100
    assert reached["retries"] >= 20
    assert reached["torn snapshots found"] >= 5
