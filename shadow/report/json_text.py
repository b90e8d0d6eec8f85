"""The parity report as JSON text, and read back from it."""

from __future__ import annotations

import functools
import json

from pydantic import TypeAdapter, ValidationError

from shadow.report.model import SCHEMA_VERSION, ParityReport
from vectorstore.errors import InvalidInput

__all__ = ["from_json", "to_json"]


def to_json(report: ParityReport) -> str:
    """The report as indented JSON text.

    Raises InvalidInput for NaN and infinities, which JSON cannot hold: say None instead.
    """
    try:
        values = _adapter().dump_python(report)
        return json.dumps(values, allow_nan=False, ensure_ascii=False, indent=2) + "\n"
    except ValueError as error:
        raise InvalidInput(f"the report cannot be written as JSON ({error}); use None") from error


def from_json(text: str | bytes) -> ParityReport:
    """The report that :func:`to_json` wrote; raises InvalidInput if it is not one, or of another schema."""
    try:
        report = _adapter().validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        raise InvalidInput(f"this is not a parity report: {place}: {first['msg']}") from error
    if report.schema_version != SCHEMA_VERSION:
        raise InvalidInput(
            f"the report has schema version {report.schema_version} and this program reads "
            f"{SCHEMA_VERSION}; read it with the release that wrote it"
        )
    return report


@functools.cache
def _adapter() -> TypeAdapter[ParityReport]:
    return TypeAdapter(ParityReport)
