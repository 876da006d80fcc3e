"""A story as one HTML page that needs nothing else: no network, no other file.

Every text of the user's is escaped. Beside that the page forbids whatever it does not hold itself:
its content security policy names its own style and script by their hashes, so that markup which
got in all the same could load and run nothing.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from tune_stoppers.report import glyphs as looks
from tune_stoppers.report.data.importance import by_chance, too_few
from tune_stoppers.report.data.story import Parameter, Story
from tune_stoppers.report.glyphs import Glyph, glyphs_of
from tune_stoppers.report.html.cards import cards
from tune_stoppers.report.html.charts import EVENTS, LEADERS, MOMENTS, SAMPLE, Charts
from tune_stoppers.report.html.markup import count_of, key_of
from tune_stoppers.report.html.svg import tag
from tune_stoppers.report.html.tables import endings_table, trials_table

SMALL = 0.62  # size of glyphs where there are many
SHAPES = {
    "would": '<circle r="6"/>',
    "dot": '<circle r="3.5"/>',
    "star": '<path d="M0 -8L2 -3 8 -3 3 1 5 7 0 3 -5 7 -3 1 -8 -3 -2 -3Z"/>',
    "e-resume": '<path d="M-2 -4L4 0L-2 4Z"/>',
    "e-restart": '<path d="M-4 3L-1.5 -3L1.5 3L4 -3"/>',
    "e-pause": '<path d="M-2 -4V4M2 -4V4"/>',
    "e-promotion": '<path d="M0 5V-4M-3.5 -1L0 -4.5L3.5 -1"/>',
    "e-rollback": '<path d="M5 0H-4M-1 -3.5L-4.5 0L-1 3.5"/>',
    "e-end": '<path d="M-3 -3L3 3M-3 3L3 -3"/>',
    "e-event": '<circle r="2.5"/>',
}
EXPLAINED = {
    "curves": "A line for each trial in the colour of its ending, the mark where it ended. The "
    "thick line is the best trial; the dotted one the best value of any trial up to that step.",
    "many": " Of {count} trials, the best {leaders} and some {sample} others, evenly over the "
    "ranking, are drawn; for all, the mark of the ending. Bands: the middle 50 % and 80 % of the "
    "trials still running at a step; dashed: their median.",
    "edge": " {count} values beyond the axis are drawn on its edge.",
    "would": " A ring: where the dry run would have stopped the trial.",
    "beyond": " Thin dots: how the recorded trial continued.",
    "timeline": "Each bar is a process of a trial, in the colour of its ending; rows are as many "
    "as ran at a time.",
    "crowded": " {count} pauses, restarts and other events are not marked here, as they would hide "
    "it: the table has them.",
    "rungs": " Dashed uprights: the rungs at which trials were compared.",
    "experiment": " Ray's time stamps are whole seconds: positions are right to about a second.",
    "parameters": "Each mark is a trial with its best value once it trained, on the worst edge if "
    "it diverged; those stopped early had less time to get good.",
    "strength": " The number beside a name: how much of the ranking of trials it explains by "
    "itself, from 0 to 1 (the correlation ratio over groups of trials alike in it, corrected for "
    "chance); the strongest first. With {count} trials a hyperparameter without any influence "
    "exceeds {chance:.2f} in about one of twenty sweeps.",
}


def write_page(story: Story, path: str | os.PathLike[str]) -> Path:
    """Write the page; the path as given. `OSError` where that cannot be done."""
    target = Path(path).expanduser()
    target.write_text(page(story), encoding="utf-8")
    return target


def page(story: Story) -> str:
    """The whole page."""
    style, script = _style(), _asset("page.js")
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}"
    title = f"{story.name}: {story.metric}"
    many = ' class="many"' if Charts(story, {}).many else ""
    head = (
        '<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>"
    )
    body = "\n".join(_body(story))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body{many}>\n{body}\n'
        '<div id="tip" role="tooltip" hidden=""></div>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def _body(story: Story) -> Iterator[str]:
    glyphs = glyphs_of(story)
    charts = Charts(story, glyphs)
    yield _definitions()
    yield _header(story)
    yield "<main>"
    yield f'<div class="cards">{cards(story)}</div>'
    if any(trial.curve for trial in story.trials):
        yield _section("Learning curves", charts.curves(), _curves_caption(story, charts))
        yield _legend(story, glyphs)
    if story.incumbent:
        yield _section("Best so far", charts.incumbent(), "A dot: a trial that took the lead.")
    if story.lanes:
        text = EXPLAINED["timeline"]
        text += EXPLAINED["experiment"] if story.source == "experiment" else ""
        crowded = charts.moments > MOMENTS
        text += EXPLAINED["crowded"].format(count=charts.moments) if crowded else ""
        yield _section("Who ran when", charts.timeline(), text)
        yield "" if crowded else _events_legend(story)
    yield endings_table(story, glyphs)
    panels = charts.parameters()
    if panels:
        yield _panels(story, panels)
    extras = dict.fromkeys(key for trial in story.trials for key in trial.extras)
    for key in extras:
        yield _section(key, charts.extra(key), "In the colours of the endings, as above.")
    yield trials_table(story, charts.number, glyphs)
    yield "</main>"


def _header(story: Story) -> str:
    swept = ", ".join(p.name for p in story.swept) or "no hyperparameter"
    kind = "A replay of" if story.source == "replay" else "A sweep of"
    goal = "lower" if story.mode == "min" else "higher"
    lead = f"{kind} {count_of(len(story.trials), 'trial')} over {swept}, judged by {story.metric}: "
    lead += f"{goal} is better."
    ran = f" Under: {story.rule}." if story.rule else ""
    return f'<header><h1>{escape(story.name)}</h1><p class="lead">{escape(lead + ran)}</p></header>'


def _curves_caption(story: Story, charts: Charts) -> str:
    text = EXPLAINED["curves"]
    if charts.many:
        facts = {"count": len(story.trials), "leaders": LEADERS, "sample": SAMPLE}
        text += EXPLAINED["many"].format(**facts)
    elif any(len(trial.beyond) > 1 for trial in story.trials):
        text += EXPLAINED["beyond"]
    if any(trial.would for trial in story.trials):
        text += EXPLAINED["would"]
    if story.rungs:
        text += EXPLAINED["rungs"]
    beyond = charts.beyond_the_axis()
    return text + (EXPLAINED["edge"].format(count=beyond) if beyond else "")


def _legend(story: Story, glyphs: dict[str, Glyph]) -> str:
    items = "".join(
        f"<li>{key_of(glyphs[cause])}{escape(cause)} ({len(trials)})</li>"
        for cause, trials in story.causes.items()
    )
    return f'<ul class="legend">{items}</ul>'


def _events_legend(story: Story) -> str:
    found = {
        (EVENTS.get(event.kind, "event"), event.kind if event.kind in EVENTS else "other event")
        for trial in story.trials
        for event in trial.events
    }
    found |= {
        (span.opening, {"resume": "continued", "restart": "went back"}[span.opening])
        for trial in story.trials
        for span in trial.spans
        if span.opening != "start"
    }
    items = "".join(
        f'<li><svg class="key" viewBox="-8 -8 16 16"><use href="#e-{name}" class="event"/></svg>'
        f"{escape(text)}</li>"
        for name, text in sorted(found)
    )
    return f'<ul class="legend">{items}</ul>' if items else ""


def _panels(story: Story, panels: Sequence[tuple[Parameter, str]]) -> str:
    figures = "".join(f"<figure>{picture}</figure>" for _, picture in panels)
    text, count, left = EXPLAINED["parameters"], story.judged, len(story.swept) - len(panels)
    if all(math.isnan(story.strength(parameter)) for parameter, _ in panels):
        text += f" {too_few(count)}"
    else:
        text += EXPLAINED["strength"].format(count=count, chance=by_chance(count))
    text += f" {count_of(left, 'further hyperparameter')} not shown." if left else ""
    return (
        f'<section><h2>Hyperparameters</h2><p class="note">{escape(text)}</p>'
        f'<div class="panels">{figures}</div></section>'
    )


def _section(title: str, picture: str, caption: str) -> str:
    return (
        f"<section><h2>{escape(title)}</h2><figure>{picture}"
        f"<figcaption>{escape(caption)}</figcaption></figure></section>"
    )


def _definitions() -> str:
    """The shapes, named for use all over the page."""
    shapes = [f'<g id="{name}">{shape}</g>' for name, shape in SHAPES.items()]
    for glyph in looks.ALL:
        path = tag("path", d=glyph.path)
        shapes.append(f'<g id="m-{glyph.name}">{path}</g>')
        shapes.append(f'<g id="n-{glyph.name}">{tag("g", path, transform=f"scale({SMALL})")}</g>')
    return f'<svg id="defs" aria-hidden="true"><defs>{"".join(shapes)}</defs></svg>'


def _style() -> str:
    """The style sheet with the colours of the glyphs on light and on dark ground."""
    light = "".join(f"--{glyph.name}: {glyph.light}; " for glyph in looks.ALL)
    dark = "".join(f"--{glyph.name}: {glyph.dark}; " for glyph in looks.ALL)
    uses = "".join(f".k-{glyph.name} {{ --k: var(--{glyph.name}); }}\n" for glyph in looks.ALL)
    return (
        f"{_asset('page.css')}:root {{ {light}}}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}\n{uses}"
    )


def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a content security policy names an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
