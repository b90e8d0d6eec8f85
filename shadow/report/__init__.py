"""The parity report: its values, and their JSON, Markdown and one-file HTML."""

from shadow.report.files import ReportPaths, write_report
from shadow.report.html import render_html
from shadow.report.json_text import from_json, to_json
from shadow.report.markdown import render_markdown
from shadow.report.model import ParityReport

__all__ = [
    "ParityReport",
    "ReportPaths",
    "from_json",
    "render_html",
    "render_markdown",
    "to_json",
    "write_report",
]
