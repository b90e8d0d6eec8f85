"""What tune prints and writes: the table, the chart, and the settings in the TOML file."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from shadow.core.frontier import Candidate, Measured
from shadow.report import svg
from shadow.report.markup import Markup, element
from shadow.tuning import Tuned
from vectorstore.errors import ConfigurationError

__all__ = ["chart", "require_writable", "rows", "settings_of", "write_settings"]

_STYLE = Markup(
    "text{font:12px sans-serif;fill:#333}.grid{stroke:#ddd}.axis{stroke:#333}"
    ".tried{fill:#b9c3cf}.kept{fill:#1f5fa8}.curve{fill:none;stroke:#1f5fa8}"
    ".chosen{fill:none;stroke:#b3261e;stroke-width:2}"
)


def rows(tuned: Tuned) -> list[tuple[str, str, str, str, str, str]]:
    """The frontier: name, recall, recall confirmed, median, p95, and what was chosen."""
    return [
        (
            one.candidate.name,
            f"{one.recall:.4f}",
            f"{again.recall:.4f}",
            f"{one.p50_ms:.2f}",
            f"{one.p95_ms:.2f}",
            "proposed" if tuned.proposed is one else "",
        )
        for one, again in zip(tuned.frontier, tuned.confirmed, strict=True)
    ]


def chart(tuned: Tuned) -> str:
    """Recall against the median latency, every candidate and the frontier, as one SVG file."""
    plot = svg.Plot(width=720, height=420, left=60)
    lowest = min(one.recall for one in tuned.measured)
    times = [one.p50_ms for one in tuned.measured]
    marks_ms = svg.decades(min(times), max(times) * 1.05)
    x = svg.logarithmic(marks_ms[0], marks_ms[-1], plot.left, plot.x_end)
    y = svg.linear(lowest, 1.0, plot.y_end, plot.top)
    marks = [(value, f"{value:.3f}") for value in _steps(lowest)]

    def dot(one: Measured, kind: str, radius: float) -> Markup:
        tip = f"{one.candidate.name}: recall {one.recall:.4f}, {one.p50_ms:.2f} ms"
        return element(
            "g",
            element("title", tip),
            element("circle", cx=x(one.p50_ms), cy=y(one.recall), r=radius, class_=kind),
        )

    points = [(x(one.p50_ms), y(one.recall)) for one in tuned.frontier]
    return svg.drawing(
        element("style", _STYLE),
        *svg.horizontal_grid(plot, y, marks),
        *svg.vertical_ticks(
            plot, [(x(mark), f"{mark:g}") for mark in marks_ms], name="median latency, ms"
        ),
        *(dot(one, "tried", 3.0) for one in tuned.measured),
        svg.path_line(points, kind="curve"),
        *(dot(one, "kept", 4.0) for one in tuned.frontier),
        *([dot(tuned.proposed, "chosen", 8.0)] if tuned.proposed else []),
        svg.label("recall against the exact answer", plot.left, 18, anchor="start"),
        ident="frontier",
        title="Recall against latency",
        description=f"{len(tuned.measured)} settings over {tuned.rows:,} rows; the line joins those "
        "that no other beats",
        width=plot.width,
        height=plot.height,
        kind="chart",
    )


def settings_of(candidate: Candidate, *, rows: int) -> Mapping[str, str | int]:
    """The keys of the section [postgresql] that make the store search so."""
    if candidate.exact:
        return {"exact_rows_max": max(rows * 2, 1_000)}
    return {
        "exact_rows_max": 0,
        "index_type": candidate.index_type,
        "rerank_factor": candidate.rerank_factor,
        "hnsw_m": candidate.hnsw_m,
        "hnsw_ef_construction": candidate.hnsw_ef_construction,
        "ef_search": candidate.ef_search,
        "iterative_scan": candidate.iterative_scan,
    }


def require_writable(path: Path) -> None:
    """Raise ConfigurationError unless the file can be written, or made where it is to lie."""
    if not os.access(path if path.exists() else path.parent, os.W_OK) or path.is_dir():
        raise ConfigurationError(
            f"cannot write {path}: give a file in a folder that exists and that you may write to"
        )


def write_settings(path: Path, values: Mapping[str, str | int]) -> None:
    """Set keys of [postgresql] in a TOML file and leave the rest of it as it is, comments included.

    Raises ConfigurationError, and leaves the file as it was, if the result would not be valid TOML or
    cannot be written.
    """
    try:
        before = path.read_text(encoding="utf-8-sig") if path.exists() else ""
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    lines = before.splitlines()
    start = next((at for at, line in enumerate(lines) if _is_header(line, "postgresql")), None)
    if start is None:
        lines += ["", "[postgresql]"]
        start = len(lines) - 1
    end = next(
        (at for at in range(start + 1, len(lines)) if re.match(r"\s*\[", lines[at])), len(lines)
    )
    section = lines[start + 1 : end]
    for key, value in values.items():
        shown = f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}"
        at = _place(section, key)
        if at is None:
            section.insert(0, shown)
        else:
            section[at] = shown
    text = "\n".join([*lines[: start + 1], *section, *lines[end:]]) + "\n"
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(
            f"{path} was left as it is: with the proposal it would not be valid TOML ({error}); "
            "write the settings by hand"
        ) from error
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        # In place, as the file may be mounted by itself; what a full disk cut off was there before.
        with suppress(OSError):
            path.write_text(before, encoding="utf-8")
        raise ConfigurationError(
            f"cannot write {path}: {error.strerror}; write the settings by hand"
        ) from error


def _place(section: Sequence[str], key: str) -> int | None:
    """Where the key stands, or else where it is commented out."""
    for pattern in (rf"\s*{key}\s*=", rf"\s*#\s*{key}\s*="):
        for at, line in enumerate(section):
            if re.match(pattern, line):
                return at
    return None


def _is_header(line: str, name: str) -> bool:
    return re.match(rf"\s*\[\s*{name}\s*\]", line) is not None


def _steps(lowest: float) -> list[float]:
    span = max(1.0 - lowest, 1e-3)
    return [lowest + span * step / 5 for step in range(6)]
