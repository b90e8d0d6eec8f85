"""All checks, in the order of the traps."""

from __future__ import annotations

from shadow.doctor.answers import check_answers
from shadow.doctor.files import check_files
from shadow.doctor.finding import Finding
from shadow.doctor.index import check_index
from shadow.doctor.operation import check_operation
from shadow.doctor.subject import Subject

__all__ = ["examine"]


def examine(subject: Subject) -> list[Finding]:
    """What was found, by trap. A store that cannot be reached is a finding and not an error."""
    checks = (check_answers, check_index, check_files, check_operation)
    return sorted((one for check in checks for one in check(subject)), key=lambda one: one.trap)
