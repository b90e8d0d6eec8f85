"""The report as one HTML file: no request, no script, light and dark, screen and paper.

The page is well-formed XML as well as HTML. Its own content security policy allows its one style sheet,
by hash, and nothing else, so that text which got past the escaping could still load and run nothing.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from shadow.report import sections, words
from shadow.report.markup import Markup, element
from shadow.report.model import ParityReport

__all__ = ["render_html", "report_policy", "style_sheet"]


def style_sheet() -> str:
    """The style sheet that the drawings and tables of the report need."""
    return resources.files("shadow.report").joinpath("style.css").read_text(encoding="utf-8")


def report_policy() -> str:
    """The page's content security policy: its one style sheet, by hash, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(style_sheet().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def render_html(report: ParityReport) -> str:
    """The whole report as one page; all that comes from data is escaped."""
    style = style_sheet()
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=report_policy()),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="robots", content="noindex"),
        # Without it a browser asks the host for /favicon.ico.
        element("link", rel="icon", href="data:,"),
        element("title", f"{report.verdict.upper()}: parity report, {report.subject}"),
        # Not escaped: HTML reads a style element as it stands, and the sheet is ours.
        element("style", Markup(style)),
    )
    parts = (
        sections.gate(report),
        sections.recall(report),
        sections.latency(report),
        sections.divergence(report),
        sections.worst(report),
        sections.data(report),
        sections.decisions(report),
        sections.measured(report),
    )
    body = element(
        "body",
        _masthead(report),
        element("main", sections.verdict(report), sections.facts(report), *parts),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _masthead(report: ParityReport) -> Markup:
    made = element("time", words.when(report.generated_at), datetime=report.generated_at)
    return element(
        "header",
        element("h1", sections.data_text(report.subject)),
        element("p", "Parity report, ", made),
    )
