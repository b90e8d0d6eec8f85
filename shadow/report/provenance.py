"""Under what the report's figures hold, as tables: settings, versions, and the decisions taken."""

from __future__ import annotations

from collections.abc import Mapping

from shadow.report import words
from shadow.report.model import ParityReport, Scalar
from shadow.report.tables import Column, Table

__all__ = ["audit", "settings", "versions"]


def settings(report: ParityReport) -> Table:
    """The settings that the figures hold for."""
    return _pairs("Settings", "Setting", report.settings)


def versions(report: ParityReport) -> Table:
    """The software that was measured."""
    return _pairs("Versions", "Component", report.versions)


def audit(report: ParityReport) -> Table:
    """Decisions about the route, the latest first."""
    ordered = sorted(report.audit, key=lambda entry: entry.at, reverse=True)
    return Table(
        "Audit log",
        (Column("When"), Column("Who"), Column("What"), Column("Why")),
        tuple((words.when(entry.at), entry.who, entry.what, entry.why) for entry in ordered),
    )


def _pairs(title: str, kind: str, values: Mapping[str, Scalar]) -> Table:
    rows = tuple((key, _scalar(value)) for key, value in sorted(values.items()))
    return Table(title, (Column(kind), Column("Value")), rows)


def _scalar(value: Scalar) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
