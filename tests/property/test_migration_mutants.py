"""The state machine sees a defect when there is one."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machine.mutants import MUTANTS
from tests.machine.rules import MigrationMachine

ENOUGH = settings(
    max_examples=400,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=True,
    print_blob=False,
    report_multiple_bugs=False,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_planted_defect_is_found(name: str) -> None:
    """With one function made wrong, some run breaks an invariant."""

    class Patched(MigrationMachine):
        """The double is installed first, and the defect over it."""

        def __init__(self) -> None:
            super().__init__()
            self.planted = MUTANTS[name]()
            self.planted.start()

        def teardown(self) -> None:
            try:
                super().teardown()
            finally:
                self.planted.stop()

    with pytest.raises(Exception):  # noqa: B017 - whatever the broken code comes to
        run_state_machine_as_test(Patched, settings=ENOUGH)
