"""The report's charts as SVG: recall histogram, latency CDF, recall over time.

Every chart says the same in its description as in its shapes, and tells its series apart by dash and
name besides colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from shadow.report import svg, words
from shadow.report.markup import Markup, element
from shadow.report.model import StoreLatency, TimelinePoint

__all__ = ["latency_cdf", "recall_histogram", "timeline"]

_BINS_MAX = 20
_CURVE_POINTS_MAX = 240
_X_LABELS_MAX = 11


def recall_histogram(values: Sequence[tuple[float, int]], *, ident: str) -> Markup:
    """How many queries had each recall. Counts are on a log axis: the few bad ones are what matters.

    ``values``: (recall, queries). More than twenty different values are put into twenty equal bins.
    """
    bins = _bins(values)
    total = sum(queries for _, queries in bins)
    plot = svg.Plot()
    highest = max((queries for _, queries in bins), default=1)
    # The axis begins below one, so that a single query is seen.
    y = svg.logarithmic(0.6, max(highest, 10) * 1.6, plot.y_end, plot.top)
    marks = [
        (10.0**power, words.count(10**power))
        for power in range(int(math.log10(max(highest, 10))) + 1)
    ]
    slot = (plot.x_end - plot.left) / max(len(bins), 1)
    labelled = math.ceil(len(bins) / _X_LABELS_MAX) if bins else 1
    bars: list[Markup] = []
    ticks: list[tuple[float, str]] = []
    for place, (recall, queries) in enumerate(bins):
        middle = plot.left + slot * (place + 0.5)
        if (len(bins) - 1 - place) % labelled == 0:
            ticks.append((round(middle, 2), f"{recall:.2f}".rstrip("0").rstrip(".") or "0"))
        if not queries:
            continue
        level = y(queries)
        tip = f"recall {recall:.2f}: {words.queries(queries)}, {words.percent(queries / total)}"
        width = round(min(slot * 0.72, 30), 2)
        x, height = round(middle - width / 2, 2), round(plot.y_end - level, 2)
        bars.append(
            element(
                "g",
                element("title", tip),
                element("rect", x=x, y=level, width=width, height=height, rx=1.5, class_="bar"),
                svg.label(words.count(queries), round(middle, 2), level - 5, kind="value"),
            )
        )
    full = sum(queries for recall, queries in values if recall >= 1.0)
    told = (
        f"{words.count(full)} of {words.queries(total)} with full recall."
        if total
        else "No queries."
    )
    return svg.drawing(
        *svg.horizontal_grid(plot, y, marks),
        *bars,
        *svg.vertical_ticks(plot, ticks, name="recall of a query"),
        svg.label("queries, log scale", plot.left, 14, anchor="start", kind="axis-name"),
        *_when_empty(plot, bool(total)),
        ident=ident,
        title="Recall by query",
        description=told,
        width=plot.width,
        height=plot.height,
        kind="chart",
    )


def latency_cdf(
    latencies: Sequence[StoreLatency], *, budget_ms: float | None, ident: str
) -> Markup:
    """The share of queries that each store had answered after a time, on a log axis of milliseconds."""
    plot = svg.Plot()
    shown = [latency for latency in latencies if latency.cdf]
    edges = [max(ms, 1e-3) for latency in shown for ms, _ in (latency.cdf[0], latency.cdf[-1])]
    edges += [budget_ms] if budget_ms else []
    stops = svg.decades(min(edges), max(edges)) if edges else (0.1, 1.0, 10.0)
    x = svg.logarithmic(stops[0], stops[-1], plot.left, plot.x_end)
    y = svg.linear(0, 1, plot.y_end, plot.top)
    drawn: list[Markup] = []
    if budget_ms:
        place = x(budget_ms)
        side, shift = ("end", -5) if place > (plot.left + plot.x_end) / 2 else ("start", 5)
        drawn.append(
            element("line", x1=place, x2=place, y1=plot.top, y2=plot.y_end, class_="threshold")
        )
        text = f"budget {words.milliseconds(budget_ms)}"
        drawn.append(svg.label(text, place + shift, plot.y_end - 8, anchor=side, kind="value"))
    told: list[str] = []
    for latency in shown:
        stride = math.ceil(len(latency.cdf) / _CURVE_POINTS_MAX)
        kept = [*latency.cdf[:-1:stride], latency.cdf[-1]]
        start = (x(max(kept[0][0], 1e-3)), plot.y_end)
        points = [start, *((x(ms), y(reached)) for ms, reached in kept)]
        drawn.append(svg.path_line(points, kind=f"curve {_series(latency.store)}"))
        told.append(
            f"{words.store_name(latency.store)}: half within "
            f"{words.milliseconds(latency.percentiles.p50)}, 99 % within "
            f"{words.milliseconds(latency.percentiles.p99)}."
        )
    levels = [(0.0, "0 %"), (0.25, "25 %"), (0.5, "50 %"), (0.75, "75 %"), (1.0, "100 %")]
    return svg.drawing(
        *svg.horizontal_grid(plot, y, levels),
        *drawn,
        *svg.vertical_ticks(
            plot, [(x(stop), f"{stop:g}") for stop in stops], name="milliseconds, log scale"
        ),
        svg.label("answered within", plot.left, 14, anchor="start", kind="axis-name"),
        *_legend(plot, [latency.store for latency in shown]),
        *_when_empty(plot, bool(shown)),
        ident=ident,
        title="Latency of both stores",
        description=" ".join(told) or "No latencies.",
        width=plot.width,
        height=plot.height,
        kind="chart",
    )


def timeline(points: Sequence[TimelinePoint], *, threshold: float | None, ident: str) -> Markup:
    """Mean recall over time with the gate's threshold; bars at the foot show how many queries it rests on."""
    plot = svg.Plot()
    moments = ((words.parse_time(point.at), point) for point in points)
    placed = [(moment.timestamp(), point) for moment, point in moments if moment is not None]
    placed.sort(key=lambda pair: pair[0])
    low = min(
        [point.recall for _, point in placed] + ([threshold] if threshold is not None else [0.9])
    )
    # Room below the lowest value, on a round number.
    floor = max(0.0, math.floor((low - 0.005) * 20) / 20)
    first, last = (placed[0][0], placed[-1][0]) if placed else (0.0, 1.0)
    x = svg.linear(first, last, plot.left + 10, plot.x_end - 10)
    y = svg.linear(floor, 1.0, plot.y_end - 28, plot.top)
    most = max((point.queries for _, point in placed), default=1) or 1
    drawn: list[Markup] = []
    wide = max(1.0, min(14.0, 0.7 * (plot.x_end - plot.left - 20) / max(len(placed), 1)))
    for at, point in placed:
        high = round(22 * point.queries / most, 2)
        tip = f"{words.when(point.at)}: recall {words.share(point.recall)}, {words.queries(point.queries)}"
        place = round(x(at) - wide / 2, 2)
        bar = element(
            "rect", x=place, y=plot.y_end - high, width=wide, height=high, class_="volume"
        )
        dot = element("circle", cx=x(at), cy=y(point.recall), r=2.6, class_="dot")
        drawn.append(element("g", element("title", tip), bar, dot))
    if threshold is not None and placed:
        level = y(threshold)
        drawn.append(
            element("line", x1=plot.left, x2=plot.x_end, y1=level, y2=level, class_="threshold")
        )
        text = f"threshold {words.share(threshold)}"
        drawn.append(svg.label(text, plot.x_end, level + 14, anchor="end", kind="value"))
    if len(placed) > 1:
        drawn.insert(
            0, svg.path_line([(x(at), y(p.recall)) for at, p in placed], kind="curve mean")
        )
    marks = [
        (value, f"{value:.3f}".rstrip("0").rstrip(".")) for value in (floor, (floor + 1) / 2, 1.0)
    ]
    told = (
        f"{len(placed)} points, lowest mean recall {words.share(low)}." if placed else "No points."
    )
    return svg.drawing(
        *svg.horizontal_grid(plot, y, marks),
        *drawn,
        *svg.vertical_ticks(plot, _time_ticks(placed, x), name="time, UTC"),
        svg.label(
            "mean recall; queries at the foot", plot.left, 14, anchor="start", kind="axis-name"
        ),
        *_when_empty(plot, bool(placed)),
        ident=ident,
        title="Recall over time",
        description=told,
        width=plot.width,
        height=plot.height,
        kind="chart",
    )


def _bins(values: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """Equal values together, in rising order, with the empty places of the 1/k grid between them."""
    counted: dict[float, int] = {}
    for recall, queries in values:
        counted[round(recall, 6)] = counted.get(round(recall, 6), 0) + queries
    grid = {round(step / 10, 6) for step in range(11)}
    if counted.keys() <= grid:
        return [(recall, counted.get(recall, 0)) for recall in sorted(grid)]
    if len(counted) <= _BINS_MAX:
        return sorted(counted.items())
    merged: dict[float, int] = {round(step / _BINS_MAX, 6): 0 for step in range(_BINS_MAX + 1)}
    for recall, queries in counted.items():
        # Downwards, so that only full recall is counted as full.
        merged[round(math.floor(recall * _BINS_MAX + 1e-9) / _BINS_MAX, 6)] += queries
    return sorted(merged.items())


def _series(store: str) -> str:
    return f"store-{store}" if store in ("faiss", "postgresql") else "store-other"


def _legend(plot: svg.Plot, stores: Sequence[str]) -> tuple[Markup, ...]:
    """A line sample and a name for each store, right of the top edge."""
    drawn: list[Markup] = []
    place = plot.x_end
    for store in reversed(stores):
        name = words.store_name(store)[:24]
        drawn.append(svg.label(name, place, 14, anchor="end", kind="legend"))
        # No text can be measured here: 7.6 units a letter suit the largest type.
        place -= 7.6 * len(name) + 6
        drawn.append(svg.path_line([(place - 22, 10), (place, 10)], kind=f"curve {_series(store)}"))
        place -= 34
    return tuple(drawn)


def _time_ticks(
    placed: Sequence[tuple[float, TimelinePoint]], x: svg.Scale
) -> list[tuple[float, str]]:
    if not placed:
        return []
    first, last = placed[0][0], placed[-1][0]
    form = "%H:%M" if last - first < 129_600 else "%d %b"
    steps = 4 if last > first else 0
    times = [first + (last - first) * step / max(steps, 1) for step in range(steps + 1)]
    return [(x(time), f"{datetime.fromtimestamp(time, UTC):{form}}") for time in times]


def _when_empty(plot: svg.Plot, filled: bool) -> tuple[Markup, ...]:
    if filled:
        return ()
    middle = (plot.left + plot.x_end) / 2
    return (svg.label("nothing measured yet", middle, (plot.top + plot.y_end) / 2, kind="empty"),)
