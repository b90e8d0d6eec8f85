"""The report as Markdown that a change request or a pull request renders (CommonMark with tables)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from shadow.report import glance, provenance, tables, words
from shadow.report.model import ParityReport
from shadow.report.tables import Table

__all__ = ["render_markdown"]

_SPECIAL = re.compile(r"[\\`*_\[\]|~#!$@]")
# What would begin a list, a rule or a heading at the start of a list item.
_LEADING = re.compile(r"^([-+=]+|\d+[.)])(?=\s|$)")
# Controls, and the characters that turn the direction of what follows them.
_UNSEEN = re.compile("[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")


def render_markdown(report: ParityReport) -> str:
    """The whole report; all that comes from data is escaped and stays on one line."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: ParityReport) -> Iterator[str]:
    yield f"# Parity report: {_text(report.subject)}"
    yield ""
    yield f"**{report.verdict.upper()}**: {_text(words.headline(report))}"
    yield ""
    yield f"Made {_text(words.when(report.generated_at))}."
    yield ""
    yield from _bullets("Why it holds", report.reasons)
    yield from _bullets("What is missing", report.needs)
    if report.verdict != "pass":
        yield from _bullets("What would make it pass", words.next_steps(report))
    for fact in glance.facts(report):
        note = f" ({_text(fact.note)})" if fact.note else ""
        yield f"- {_text(fact.term)}: **{_text(fact.value)}**{note}"
    yield ""
    yield "## Gate"
    yield ""
    yield from _table(tables.figures(report))
    yield from _table(tables.conditions(report))
    yield "## Recall"
    yield ""
    yield from _table(tables.recall_counts(report))
    yield from _table(tables.timeline(report))
    yield "## Latency"
    yield ""
    if report.latency_budget_ms is not None:
        yield f"The budget is {words.milliseconds(report.latency_budget_ms)}."
        yield ""
    yield from _table(tables.latency(report))
    yield "## Divergence"
    yield ""
    yield words.adjudication_sentence(report.adjudication)
    yield ""
    yield from _table(tables.causes(report))
    yield from _table(tables.exact_recall(report))
    yield "## Worst queries"
    yield ""
    if not report.worst:
        yield words.NO_DIVERGENCE
        yield ""
    for worst in report.worst:
        yield from _table(tables.hits(report, worst, show=_hit))
    yield "## Data"
    yield ""
    yield _text(words.verification_sentence(report.verification))
    yield ""
    if report.verification.method:
        yield f"Method: {_text(report.verification.method)}."
        yield ""
    if report.verification.detail:
        yield _text(report.verification.detail)
        yield ""
    yield from _table(tables.lag(report))
    yield "## Decisions"
    yield ""
    yield from _table(provenance.audit(report))
    yield "## What was measured"
    yield ""
    yield _text(words.window_sentence(report))
    yield ""
    yield _text(words.era_sentence(report))
    yield ""
    for table in (tables.sampling, tables.strata, provenance.settings, provenance.versions):
        yield from _table(table(report))


def _hit(ident: str, excerpt: str, alone: bool) -> str:
    marked = f"{ident} (only here)" if alone else ident
    return f"{marked}: {excerpt}" if excerpt else marked


def _bullets(title: str, lines: tuple[str, ...]) -> Iterator[str]:
    if lines:
        yield f"**{title}**"
        yield ""
        yield from (f"- {_text(line)}" for line in lines)
        yield ""


def _table(table: Table) -> Iterator[str]:
    yield f"### {_text(table.title)}"
    yield ""
    if not table.rows:
        yield "Nothing recorded."
    else:
        yield _row(tuple(column.heading for column in table.columns))
        yield (
            "|"
            + "|".join(" ---: " if column.numeric else " --- " for column in table.columns)
            + "|"
        )
        yield from (_row(row) for row in table.rows)
    yield ""


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(map(_text, cells)) + " |"


def _text(value: str) -> str:
    """``value`` as one line of plain text: no markup, no HTML, no link, no mention comes out of it."""
    line = " ".join(_UNSEEN.sub(" ", value).split())
    line = _SPECIAL.sub(lambda found: "\\" + found.group(), line)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # GitHub makes links of bare addresses too.
    line = line.replace("://", ":\\//").replace("www.", "www\\.")
    return _LEADING.sub(lambda found: f"{found.group()[:-1]}\\{found.group()[-1]}", line)
