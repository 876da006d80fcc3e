"""Pictures as inline SVG of any width: positions across are per cent, letters keep their size.

Lines are drawn in an inner picture that is stretched to the width; glyphs and labels are outside
of it, so that they are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

from tune_stoppers.report.scales import Scale, short

TOP, BOTTOM = 32, 34  # pixels above and below the plot: the labels of the axes
GUTTER = 46  # pixels that the page leaves to the left of a plot for its labels
ACROSS = 1000  # units of the inner picture from left to right
MOST = 160  # points of a line that are drawn: more cannot be told apart

Point = tuple[float, float]  # positions from 0 to 1, NaN for none


def tag(name: str, content: str = "", **attributes: Any) -> str:
    """An element; `content` is markup, attributes are escaped, those that are None left out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{given}>{content}</{name}>" if content else f"<{name}{given}/>"


def words(text: str, **attributes: Any) -> str:
    """A label."""
    return tag("text", escape(text), **attributes)


def across(position: float) -> str:
    """A position from 0 to 1 as per cent of the width."""
    return f"{100 * position:.2f}".rstrip("0").rstrip(".") + "%"


def thinned(points: Sequence[Point], keep: Iterable[int] = ()) -> list[Point]:
    """At most about `MOST` points at even distances, the last and those to `keep` among them."""
    stride = math.ceil(len(points) / MOST)
    if stride <= 1:
        return list(points)
    kept = {*range(0, len(points), stride), len(points) - 1, *keep}
    return [points[index] for index in sorted(kept)]


def path(points: Iterable[Point], height: float, *, steps: bool = False) -> str:
    """The data of a line through positions; broken where one is NaN. `steps`: no slopes."""
    parts: list[str] = []
    down, level = False, 0.0
    for x, y in points:
        if math.isnan(x) or math.isnan(y):
            down = False
            continue
        at = f"{ACROSS * x:.1f} {height * (1 - y):.1f}"
        if down and steps:
            parts.append(f"L{ACROSS * x:.1f} {level:.1f}")
        parts.append(("L" if down else "M") + at)
        down, level = True, height * (1 - y)
    return "".join(parts)


def line(points: Iterable[Point], height: float, *, steps: bool = False, **attributes: Any) -> str:
    """A line through positions."""
    return tag("path", d=path(points, height, steps=steps), **attributes)


def glyph(name: str, x: float, y: float, **attributes: Any) -> str:
    """A shape defined in the page, at a position across and pixels down."""
    return tag("use", href=f"#{name}", x=across(x), y=f"{y:.1f}", **attributes)


def plot(
    x: Scale,
    y: Scale,
    height: float,
    lines: Iterable[str] = (),
    glyphs: Iterable[str] = (),
    *,
    about: str,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[tuple[float, str]] | None = None,
    y_text: Callable[[float], str] = short,
    y_count: int = 5,
) -> str:
    """Axes with lines (in the inner picture) and glyphs (pixels down from the plot's top)."""
    if x_ticks is None:
        x_ticks = [(x.position(value), short(value)) for value in x.ticks()]
    grid, labels = [], []
    for value in y.ticks(y_count):
        level = TOP + height * (1 - y.position(value))
        grid.append(tag("line", class_="grid", x2="100%", y1=f"{level:.1f}", y2=f"{level:.1f}"))
        labels.append(
            words(y_text(value), class_="tick", x=-6, y=f"{level + 4:.1f}", text_anchor="end")
        )
    for position, text in x_ticks:
        labels.append(
            words(
                text,
                class_="tick",
                x=across(position),
                y=TOP + height + 14,
                text_anchor=side(position),
            )
        )
    floor = TOP + height
    frame = tag("line", class_="axis", x2="100%", y1=floor, y2=floor)
    inner = tag(
        "svg",
        "".join(lines),
        y=TOP,
        width="100%",
        height=height,
        viewBox=f"0 0 {ACROSS} {height:g}",
        preserveAspectRatio="none",
        overflow="visible",
    )
    layer = tag("g", "".join(glyphs), transform=f"translate(0 {TOP})")
    titles = words(y_label, class_="name", x=-GUTTER, y=12)
    titles += words(x_label, class_="name", x="100%", y=floor + 29, text_anchor="end")
    content = tag("title", escape(about)) + "".join(grid) + frame + inner + "".join(labels)
    size = TOP + height + BOTTOM
    return tag("svg", content + titles + layer, class_="plot", height=size, role="img")


def side(position: float) -> str:
    """Where a label is held: those at the right edge stay inside."""
    return "end" if position > 0.96 else "middle"
