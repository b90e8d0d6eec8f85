"""The pieces that charts are drawn from: a titled SVG, scales, axes. No script, no style, no reference.

Colours and type come from the classes of ``style.css``, so that one drawing serves light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shadow.report.markup import Markup, element

__all__ = [
    "Plot",
    "Scale",
    "decades",
    "drawing",
    "horizontal_grid",
    "label",
    "linear",
    "logarithmic",
    "path_line",
    "vertical_ticks",
]

Scale = Callable[[float], float]

# Of the largest type that style.css sets ticks in, in SVG units.
_CHARACTER_WIDTH = 7.5


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing's size and the box inside it that data is drawn in, in SVG units."""

    width: float = 440
    height: float = 250
    left: float = 50
    right: float = 14
    top: float = 30
    bottom: float = 42

    @property
    def x_end(self) -> float:
        """The box's right edge."""
        return self.width - self.right

    @property
    def y_end(self) -> float:
        """The box's lower edge."""
        return self.height - self.bottom


def drawing(
    *children: str, ident: str, title: str, description: str, width: float, height: float, kind: str
) -> Markup:
    """An SVG that a screen reader announces by its title and description.

    ``ident`` must be unique on the page: it names the two elements that the drawing is labelled by.
    """
    return element(
        "svg",
        element("title", title, id=f"{ident}-title"),
        element("desc", description, id=f"{ident}-desc"),
        *children,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        class_=kind,
        role="img",
        aria_labelledby=f"{ident}-title {ident}-desc",
    )


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Maps [low, high] to [start, end]; values outside stay at the edge."""
    span = (high - low) or 1.0
    return lambda value: round(start + (end - start) * min(max((value - low) / span, 0.0), 1.0), 2)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """Like :func:`linear` over the logarithm; ``low`` must be above zero."""
    inner = linear(math.log10(low), math.log10(high), start, end)
    return lambda value: inner(math.log10(max(value, low)))


def decades(low: float, high: float) -> tuple[float, ...]:
    """Round values (1, 2, 5 times a power of ten) that enclose [low, high]; powers alone if it is wide."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 3 else (1,)
    values = [float(f"{step}e{power}") for power in range(first, last + 1) for step in steps]
    begin = max((i for i, value in enumerate(values) if value <= low), default=0)
    end = min((i for i, value in enumerate(values) if value >= high), default=len(values) - 1)
    return tuple(values[begin : max(end, begin + 1) + 1])


def label(text: str, x: float, y: float, *, anchor: str = "middle", kind: str = "tick") -> Markup:
    """A piece of text in a drawing."""
    return element("text", text, x=x, y=y, text_anchor=anchor, class_=kind)


def path_line(points: Sequence[tuple[float, float]], *, kind: str) -> Markup:
    """A line through points that are already in SVG units."""
    return element("polyline", points=" ".join(f"{x:g},{y:g}" for x, y in points), class_=kind)


def horizontal_grid(plot: Plot, y: Scale, marks: Sequence[tuple[float, str]]) -> tuple[Markup, ...]:
    """Grid lines across the box at each (value, text), with the text to their left."""
    drawn: list[Markup] = []
    for value, text in marks:
        level = y(value)
        drawn.append(
            element("line", x1=plot.left, x2=plot.x_end, y1=level, y2=level, class_="grid")
        )
        drawn.append(label(text, plot.left - 6, level + 4, anchor="end"))
    return tuple(drawn)


def vertical_ticks(
    plot: Plot, marks: Sequence[tuple[float, str]], *, name: str
) -> tuple[Markup, ...]:
    """Ticks below the box at each (x in SVG units, text), and the axis's name under them."""
    drawn = [
        element("line", x1=plot.left, x2=plot.x_end, y1=plot.y_end, y2=plot.y_end, class_="axis")
    ]
    for x, text in marks:
        drawn.append(element("line", x1=x, x2=x, y1=plot.y_end, y2=plot.y_end + 4, class_="axis"))
        # A wide text at the edge would be cut off in the middle.
        cut = x + len(text) * _CHARACTER_WIDTH / 2 > plot.width
        place, anchor = (plot.width, "end") if cut else (x, "middle")
        drawn.append(label(text, place, plot.y_end + 17, anchor=anchor))
    drawn.append(label(name, (plot.left + plot.x_end) / 2, plot.height - 6, kind="axis-name"))
    return tuple(drawn)
