"""Latencies of the sides as an SVG: one row a side, from p50 to p99 on a logarithmic scale."""

from __future__ import annotations

import math
from html import escape
from itertools import groupby

from benchmarks.results import Reading, Results

__all__ = ["latency_chart"]

WIDTH, LABEL, RIGHT = 860, 250, 90
ROW, HEAD = 26, 34
STYLE = """
svg{background:#fff;color:#1b1f24;font:13px system-ui,sans-serif}
.head{font-weight:600}.quiet{fill:#6a737d}.grid{stroke:#d8dee4}.bar{stroke:#2f6f4f;stroke-width:6;
stroke-linecap:round}.dot{fill:#173d2b}
@media(prefers-color-scheme:dark){svg{background:#14181d;color:#e6edf3}text{fill:#e6edf3}
.quiet{fill:#9aa5b1}.grid{stroke:#30363d}.bar{stroke:#5fb98b}.dot{fill:#d6f5e5}}
"""


def latency_chart(results: Results) -> str:
    """The SVG of all readings of the part ``reads``."""
    readings = [reading for reading in results.readings if reading.part == "reads"]
    if not readings:
        return ""
    low = 10 ** math.floor(math.log10(min(reading.p50_us for reading in readings)))
    high = 10 ** math.ceil(math.log10(max(reading.p99_us for reading in readings)))

    def x(us: float) -> float:
        share = math.log(us / low) / math.log(high / low)
        return LABEL + share * (WIDTH - LABEL - RIGHT)

    parts: list[str] = []
    y = 24.0
    for name, group in groupby(readings, key=lambda reading: reading.dataset):
        y += HEAD - ROW
        parts.append(f'<text class="head" x="12" y="{y:.0f}">{escape(name)}</text>')
        for reading in group:
            y += ROW
            parts.append(_row(reading, x(reading.p50_us), x(reading.p99_us), y))
        y += HEAD
    grid = [
        f'<line class="grid" x1="{x(us):.1f}" x2="{x(us):.1f}" y1="30" y2="{y - 24:.0f}"/>'
        f'<text class="quiet" text-anchor="middle" x="{x(us):.1f}" y="{y - 8:.0f}">{_time(us)}</text>'
        for us in (low * 10**n for n in range(round(math.log10(high / low)) + 1))
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" role="img" '
        f'aria-label="Read latency from p50 (dot) to p99"><style>{STYLE}</style>'
        f"{''.join(grid)}{''.join(parts)}</svg>\n"
    )


def _row(reading: Reading, start: float, end: float, y: float) -> str:
    recall = "" if reading.recall is None else f"recall {reading.recall:.3f}"
    return (
        f'<text x="24" y="{y:.0f}">{escape(reading.side)}</text>'
        f'<line class="bar" x1="{start:.1f}" x2="{end:.1f}" y1="{y - 4:.0f}" y2="{y - 4:.0f}"/>'
        f'<circle class="dot" cx="{start:.1f}" cy="{y - 4:.0f}" r="5"/>'
        f'<text class="quiet" x="{WIDTH - RIGHT + 12}" y="{y:.0f}">{recall}</text>'
    )


def _time(us: float) -> str:
    if us >= 1e6:
        return f"{us / 1e6:g} s"
    return f"{us / 1e3:g} ms" if us >= 1e3 else f"{us:g} µs"
