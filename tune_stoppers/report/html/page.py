"""A story as one HTML page that needs nothing else: no network, no other file.

Every text of the user's is escaped. Beside that the page forbids whatever it does not hold itself:
its content security policy names its own style and script by their hashes, so that markup which
got in all the same could load and run nothing.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path

from tune_stoppers.report import glyphs as looks
from tune_stoppers.report import pictures
from tune_stoppers.report.data.story import Story
from tune_stoppers.report.html.cards import cards
from tune_stoppers.report.html.markup import count_of, figure
from tune_stoppers.report.html.svg import definitions, draw
from tune_stoppers.report.html.tables import card_labels, endings_table, rungs_table, trials_table
from tune_stoppers.report.pictures.curves import MANY
from tune_stoppers.report.pictures.picture import Picture

PANELS, PANELS_OF_MANY = 12, 8  # of hyperparameters
NAMED, LONG = 4, 90  # hyperparameters named in the first sentence; letters of a rule shown at once


def write_page(story: Story, path: str | os.PathLike[str]) -> Path:
    """Write the page; the path as given. `OSError` where that cannot be done."""
    target = Path(path).expanduser()
    target.write_text(page(story), encoding="utf-8")
    return target


def page(story: Story) -> str:
    """The whole page."""
    style, script = _style() + card_labels(story), _asset("page.js")
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}"
    title = f"{story.name}: {story.metric}"
    many = ' class="many"' if len(story.trials) > MANY else ""
    head = (
        '<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>"
    )
    body = "\n".join(_body(story))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body{many}>\n{body}\n'
        '<div id="shown" role="status" hidden=""><span></span> '
        '<button type="button">Show all</button></div>\n'
        '<div id="tip" role="tooltip" hidden=""></div>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def _body(story: Story) -> Iterator[str]:
    yield definitions()
    yield _header(story)
    yield "<main>"
    yield f'<div class="cards">{cards(story)}</div>'
    if any(trial.curve for trial in story.trials):
        yield _section(pictures.curves(story))
        yield rungs_table(story)
    if story.incumbent:
        yield _section(pictures.incumbent(story))
    if story.lanes:
        yield _section(pictures.timeline(story))
    yield endings_table(story)
    if story.judged:
        yield _panels(story)
        yield _parallel(story)
    for key in dict.fromkeys(key for trial in story.trials for key in trial.extras):
        yield _section(pictures.metric_curves(story, key))
    yield trials_table(story)
    yield "</main>"


def _header(story: Story) -> str:
    """The name, what this is in a sentence, and the rule: a long one behind a click."""
    swept, kind = story.swept, "A replay" if story.source == "replay" else "A sweep"
    over = count_of(len(swept), "hyperparameter")
    if 0 < len(swept) <= NAMED:
        over = " and ".join(filter(None, [", ".join(p.name for p in swept[:-1]), swept[-1].name]))
    goal = "lower" if story.mode == "min" else "higher"
    lead = f"{kind} of {count_of(len(story.trials), 'trial')} over {over}. "
    lead += f"Judged by {story.metric}; {goal} is better."
    rule = f"<p>Rule: {escape(story.rule)}.</p>" if story.rule else ""
    if len(story.rule) > LONG:
        name = re.split(r"[ (]", story.rule)[0]
        rule = f"<details><summary>Rule: {escape(name)}, in full</summary>{rule}</details>"
    lead = f'<p class="lead">{escape(lead)}</p>'
    return f'<header><h1>{escape(story.name)}</h1>{lead}<div class="lead">{rule}</div></header>'


def _panels(story: Story) -> str:
    """What trials came to against each hyperparameter, the most telling first."""
    most = PANELS_OF_MANY if len(story.trials) > MANY else PANELS
    shown = [pictures.scatter(story, parameter) for parameter in story.swept[:most]]
    if not shown:
        return ""
    text, left = shown[0].caption, len(story.swept) - len(shown)
    text += f" {count_of(left, 'further hyperparameter')} not shown." if left else ""
    figures = "".join(f"<figure>{draw(picture)}</figure>" for picture in shown)
    return (
        f'<section><h2>Hyperparameters</h2><p class="note">{escape(text)}</p>'
        f'<div class="panels">{figures}</div></section>'
    )


def _parallel(story: Story) -> str:
    """All hyperparameters at once; nothing where there is one alone. It scrolls where narrow."""
    if len(story.swept) < 2:
        return ""
    picture = pictures.parallel(story)
    return (
        f'<section><h2>{escape(picture.title)}</h2><div class="scroll"><figure>{draw(picture)}'
        f'</figure></div><p class="note">{escape(picture.caption)}</p></section>'
    )


def _section(picture: Picture) -> str:
    anchor = escape(picture.title.lower().replace(" ", "-"))
    return f'<section id="{anchor}"><h2>{escape(picture.title)}</h2>{figure(picture)}</section>'


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
