"""The tables of the page: causes of ending, and all trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from tune_stoppers.report.data.story import Story, TrialStory, is_number
from tune_stoppers.report.data.totals import known
from tune_stoppers.report.glyphs import glyphs_of
from tune_stoppers.report.html.markup import LISTED, cell, key_of, text_of, time_of
from tune_stoppers.report.html.svg import across, tag
from tune_stoppers.report.pictures.endings import amounts
from tune_stoppers.report.pictures.picture import Who, people
from tune_stoppers.report.scales import short


def endings_table(story: Story) -> str:
    """A table of causes with what they spent and saved."""
    found, glyphs = amounts(story), glyphs_of(story)
    most = max((amount.spent + amount.saved for amount in found), default=0.0)
    rows = []
    for cause, trials, spent, saved in found:
        width, rest = (spent / most, saved / most) if most else (0.0, 0.0)
        look = f"k-{glyphs[cause].name}"
        bar = tag("rect", class_=f"bar {look}", width=across(width), height=14)
        bar += tag("rect", class_=f"spare {look}", x=across(width), width=across(rest), height=14)
        rows.append(
            f'<tr><td>{key_of(glyphs[cause])}{escape(cause)}</td><td class="n">{len(trials)}</td>'
            f'<td class="n">{time_of(story, spent)}</td><td class="n">{_saved(story, trials)}</td>'
            f'<td class="meter">{tag("svg", bar)}</td></tr>'
        )
    head = (
        '<tr><th>cause</th><th class="n">trials</th><th class="n">spent</th>'
        '<th class="n">saved</th><th>spent and saved</th></tr>'
    )
    return (
        '<section><h2>How trials ended</h2><div class="scroll"><table class="endings">'
        f"<thead>{head}</thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _saved(story: Story, trials: Sequence[TrialStory]) -> str:
    """What was saved on them; a dash where that is known of none."""
    values = [trial.saved for trial in trials]
    return "–" if all(map(math.isnan, values)) else time_of(story, known(values))


def trials_table(story: Story) -> str:
    """The table of all trials, the best first; a click on a column sorts it."""
    who = people(story)
    names = [parameter.name for parameter in story.swept]
    numeric = {parameter.name for parameter in story.parameters if parameter.numeric}
    eventful = any(trial.events for trial in story.trials)
    columns = [("trial", ""), (f"best {story.metric}", "n"), (f"at {story.time_attr}", "n")]
    columns += [("ended by", ""), ("why", ""), ("last", "n"), ("reports", "n")]
    columns += [("spent", "n")] if story.clock == "s" else []
    columns += [("events", "")] if eventful else []
    columns += [(name, "n" if name in numeric else "") for name in names]
    head = "".join(
        f'<th class="{kind}" scope="col"><button type="button">{escape(name)}</button></th>'
        for name, kind in columns
    )
    ranked = {trial.trial_id: rank for rank, trial in enumerate(story.ranked)}
    last = len(ranked)
    order = sorted(story.trials, key=lambda trial: ranked.get(trial.trial_id, last))
    rows = "".join(_row(story, trial, who[trial.trial_id], names, eventful) for trial in order)
    return (
        '<section><h2>All trials</h2><p class="note">The best first; a click on a column sorts, '
        "one on a row picks its trial out in every picture (Escape lets go).</p>"
        f'<div class="scroll"><table class="trials"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _row(story: Story, trial: TrialStory, who: Who, names: Sequence[str], eventful: bool) -> str:
    ending = trial.ending
    would = f" Dry run, at {short(trial.would.step)}: {trial.would.reason}" if trial.would else ""
    cause = escape(ending.cause)
    cells = [f'<td class="id">{escape(trial.trial_id)}</td>', cell(trial.best_value)]
    cells.append(cell(trial.best_step))
    cells.append(f'<td class="id" data-v="{cause}">{key_of(who.glyph)}{cause}</td>')
    cells.append(f'<td class="why">{escape(ending.reason + would)}</td>')
    cells += [cell(trial.last_step), cell(float(trial.reports))]
    if story.clock == "s":
        cells.append(cell(trial.spent, time_of(story, trial.spent)))
    if eventful:
        cells.append(f"<td>{escape(_events(trial))}</td>")
    for name in names:
        value = trial.config.get(name)
        if is_number(value):
            cells.append(cell(float(value)))
        else:
            cells.append(f"<td>{escape('' if value is None else text_of(value))}</td>")
    best = ' class="best"' if who.best else ""
    tip = escape(_tip(story, trial))
    return f'<tr{best} data-t="{who.number}" data-tip="{tip}">{"".join(cells)}</tr>'


def _tip(story: Story, trial: TrialStory) -> str:
    """What is shown beside the pointer."""
    text = [f"{trial.trial_id}: {trial.ending.cause}"]
    text.append(f"best {short(trial.best_value)} at {short(trial.best_step)}")
    text += [f"{p.name} = {text_of(trial.config.get(p.name))}" for p in story.swept[:LISTED]]
    text += [f"continued with {name} = {text_of(v)}" for name, v in trial.last_config.items()][
        :LISTED
    ]
    text += [f"{event.kind} at {short(event.step)}" for event in trial.events[:LISTED]]
    return "\n".join([*text, trial.ending.reason])


def _events(trial: TrialStory) -> str:
    kinds = [event.kind for event in trial.events]
    return ", ".join(f"{kinds.count(kind)} × {kind}" for kind in dict.fromkeys(kinds))
