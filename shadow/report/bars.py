"""Small bars that stand in a table: a figure's progress towards its threshold, a share of a whole."""

from __future__ import annotations

from shadow.report import svg, words
from shadow.report.markup import Markup, element
from shadow.report.model import Figure

__all__ = ["progress", "share_bar"]


def progress(figure: Figure, *, ident: str) -> Markup:
    """How far the lower bound has come towards the threshold; the mean is the dot ahead of it."""
    width, height, left, right, middle = 230.0, 40.0, 4.0, 226.0, 13.0
    # The threshold stands at three quarters of the bar, whatever it is.
    floor = max(0.0, 1 - 4 * (1 - figure.threshold)) if figure.threshold < 1 else 0.8
    x = svg.linear(floor, 1.0, left, right)
    bound, goal = figure.lower_bound, x(figure.threshold)
    state = "passed" if figure.passed else "waiting"
    drawn = [
        element("rect", x=left, y=middle - 5, width=right - left, height=10, rx=2, class_="track")
    ]
    if bound is not None:
        wide = max(x(bound) - left, 2.0)
        drawn.append(
            element(
                "rect", x=left, y=middle - 5, width=wide, height=10, rx=2, class_=f"fill {state}"
            )
        )
    drawn.append(element("line", x1=goal, x2=goal, y1=middle - 10, y2=middle + 10, class_="goal"))
    if figure.mean is not None:
        drawn.append(element("circle", cx=x(figure.mean), cy=middle, r=4, class_="mean-dot"))
    ends = ((left, floor, "start"), (goal, figure.threshold, "middle"), (right, 1.0, "end"))
    drawn += [
        svg.label(f"{value:.3f}".rstrip("0").rstrip("."), place, 37, anchor=anchor)
        for place, value, anchor in ends
        if anchor != "end" or right - goal > 30
    ]
    return svg.drawing(
        *drawn,
        ident=ident,
        title=f"{words.figure_title(figure)}: {'passed' if figure.passed else 'not passed'}",
        description=f"Lower bound {words.share(bound)}, mean {words.share(figure.mean)}, "
        f"threshold {words.share(figure.threshold)}.",
        width=width,
        height=height,
        kind="progress",
    )


def share_bar(part: float, *, ident: str, title: str) -> Markup:
    """A plain horizontal bar for a share of a whole."""
    wide = round(max(min(part, 1.0), 0.0) * 120, 2)
    return svg.drawing(
        element("rect", x=0, y=3, width=120, height=8, rx=2, class_="track"),
        element("rect", x=0, y=3, width=wide, height=8, rx=2, class_="bar"),
        ident=ident,
        title=title,
        description=words.percent(part),
        width=120,
        height=14,
        kind="share-bar",
    )
