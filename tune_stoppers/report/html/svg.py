"""Pictures as inline SVG of any width: positions across are per cent, letters keep their size.

Lines are drawn in an inner picture that is stretched to the width; glyphs and labels are outside
of it, so that they are not. The roles of marks are classes, whose looks `page.css` gives.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import groupby
from typing import Any

from tune_stoppers.report import glyphs
from tune_stoppers.report.glyphs import Glyph
from tune_stoppers.report.pictures.picture import (
    Bar,
    Label,
    Line,
    Mark,
    Picture,
    Rule,
    TrialRef,
)
from tune_stoppers.report.scales import cut

TOP, BOTTOM = 32, 34  # pixels above and below the plot: the labels of the axes
GUTTER = 46  # pixels that the page leaves to the left of a plot for its labels
ACROSS = 1000  # units of the inner picture from left to right
MOST = 160  # points of a line that are drawn: more cannot be told apart
LETTERS, NAMES = 36, 6  # of names below the axis of a panel: letters in all, names at most
WIDE = 5  # times as many where a picture has the whole width
SMALL = 0.62  # size of small glyphs
THINNEST = 0.0005  # of a bar, as a share of the width

Point = tuple[float, float]  # positions from 0 to 1, NaN for none


def tag(name: str, content: str = "", **attributes: Any) -> str:
    """An element; `content` is markup, attributes are escaped, those that are None left out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{given}>{content}</{name}>" if content else f"<{name}{given}/>"


def across(position: float) -> str:
    """A position from 0 to 1 as per cent of the width."""
    return f"{100 * position:.2f}".rstrip("0").rstrip(".") + "%"


def definitions() -> str:
    """The shapes, named for use all over the page; those of endings in two sizes."""
    shapes = [tag("path", id=name, d=path) for name, (path, _) in glyphs.SHAPES.items()]
    for glyph in glyphs.ALL:
        shapes.append(tag("path", id=f"m-{glyph.name}", d=glyph.path))
        shapes.append(tag("path", id=f"n-{glyph.name}", d=glyph.path, transform=f"scale({SMALL})"))
    return f'<svg id="defs" aria-hidden="true"><defs>{"".join(shapes)}</defs></svg>'


def draw(picture: Picture) -> str:
    """The picture, `role`, `k-GLYPH` and `best` as classes, the trial's number as `data-t`."""
    marks, height = picture.marks, picture.height
    top = TOP if picture.y.name else 0
    lines = [_line(picture, m) for m in marks if isinstance(m, (Line, Rule))]
    inner = tag(
        "svg",
        "".join(lines),
        y=top,
        width="100%",
        height=f"{height:g}",
        viewBox=f"0 0 {ACROSS} {height:g}",
        preserveAspectRatio="none",
        overflow="visible",
    )
    over = [_bar(picture, m) for m in marks if isinstance(m, Bar)]
    over += _glyphs(picture, [m for m in marks if isinstance(m, Mark)])
    over += [_label(picture, m) for m in marks if isinstance(m, Label)]
    over += [_rule_label(picture, m) for m in marks if isinstance(m, Rule) and m.text]
    layer = tag("g", "".join(over), transform=f"translate(0 {top})")
    grid, labels = _axes(picture, top)
    content = tag("title", escape(picture.about)) + grid + inner + labels + layer
    size = f"{top + height + BOTTOM:.0f}"
    kind = "plot parallel" if picture.parallel else "plot"
    return tag("svg", content, class_=kind, height=size, role="img")


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most about `MOST` points at even distances, the last among them, and all gaps."""
    stride = math.ceil(len(points) / MOST)
    if stride <= 1:
        return list(points)
    last = len(points) - 1
    return [p for i, p in enumerate(points) if i % stride == 0 or i == last or math.isnan(p[1])]


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


def _axes(picture: Picture, top: float) -> tuple[str, str]:
    """The grid, and the labels and names of both axes."""
    x, y, height = picture.x, picture.y, picture.height
    floor = top + height
    grid = [tag("line", class_="axis", x2="100%", y1=f"{floor:g}", y2=f"{floor:g}")]
    labels = []
    for value, text in y.ticks:
        level = top + height * (1 - y.scale.position(value))
        grid.append(tag("line", class_="grid", x2="100%", y1=f"{level:.1f}", y2=f"{level:.1f}"))
        labels.append(_words(text, "tick", x=-6, y=f"{level + 4:.1f}", text_anchor="end"))
    names = x.labels == "names"
    wide = 1 if picture.panel else WIDE
    every = math.ceil(len(x.ticks) / (wide * NAMES)) if names else 1
    for value, text in x.ticks[::every]:
        at = x.scale.position(value)
        anchor = "end" if at > 0.96 else "middle"
        shown = cut(text, max(wide * LETTERS // len(x.ticks), 5)) if names else text
        labels.append(
            _words(shown, "tick", x=across(at), y=f"{floor + 14:.1f}", text_anchor=anchor)
        )
    labels.append(_words(y.name, "name", x=-GUTTER, y=12) if y.name else "")
    if x.name:
        labels.append(_words(x.name, "name", x="100%", y=f"{floor + 29:.1f}", text_anchor="end"))
    return "".join(grid), "".join(labels)


def _line(picture: Picture, mark: Line | Rule) -> str:
    x, y = picture.x.scale, picture.y.scale
    if isinstance(mark, Rule):
        at = (x if mark.upright else y).position(mark.at)
        ends = [(at, 0.0), (at, 1.0)] if mark.upright else [(0.0, at), (1.0, at)]
        return tag("path", d=path(ends, picture.height), class_=mark.role)
    points = thinned([(x.position(a), y.position(b)) for a, b in mark.points])
    kind = f"{'c ' if mark.trial else ''}{mark.role}"
    return tag(
        "path",
        d=path(points, picture.height, steps=mark.steps),
        class_=_look(kind, mark.trial),
        data_t=_number(mark.trial),
    )


def _bar(picture: Picture, bar: Bar) -> str:
    x = picture.x.scale
    begin, width = x.position(bar.begin), x.position(bar.end) - x.position(bar.begin)
    return tag(
        "rect",
        x=across(begin),
        y=f"{_down(picture, bar.y + bar.thickness / 2):.1f}",
        width=across(max(width, THINNEST)),
        height=f"{_down(picture, bar.y) - _down(picture, bar.y + bar.thickness):.1f}",
        class_=_look(bar.role, bar.trial, bar.glyph),
        data_t=_number(bar.trial),
    )


def _glyphs(picture: Picture, marks: Sequence[Mark]) -> Iterator[str]:
    """Marks that look alike and follow each other share a group, which keeps large pages light."""
    alike = groupby(marks, key=lambda m: (m.shape, _look(m.role, m.trial)))
    for (shape, look), group in alike:
        name = shape
        if shape not in glyphs.SHAPES:
            name = f"{'n' if picture.small else 'm'}-{shape}"
        uses = [
            tag(
                "use",
                href=f"#{name}",
                x=across(picture.x.scale.position(mark.x)),
                y=f"{_down(picture, mark.y):.1f}",
                data_t=_number(mark.trial),
            )
            for mark in group
        ]
        yield tag("g", "".join(uses), class_=look)


def _label(picture: Picture, label: Label) -> str:
    aside = 4 if label.role == "tick" else 17 if label.below else -10
    down = _down(picture, label.y) + aside
    return _words(
        label.text,
        label.role,
        x=across(picture.x.scale.position(label.x)),
        y=f"{down:.1f}",
        dx={"start": 8, "middle": None, "end": -8}[label.side],
        text_anchor=label.side,
    )


def _rule_label(picture: Picture, rule: Rule) -> str:
    if not rule.upright:
        level = f"{_down(picture, rule.at) - 4:.1f}"
        return _words(rule.text, "ruled", x="100%", y=level, text_anchor="end")
    at = picture.x.scale.position(rule.at)
    anchor = "end" if at > 0.9 else "start"
    return _words(rule.text, "ruled", x=across(at), y=-9, text_anchor=anchor)


def _down(picture: Picture, value: float) -> float:
    """Pixels below the top of the plot."""
    return picture.height * (1 - picture.y.scale.share(value))


def _look(role: str, ref: TrialRef | None, glyph: Glyph | None = None) -> str:
    glyph = ref.glyph if ref else glyph
    return f"{role}{f' k-{glyph.name}' if glyph else ''}{' best' if ref and ref.best else ''}"


def _number(ref: TrialRef | None) -> int | None:
    return ref.number if ref else None


def _words(text: str, role: str, **attributes: Any) -> str:
    return tag("text", escape(text), class_=role, **attributes)
