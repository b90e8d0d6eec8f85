"""The course of both stores' latency over time, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from shadow.core.phases import FAISS, POSTGRESQL
from shadow.report import svg, words
from shadow.report.markup import Markup, element
from shadow.report.tables import Column, Table
from shadow.serve.watch import LatencyPoint

__all__ = ["course_numbers", "latency_course"]

POINTS_MAX = 240
NUMBERS_SHOWN = 20


def latency_course(
    points: Sequence[LatencyPoint], *, budget_ms: float | None, ident: str
) -> Markup:
    """p95 of both stores over time, on a log axis of milliseconds, with the budget."""
    plot = svg.Plot()
    values = [point.p95_ms for point in points] + ([budget_ms] if budget_ms and points else [])
    stops = svg.decades(min(values), max(values)) if values else (0.1, 1.0, 10.0)
    y = svg.logarithmic(stops[0], stops[-1], plot.y_end, plot.top)
    times = [point.at for point in points] or [0.0, 1.0]
    x = svg.linear(min(times), max(times), plot.left + 10, plot.x_end - 10)
    drawn: list[Markup] = []
    told: list[str] = []
    for store in (FAISS, POSTGRESQL):
        of_store = [point for point in points if point.store == store]
        if not of_store:
            continue
        stride = math.ceil(len(of_store) / POINTS_MAX)
        kept = [*of_store[:-1:stride], of_store[-1]]
        drawn.append(
            svg.path_line([(x(p.at), y(p.p95_ms)) for p in kept], kind=f"curve store-{store}")
        )
        last = of_store[-1]
        drawn.append(
            element("circle", cx=x(last.at), cy=y(last.p95_ms), r=3, class_=f"end-{store}")
        )
        name = words.store_name(store)
        side = "end" if x(last.at) > (plot.left + plot.x_end) / 2 else "start"
        drawn.append(svg.label(name, x(last.at), y(last.p95_ms) - 9, anchor=side, kind="legend"))
        told.append(f"{name}: {words.milliseconds(last.p95_ms)} at last.")
    if budget_ms and points:
        level = y(budget_ms)
        drawn.append(
            element("line", x1=plot.left, x2=plot.x_end, y1=level, y2=level, class_="threshold")
        )
        text = f"budget {words.milliseconds(budget_ms)}"
        drawn.append(svg.label(text, plot.x_end, level + 14, anchor="end", kind="value"))
    if not points:
        middle = (plot.left + plot.x_end) / 2
        drawn.append(
            svg.label(
                "the first point comes after 15 s of traffic",
                middle,
                (plot.top + plot.y_end) / 2,
                kind="empty",
            )
        )
    return svg.drawing(
        *svg.horizontal_grid(plot, y, [(stop, f"{stop:g}") for stop in stops]),
        *drawn,
        *svg.vertical_ticks(plot, _ticks(points, x), name="time, UTC"),
        svg.label(
            "p95 of mirrored queries, ms, log scale",
            plot.left,
            14,
            anchor="start",
            kind="axis-name",
        ),
        ident=ident,
        title="Latency over time",
        description=" ".join(told) or "No latencies.",
        width=plot.width,
        height=plot.height,
        kind="chart",
    )


def course_numbers(points: Sequence[LatencyPoint]) -> Table:
    """The latest points as a table, for who cannot see the curve or wants them exactly."""
    rows = [
        (f"{datetime.fromtimestamp(point.at, UTC):%H:%M:%S}", words.store_name(point.store),
         words.milliseconds(point.p95_ms))
        for point in points[-NUMBERS_SHOWN:]
    ]  # fmt: skip
    return Table(
        "p95 over time, the latest last",
        (Column("Time, UTC"), Column("Store"), Column("p95", numeric=True)),
        tuple(rows),
    )


def _ticks(points: Sequence[LatencyPoint], x: svg.Scale) -> list[tuple[float, str]]:
    if not points:
        return []
    first, last = points[0].at, points[-1].at
    steps = 4 if last > first else 0
    times = [first + (last - first) * step / max(steps, 1) for step in range(steps + 1)]
    form = "%H:%M:%S" if last - first < 1_800 else "%H:%M"
    return [(x(time), f"{datetime.fromtimestamp(time, UTC):{form}}") for time in times]
