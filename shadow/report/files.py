"""The report as three files in a folder, each there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from shadow.report.html import render_html
from shadow.report.json_text import to_json
from shadow.report.markdown import render_markdown
from shadow.report.model import ParityReport
from vectorstore.errors import ConfigurationError

__all__ = ["ReportPaths", "write_report"]


class ReportPaths(NamedTuple):
    """Where the report's three forms are."""

    json: Path
    markdown: Path
    html: Path


def write_report(report: ParityReport, directory: Path) -> ReportPaths:
    """Write parity-report.json, .md and .html, replacing earlier ones one by one and atomically.

    The files are for their owner alone (mode 0600), since they may quote stored texts. Nothing is
    replaced unless all three could be rendered. Raises ConfigurationError if the folder cannot be
    written to, InvalidInput if the report holds what JSON cannot.
    """
    rendered = {
        "json": to_json(report),
        "md": render_markdown(report),
        "html": render_html(report),
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        paths = [
            _replace(directory / f"parity-report.{kind}", text) for kind, text in rendered.items()
        ]
    except OSError as error:
        raise ConfigurationError(
            f"the report could not be written to {directory}: {error.strerror or error}; "
            "name a folder that this user may write to, with room in it"
        ) from error
    return ReportPaths(*paths)


def _replace(path: Path, text: str) -> Path:
    # A lone surrogate has no UTF-8 form; as an escape it is still valid JSON and harmless elsewhere.
    content = text.encode("utf-8", "backslashreplace")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    aside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path
