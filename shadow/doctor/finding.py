"""What the doctor says: one trap that somebody stepped into, with evidence and the way out."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Finding", "Severity"]


class Severity(enum.StrEnum):
    """How much a finding matters."""

    NOTE = "note"
    """Worth knowing; nothing is wrong."""
    WARNING = "warning"
    """It costs time or safety, and will cost more."""
    FAULT = "fault"
    """Answers or data are wrong, or will be."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``trap``: its number, 1 to 15, in docs/evidence.md. ``evidence``: what was seen, in lines."""

    trap: int
    name: str
    severity: Severity
    what: str
    evidence: tuple[str, ...]
    fix: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "severity": self.severity.value}
