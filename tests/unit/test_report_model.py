"""The parity report's values: JSON out and in again, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest

import shadow.report
from shadow.report import ParityReport, from_json, model, to_json
from tests.data.parity_reports import empty_report, holding_report, hostile_report, passing_report
from vectorstore.errors import InvalidInput


@pytest.mark.parametrize("make", [passing_report, holding_report, empty_report, hostile_report])
def test_a_report_read_back_equals_the_one_written(make):
    """Nothing is lost or changed on the way through JSON, hostile text included."""
    report = make()
    assert from_json(to_json(report)) == report


def test_the_realistic_sample_fills_every_field():
    """A field that the sample leaves at its default would not be covered by the rendering tests."""
    report = passing_report()
    left = {
        item.name
        for item in dataclasses.fields(ParityReport)
        if not getattr(report, item.name) and item.name not in {"headline", "reasons", "needs"}
    }
    assert left == set()


def test_json_names_its_schema_and_keeps_types_of_settings():
    """Readers can tell the schema; a setting that is false, null or text stays what it is."""
    document = json.loads(to_json(passing_report()))
    assert document["schema_version"] == model.SCHEMA_VERSION
    assert document["settings"]["postgresql.jit"] is False
    assert document["settings"]["embedding.revision"] is None
    assert document["settings"]["postgresql.ef_search"] == 200


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_cannot_hold_are_refused(value):
    """NaN or infinity is named as the fault instead of making a file that no parser reads."""
    report = dataclasses.replace(passing_report(), latency_budget_ms=value)
    with pytest.raises(InvalidInput, match="None"):
        to_json(report)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"verdict": "maybe"}', b"\xff"])
def test_text_that_is_no_report_is_refused(text):
    """The error is ours and says that this is not a parity report."""
    with pytest.raises(InvalidInput, match="not a parity report"):
        from_json(text)


def test_another_schema_version_is_refused():
    """A report of a later release is not half read."""
    document = json.loads(to_json(passing_report()))
    document["schema_version"] = model.SCHEMA_VERSION + 1
    with pytest.raises(InvalidInput, match="schema version 2"):
        from_json(json.dumps(document))


def test_exports():
    """The package's public names are these."""
    assert shadow.report.__all__ == [
        "ParityReport",
        "ReportPaths",
        "from_json",
        "render_html",
        "render_markdown",
        "to_json",
        "write_report",
    ]
