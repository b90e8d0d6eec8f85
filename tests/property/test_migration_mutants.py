"""The state machine sees a defect when there is one."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machine.mutants import MUTANTS
from tests.machine.rules import MigrationMachine
from vectorstore.errors import VectorStoreError

ENOUGH = settings(
    max_examples=300,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=True,
    print_blob=False,
    report_multiple_bugs=False,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


def test_there_are_enough_mutants() -> None:
    """At least twelve defects are planted."""
    assert len(MUTANTS) >= 12


# These six take the machine longer to meet, up to a minute; `make test-all` runs them too.
LATE = (
    "cursor_read_outside_the_lock",
    "own_writes_forgotten",
    "read_rule_skipped_on_fallback",
    "seq_guard_skipped",
    "seq_reused_after_truncation",
    "staleness_forgotten",
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in LATE else n for n in sorted(MUTANTS)],
)
def test_a_planted_defect_is_found(name: str) -> None:
    """With one function made wrong, some run breaks an invariant or stops with an error of its own."""

    class Patched(MigrationMachine):
        """The double is installed first, and the defect over it."""

        def __init__(self) -> None:
            super().__init__()
            self.planted = MUTANTS[name]()
            self.planted.__enter__()

        def teardown(self) -> None:
            try:
                super().teardown()
            finally:
                self.planted.__exit__(None, None, None)

    # A defect of the mutant itself (TypeError, say) is none of these.
    with pytest.raises((AssertionError, VectorStoreError)):
        run_state_machine_as_test(Patched, settings=ENOUGH)
