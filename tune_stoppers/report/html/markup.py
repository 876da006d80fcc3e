"""Small pieces of the page: numbers, times and names as people read them, escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from tune_stoppers.report.data.story import Story
from tune_stoppers.report.glyphs import Glyph
from tune_stoppers.report.html.svg import draw
from tune_stoppers.report.pictures.picture import Key, Picture
from tune_stoppers.report.scales import duration, short

LISTED = 6  # values of a hyperparameter, or columns of them, that are listed


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """Names with their values beside them; nothing where there are none."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows)
    return f"<dl>{items}</dl>" if items else ""


def cell(value: float, text: str | None = None) -> str:
    """A cell of a table with a number, or with `text` for it; a dash where it is NaN."""
    known = "" if math.isnan(value) else f"{value!r}"
    shown = (short(value) if text is None else text) if known else "–"
    return f'<td class="n" data-v="{known}">{escape(shown)}</td>'


def key_of(glyph: Glyph) -> str:
    """The glyph of a cause, for a legend."""
    return _key(f"m-{glyph.name}", f"mark k-{glyph.name}")


def figure(picture: Picture) -> str:
    """A picture with its caption and its legend; causes in it are buttons that hide trials."""
    items = "".join(f"<li>{_entry(index, key)}</li>" for index, key in enumerate(picture.key))
    if any(key.glyph for key in picture.key):
        items += '<li class="note">A click hides or shows.</li>'
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
    legend = f'<ul class="legend">{items}</ul>' if items else ""
    return f"<figure>{draw(picture)}{caption}</figure>{legend}"


def _entry(index: int, key: Key) -> str:
    if key.glyph is None:
        return _key(key.shape, "event") + escape(key.text)
    return (
        f'<button type="button" data-cause="{index}" aria-pressed="true">'
        f"{key_of(key.glyph)}{escape(key.text)}</button>"
    )


def _key(shape: str, look: str) -> str:
    return (
        '<svg class="key" viewBox="-8 -8 16 16" aria-hidden="true">'
        f'<use href="#{shape}" class="{look}"/></svg>'
    )


def time_of(story: Story, value: float) -> str:
    """A time in the unit of the story's clock."""
    return duration(value) if story.clock == "s" else count_of(round(value), "report")


def count_of(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def text_of(value: Any) -> str:
    """A hyperparameter's value."""
    if isinstance(value, float):
        return short(value)
    return "–" if value is None else str(value)
