"""The parity report as HTML, SVG, Markdown and files."""

from __future__ import annotations

import dataclasses
import re
import stat
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from shadow.report import bars, charts, from_json, render_html, render_markdown, write_report
from shadow.report.markup import element
from shadow.report.model import Figure, Percentiles, StoreLatency, TimelinePoint
from tests.data.parity_reports import (
    HOSTILE,
    empty_report,
    holding_report,
    hostile_report,
    passing_report,
)
from vectorstore.errors import ConfigurationError

MAKERS = [passing_report, holding_report, empty_report, hostile_report]
SVG = "{http://www.w3.org/2000/svg}"


class Page(HTMLParser):
    """What a browser's parser makes of a page: its tags, its attributes and its visible text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.text += data


def markdown_text(source: str) -> str:
    """Markdown with its escapes taken back."""
    return (
        re.sub(r"\\(.)", r"\1", source)
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
    )


@pytest.mark.parametrize("make", MAKERS)
def test_the_page_is_well_formed_and_asks_for_nothing(make):
    """No script, no handler, no reference outside the page; its own policy forbids them besides."""
    source = render_html(make())
    ET.fromstring(source.removeprefix("<!DOCTYPE html>"))
    page = Page(source)
    assert not {"script", "iframe", "object", "img", "base", "form", "use", "image"} & set(
        page.tags
    )
    for name, value in page.attributes:
        assert not name.startswith("on")
        assert name not in {"src", "action", "style", "xlink:href"}
        assert name != "href" or value == "data:,"
    assert "url(" not in source
    assert "@import" not in source
    assert "default-src &#39;none&#39;" in source


@pytest.mark.parametrize("make", MAKERS)
def test_drawings_are_labelled_and_ids_unique(make):
    """Each drawing that says something has a title and a description, and is labelled by them."""
    root = ET.fromstring(render_html(make()).removeprefix("<!DOCTYPE html>"))
    ids = [node.get("id") for node in root.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    drawings = [node for node in root.iter(f"{SVG}svg") if node.get("role") == "img"]
    assert len(drawings) >= 3
    for drawing in drawings:
        named = {node.get("id") for node in drawing if node.tag in (f"{SVG}title", f"{SVG}desc")}
        assert named == set(drawing.get("aria-labelledby").split())
    for table in root.iter("table"):
        assert table.find("caption") is not None
        assert all(head.get("scope") for head in table.iter("th"))


def test_hostile_text_stays_text_in_html():
    """Markup planted in every text field is shown as it is and makes no element."""
    source = render_html(hostile_report())
    page = Page(source)
    assert "script" not in page.tags
    assert "<script" not in source
    shown = HOSTILE.replace("\x00", "\ufffd").replace("\u202e", "\ufffd")
    assert page.text.count(shown) > 30
    assert "\u202e" not in source


def test_hostile_text_stays_text_in_markdown():
    """Planted HTML, links, code, pipes and line breaks make no markup and no further table cell."""
    report = dataclasses.replace(
        hostile_report(), reasons=("1. a\n# b\n- c www.evil.example", "- d")
    )
    source = render_markdown(report)
    assert "<" not in source
    assert "](" not in re.sub(r"\\.", "", source)
    assert "http://" not in source
    assert "`" not in re.sub(r"\\.", "", source)
    assert "- 1\\. a \\# b - c www\\.evil.example" in source
    assert "- \\- d" in source
    for block in source.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 1


@pytest.mark.parametrize(
    "render", [lambda r: Page(render_html(r)).text, lambda r: markdown_text(render_markdown(r))]
)
def test_every_fact_is_shown(render):
    """Every text and the phrase of every number of the sample is found in both forms."""
    report = passing_report()
    shown = render(report)
    expected = [
        "PASS",
        report.subject,
        "2026-11-22 08:04 UTC",
        "2026-11-21 06:00 UTC until 2026-11-22 08:00 UTC",
    ]
    expected += [
        "Era 2 of 2",
        report.era.why,
        "5 % in this era and 10 % over all eras",
        "FAISS answers; mirrored to PostgreSQL",
    ]
    for figure in report.figures:
        expected += [
            figure.name,
            figure.stratum,
            f"{figure.mean:.4f}",
            f"{figure.lower_bound:.4f}",
            f"{figure.threshold:.4f}",
        ]
    for item in report.conditions:
        expected += [item.name, item.detail]
    expected += [f"{n:,}" for _, n in report.recall_histogram]
    expected += [f"{point.recall:.4f}" for point in report.timeline]
    expected += ["0.041 ms", "0.402 ms", "0.930 ms", "41.8 ms", "The budget is 50.0 ms"]
    for cause in report.causes:
        expected += [cause.label, cause.meaning, f"{cause.count:,}"]
    expected += ["483 queries diverged; 480 were judged", "343", "0.9997", "0.9921"]
    for worst in report.worst:
        expected += [
            worst.query,
            worst.cause,
            f"{worst.primary_latency_ms:.3f} ms",
            f"{worst.shadow_latency_ms:.2f} ms",
        ]
        for hit in (*worst.primary_hits, *worst.shadow_hits):
            expected += [hit.id, f"{hit.score:.5f}", hit.text]
    expected += [
        "Clean: 382 rows",
        "3 h 12 min ago",
        report.verification.method,
        report.verification.detail,
        "level",
    ]
    expected += [
        "6,902",
        "6,885",
        "6,874",
        "1,208",
        "Dropped",
        "Lost",
        "Replayed",
        "500",
        "declared",
        "pooled",
    ]
    expected += [
        *report.settings,
        "strict_order",
        "not set",
        *report.versions,
        *report.versions.values(),
    ]
    for entry in report.audit:
        expected += [entry.who, entry.what, entry.why]
    assert [text for text in expected if text not in shown] == []


@pytest.mark.parametrize(
    "render", [lambda r: Page(render_html(r)).text, lambda r: markdown_text(render_markdown(r))]
)
def test_a_hold_says_why_and_what_would_make_it_pass(render):
    """Reasons, the queries still needed with the time they take, and where more queries will not help."""
    shown = render(holding_report())
    assert "HOLD" in shown
    assert "PostgreSQL is 214 entries behind the journal" in shown
    assert (
        "about 96 more queries at the present mean 0.9713 (6 h 3 min at the present rate)" in shown
    )
    assert "its lower bound 0.9402 must reach 0.9500" in shown
    assert "the mean 0.8810 is not above the threshold 0.9500. More queries alone will not" in shown
    assert "Differs: 2 of 382 rows differ" in shown
    assert "214 entries behind, the oldest 2 min old" in shown


@pytest.mark.parametrize(
    "render", [lambda r: Page(render_html(r)).text, lambda r: markdown_text(render_markdown(r))]
)
def test_an_empty_report_says_that_nothing_is_known(render):
    """No evidence is told as such: no figure is invented, and could-not-check is not a difference."""
    shown = render(empty_report())
    assert "UNDECIDED" in shown
    assert "no query has been compared; about 85 queries are needed" in shown
    assert "Never: the data of the two stores has not been compared yet" in shown
    assert "None" not in shown
    assert "nan" not in shown


def test_verdict_stands_before_everything_else():
    """The verdict's word comes before any figure."""
    source = render_markdown(passing_report())
    assert source.index("**PASS**") < source.index("0.98")
    assert "PostgreSQL's answers are as good as FAISS's on 6,874 compared live queries" in source


def numbers(latency: float) -> Percentiles:
    return Percentiles(latency, latency, latency, None, None)


@pytest.mark.parametrize(
    "drawing",
    [
        charts.recall_histogram((), ident="a"),
        charts.recall_histogram(((1.0, 1),), ident="a"),
        charts.recall_histogram([(step / 100, step) for step in range(101)], ident="a"),
        charts.latency_cdf((), budget_ms=None, ident="a"),
        charts.latency_cdf(
            [StoreLatency(HOSTILE, 1, numbers(0.0), ((0.0, 1.0),), 0)], budget_ms=5.0, ident="a"
        ),
        charts.latency_cdf(
            [
                StoreLatency(
                    "faiss", 9, numbers(3.0), tuple((x / 10, x / 5e3) for x in range(5000)), 0
                )
            ],
            budget_ms=None,
            ident="a",
        ),
        charts.timeline((), threshold=None, ident="a"),
        charts.timeline([TimelinePoint("2026-01-01T00:00:00Z", 0.0, 0)], threshold=1.0, ident="a"),
        bars.progress(Figure(HOSTILE, "", 0, None, None, 1.0, False, None), ident="a"),
        bars.progress(Figure("recall", "", 1, 0.1, 0.0, 0.0, True, 0), ident="a"),
        bars.share_bar(0.4, ident="a", title=HOSTILE),
    ],
)
def test_each_drawing_stands_alone_as_xml_within_its_box(drawing):
    """Drawings of no data, one value and many parse by themselves, and no mark leaves the view box."""
    root = ET.fromstring(drawing)
    _, _, width, height = map(float, root.get("viewBox").split())
    for node in root.iter():
        for name, limit in (
            ("x", width),
            ("x1", width),
            ("cx", width),
            ("y", height),
            ("y2", height),
            ("cy", height),
        ):
            assert 0 <= float(node.get(name, 0)) <= limit
    lines = [node.get("points").split() for node in root.iter(f"{SVG}polyline")]
    assert all(len(points) <= 250 for points in lines)


def test_histogram_counts_full_recall_apart_from_nearly_full():
    """Merging many values into bins never rounds an incomplete answer up to a full one."""
    drawn = charts.recall_histogram([(step / 100, 1) for step in range(101)], ident="a")
    assert "recall 1.00: 1 query, 0.99 %" in drawn
    assert "recall 0.95: 5 queries, 5.0 %" in drawn


def test_element_escapes_children_and_attributes():
    """Quotes, brackets and ampersands cannot end an attribute or an element."""
    assert element("p", "<b>&", title="\"'>") == '<p title="&quot;&#39;&gt;">&lt;b&gt;&amp;</p>'


def test_three_files_are_written_for_their_owner_and_replaced(tmp_path):
    """All three are there, nothing is left aside, and the JSON file reads back as the report."""
    folder = tmp_path / "new" / "folder"
    write_report(empty_report(), folder)
    report = dataclasses.replace(passing_report(), subject="lone \ud800 surrogate")
    paths = write_report(report, folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "parity-report.html",
        "parity-report.json",
        "parity-report.md",
    ]
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o600] * 3
    assert "PASS" in paths.html.read_text("utf-8")
    assert "**PASS**" in paths.markdown.read_text("utf-8")
    write_report(passing_report(), folder)
    assert from_json(paths.json.read_bytes()) == passing_report()


def test_a_report_that_cannot_be_rendered_replaces_nothing(tmp_path):
    """Earlier files stay as they were when the new report is refused."""
    paths = write_report(passing_report(), tmp_path)
    before = [path.read_bytes() for path in paths]
    with pytest.raises(ValueError, match="JSON"):
        write_report(dataclasses.replace(passing_report(), alpha=float("nan")), tmp_path)
    assert [path.read_bytes() for path in paths] == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    """The error says where, why and what to do; no file is left aside."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ConfigurationError, match=r"could not be written to .*file"):
        write_report(passing_report(), blocked)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
