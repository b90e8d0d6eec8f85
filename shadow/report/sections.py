"""The sections of the report's page: each a piece of markup that stands by itself.

The dashboard of the proxy shows the same sections. All that comes from data is escaped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from shadow.report import bars, charts, glance, provenance, tables, words
from shadow.report.markup import Markup, element, join, plain
from shadow.report.model import ParityReport
from shadow.report.tables import Column, Table

__all__ = [
    "chart",
    "data",
    "data_text",
    "decisions",
    "divergence",
    "facts",
    "gate",
    "latency",
    "measured",
    "recall",
    "section",
    "table",
    "verdict",
    "window",
    "worst",
]

_STATES = frozenset({"passed", "not passed", "met", "not met", "level"})


def verdict(report: ParityReport, *, answer: str = "") -> Markup:
    """The verdict and what it rests on. ``answer``: what it means at this moment, for the page of a
    running migration, which shows the way to a pass in its figures."""
    told = [
        element(
            "p",
            _glyph(report.verdict),
            element("strong", report.verdict.upper()),
            class_="verdict-word",
            id="verdict",
        ),
        element("p", answer, class_="answer") if answer else "",
        element("p", data_text(words.headline(report)), class_="headline"),
    ]
    told += _listed("Why it holds", report.reasons)
    told += _listed("What is missing", report.needs)
    if report.verdict != "pass" and not answer:
        told += _listed("What would make it pass", words.next_steps(report))
    return element("section", *told, class_=f"verdict {report.verdict}", aria_labelledby="verdict")


def _glyph(verdict: str) -> Markup:
    shapes = {"pass": "M5 12.5l4.5 4.5L19 7.5", "hold": "M8.5 6v12M15.5 6v12"}
    shape = element("path", d=shapes.get(verdict, "M6 12h.01M12 12h.01M18 12h.01"))
    return element("svg", shape, viewBox="0 0 24 24", class_="glyph", aria_hidden="true")


def facts(report: ParityReport) -> Markup:
    found = (
        element(
            "div",
            element("dt", data_text(fact.term)),
            element("dd", data_text(fact.value), class_="value"),
            element("dd", data_text(fact.note), class_="note") if fact.note else "",
        )
        for fact in glance.facts(report)
    )
    return element("dl", *found, class_="facts")


def gate(report: ParityReport) -> Markup:
    drawn = tuple(
        bars.progress(figure, ident=f"figure-{i}") for i, figure in enumerate(report.figures)
    )
    shown = _with_column(tables.figures(report), "Lower bound towards threshold", drawn, place=1)
    meanings = {figure.name: words.figure_meaning(figure) for figure in report.figures}
    notes = [
        join(element("b", data_text(name)), ": ", text, ". ")
        for name, text in meanings.items()
        if text
    ]
    key = "The bar is the lower bound, the dot is the mean, the upright line is the threshold. "
    return section(
        "Gate",
        table(shown, kind="stack"),
        element("p", key, *notes, class_="note") if report.figures else "",
        table(tables.conditions(report), kind="stack"),
    )


def recall(report: ParityReport) -> Markup:
    threshold = next((f.threshold for f in report.figures if f.name.startswith("recall")), None)
    return section(
        "Recall",
        element(
            "div",
            chart(
                charts.recall_histogram(report.recall_histogram, ident="recall"),
                "Recall of each compared query",
                tables.recall_counts(report),
            ),
            chart(
                charts.timeline(report.timeline, threshold=threshold, ident="timeline"),
                "Mean recall over time",
                tables.timeline(report),
            ),
            class_="pair",
        ),
    )


def latency(report: ParityReport, *, course: Markup | None = None) -> Markup:
    """The curve and its percentiles; beside it the ``course`` over time where there is one."""
    drawn = charts.latency_cdf(report.latency, budget_ms=report.latency_budget_ms, ident="latency")
    budget = words.milliseconds(report.latency_budget_ms)
    note = f"The budget is {budget}. " if report.latency_budget_ms is not None else ""
    note += "What timed out or failed was never answered: its curve ends below 100 %."
    shown = table(tables.latency(report), kind="compact")
    numbers = element("div", shown, element("p", note, class_="note"))
    curve = chart(drawn, "Share of queries answered within a time", None)
    if course is None:
        return section("Latency", element("div", curve, numbers, class_="pair"))
    return section("Latency", element("div", course, curve, class_="pair"), numbers)


def divergence(report: ParityReport) -> Markup:
    causes = tables.causes(report)
    total = sum(cause.count for cause in report.causes)
    ordered = sorted(report.causes, key=lambda cause: -cause.count)
    drawn = tuple(
        bars.share_bar(cause.count / total if total else 0.0, ident=f"cause-{i}", title=cause.label)
        for i, cause in enumerate(ordered)
    )
    return section(
        "Divergence",
        element("p", words.adjudication_sentence(report.adjudication)),
        table(_with_column(causes, "Part", drawn, place=3), kind="stack"),
        table(tables.exact_recall(report), kind="compact"),
    )


def worst(report: ParityReport, *, folded: bool = False) -> Markup:
    """Both answers to each of the worst queries; ``folded``: to be opened one by one."""
    found = [tables.hits(report, worst, show=_hit) for worst in report.worst]
    shown = [table(one, kind="stack hits") for one in found]
    if folded:
        shown = [
            element("details", element("summary", data_text(one.title)), drawn)
            for one, drawn in zip(found, shown, strict=True)
        ]
    return section("Worst queries", *(shown or [element("p", words.NO_DIVERGENCE)]))


def _hit(ident: str, excerpt: str, alone: bool) -> Markup:
    mark = join(" ", element("span", "only here", class_="alone")) if alone else ""
    return element(
        "div",
        element("span", element("b", data_text(ident)), mark),
        element("div", data_text(excerpt), class_="excerpt") if excerpt else "",
    )


def data(report: ParityReport) -> Markup:
    found = report.verification
    told = [element("p", data_text(words.verification_sentence(found)))]
    told += [element("p", "Method: ", data_text(found.method), ".")] if found.method else []
    told += [element("p", data_text(found.detail))] if found.detail else []
    return section("Data", *told, table(tables.lag(report), kind="compact"))


def decisions(report: ParityReport) -> Markup:
    return section("Decisions", table(provenance.audit(report), kind="stack"))


def measured(report: ParityReport) -> Markup:
    return section(
        "What was measured",
        *window(report),
        element(
            "div",
            table(provenance.settings(report)),
            table(provenance.versions(report)),
            class_="pair",
        ),
    )


def window(report: ParityReport) -> tuple[Markup, ...]:
    """When, in which era and from how much traffic the evidence was gathered."""
    return (
        element("p", data_text(words.window_sentence(report))),
        element("p", data_text(words.era_sentence(report))),
        element("div", table(tables.sampling(report)), table(tables.strata(report)), class_="pair"),
    )


def section(title: str, *children: str) -> Markup:
    ident = title.lower().replace(" ", "-")
    return element("section", element("h2", title, id=ident), *children, aria_labelledby=ident)


def _listed(title: str, lines: Sequence[str]) -> list[Markup]:
    if not lines:
        return []
    items = (element("li", data_text(line)) for line in lines)
    return [element("h2", title), element("ul", *items)]


def chart(drawing: Markup, caption: str, numbers: Table | None) -> Markup:
    """A chart, and its numbers for who cannot see it or wants them exactly."""
    told = ""
    if numbers is not None and numbers.rows:
        told = element("details", element("summary", "The numbers"), table(numbers))
    return element("figure", element("figcaption", caption), drawing, told)


def _with_column(table: Table, heading: str, cells: Sequence[Markup], *, place: int) -> Table:
    columns = (*table.columns[:place], Column(heading), *table.columns[place:])
    rows = tuple(
        (*row[:place], cell, *row[place:]) for row, cell in zip(table.rows, cells, strict=True)
    )
    return dataclasses.replace(table, columns=columns, rows=rows)


def table(table: Table, *, kind: str | None = None) -> Markup:
    """A table that scrolls by itself when narrow; of kind `stack` its rows become cards instead.

    The roles are spelled out because a table laid out as blocks loses its own in some browsers.
    """
    if not table.rows:
        return element("p", f"{table.title}: nothing recorded.", class_="note")
    headings = (
        element("th", data_text(c.heading), scope="col", role="columnheader", class_=_kind(c))
        for c in table.columns
    )
    rows = (element("tr", *_cells(table, row), role="row") for row in table.rows)
    whole = element(
        "table",
        element("caption", data_text(table.title)),
        element("thead", element("tr", *headings, role="row"), role="rowgroup"),
        element("tbody", *rows, role="rowgroup"),
        role="table",
        class_=kind,
    )
    return element(
        "div", whole, class_="scroll", tabindex="0", role="region", aria_label=table.title
    )


def _cells(table: Table, row: tuple[str, ...]) -> list[Markup]:
    cells = [
        element("th", _cell(row[0]), scope="row", role="rowheader", class_=_kind(table.columns[0]))
    ]
    for column, value in zip(table.columns[1:], row[1:], strict=True):
        cells.append(
            element(
                "td", _cell(value), role="cell", class_=_kind(column), data_label=column.heading
            )
        )
    return cells


def _cell(value: str) -> Markup:
    if value in _STATES:
        return element(
            "span", value, class_="state " + ("bad" if value.startswith("not ") else "good")
        )
    return data_text(value)


def _kind(column: Column) -> str | None:
    return "number" if column.numeric else None


def data_text(value: str) -> Markup:
    """Text from data, isolated so that right-to-left text leaves the words around it in order."""
    return value if isinstance(value, Markup) else element("bdi", plain(value))
