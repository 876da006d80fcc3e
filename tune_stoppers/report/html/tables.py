"""The tables of the page: causes of ending, and all trials."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from typing import NamedTuple

from tune_stoppers.journal.lines import STARTED
from tune_stoppers.report.data.rungs import rungs_of
from tune_stoppers.report.data.story import Story, TrialStory, is_number
from tune_stoppers.report.data.totals import known
from tune_stoppers.report.glyphs import glyphs_of
from tune_stoppers.report.html.markup import LISTED, cell, key_of, text_of, time_of
from tune_stoppers.report.html.svg import across, tag
from tune_stoppers.report.pictures.endings import amounts
from tune_stoppers.report.pictures.picture import TrialRef, trial_refs
from tune_stoppers.report.scales import short

RUNGS = (
    "{metric} of trials at their first report at a rung or after it: the best with which one was "
    "stopped there, the worst with which one continued. Reports: of all trials, up to that one of "
    "each. Under a dry run: who would have been stopped."
)
TRIALS = (
    "The best first; a click on a column sorts, one on a row picks its trial out in every picture "
    "(Escape lets go)."
)


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


def rungs_table(story: Story) -> str:
    """A table of rungs with who came, who was stopped there, and at which values."""
    rows = rungs_of(story)
    if not rows:
        return ""
    head = [story.time_attr, "trials that came", "stopped there", "best of those"]
    head += ["worst that continued", "stopped before the next", "reports up to here"]
    points = sum(len(trial.curve) for trial in story.trials)
    body = "".join(
        f"<tr>{cell(row.step)}{cell(float(row.came))}{cell(float(row.stopped))}"
        f"{cell(row.best_stopped)}{cell(row.worst_continued)}{cell(float(row.later))}"
        f"{cell(float(row.reports), f'{row.reports:,} ({row.reports / points:.0%})')}</tr>"
        for row in rows
    )
    heads = "".join(f'<th class="n">{escape(name)}</th>' for name in head)
    return (
        f'<section><h2>Rungs</h2><p class="note">{escape(RUNGS.format(metric=story.metric))}</p>'
        f'<div class="scroll"><table class="rungs"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></section>"
    )


class Column(NamedTuple):
    """A column of the table of all trials."""

    name: str
    kind: str  # its class: n for numbers
    cell: Callable[[TrialStory, TrialRef], str]
    unit: str = ""  # of its numbers, which a CSV's header names


def trials_table(story: Story) -> str:
    """The table of all trials, the best first; a click on a column sorts it."""
    refs, columns = trial_refs(story), _columns(story)
    head = "".join(
        f'<th class="{column.kind}" scope="col"{_in_csv(column)}><button type="button">'
        f"{escape(column.name).replace('_', '_<wbr>')}</button></th>"
        for column in columns
    )
    causes = {cause: index for index, cause in enumerate(story.causes)}
    ranked = {trial.trial_id: rank for rank, trial in enumerate(story.ranked)}
    rows = []
    for trial in sorted(story.trials, key=lambda t: ranked.get(t.trial_id, len(ranked))):
        ref = refs[trial.trial_id]
        cells = "".join(column.cell(trial, ref) for column in columns)
        best = ' class="best"' if ref.best else ""
        rows.append(
            f'<tr{best} data-t="{ref.number}" data-c="{causes[trial.ending.cause]}" '
            f'data-tip="{escape(_tip(story, trial))}">{cells}</tr>'
        )
    return (
        f'<section><h2>All trials</h2><p class="note">{TRIALS} '
        '<button type="button" id="csv">Download CSV</button></p>'
        f'<div class="scroll"><table class="trials"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _in_csv(column: Column) -> str:
    return f' data-v="{escape(f"{column.name}_{column.unit}")}"' if column.unit else ""


def card_labels(story: Story) -> str:
    """Style that names the cells of a trial where the table is shown as cards."""
    rules = "".join(
        f'.trials td:nth-child({index}):before{{content:"{_in_css(column.name)}"}}'
        for index, column in enumerate(_columns(story), start=1)
    )
    return f"@media (max-width: 720px) {{ {rules} }}"


def _in_css(text: str) -> str:
    """A text within a string of a style sheet: whatever could end it is written as its number."""
    return "".join(
        c if c.isascii() and (c.isalnum() or c in " _-./") else f"\\{ord(c):06x}" for c in text
    )


def _columns(story: Story) -> list[Column]:
    """What sums up a trial, its hyperparameters and why it ended, then the details."""
    columns = [
        Column("trial", "", lambda t, _: f'<td class="id">{escape(t.trial_id)}</td>'),
        Column(f"best {story.metric}", "n", lambda t, _: cell(t.best_value)),
        Column(f"at {story.time_attr}", "n", lambda t, _: cell(t.best_step)),
        Column("ended by", "", _cause),
    ]
    for parameter in story.swept:
        kind = "n" if parameter.numeric else ""
        columns.append(Column(parameter.name, kind, partial(_value, parameter.name)))
    columns.append(Column("why", "", _why))
    columns.append(Column("last", "n", lambda t, _: cell(t.last_step)))
    columns.append(Column("reports", "n", lambda t, _: cell(float(t.reports))))
    if story.clock == "s":
        columns.append(Column("spent", "n", partial(_spent, story), "s"))
    if any(_events(trial) for trial in story.trials):
        columns.append(
            Column("events", "", lambda t, _: f'<td class="id">{escape(_events(t))}</td>')
        )
    return columns


def _spent(story: Story, trial: TrialStory, ref: TrialRef) -> str:
    return cell(trial.spent, time_of(story, trial.spent))


def _cause(trial: TrialStory, ref: TrialRef) -> str:
    cause = escape(trial.ending.cause)
    return f'<td class="id" data-v="{cause}"><span>{key_of(ref.glyph)}{cause}</span></td>'


def _value(name: str, trial: TrialStory, ref: TrialRef) -> str:
    value = trial.config.get(name)
    if is_number(value):
        return cell(float(value))
    return f"<td>{escape('' if value is None else text_of(value))}</td>"


def _why(trial: TrialStory, ref: TrialRef) -> str:
    would = trial.would
    dry = f" Dry run, at {short(would.step)}: {would.reason}" if would else ""
    return f'<td class="why">{escape(trial.ending.reason + dry)}</td>'


def _tip(story: Story, trial: TrialStory) -> str:
    """What is shown beside the pointer, before the reason, which the table has."""
    text = [f"{trial.trial_id}: {trial.ending.cause}"]
    text.append(f"best {short(trial.best_value)} at {short(trial.best_step)}")
    text += [f"{p.name} = {text_of(trial.config.get(p.name))}" for p in story.swept[:LISTED]]
    text += [f"continued with {name} = {text_of(v)}" for name, v in trial.last_config.items()][
        :LISTED
    ]
    text += [f"{event.kind} at {short(event.step)}" for event in trial.events[:LISTED]]
    return "\n".join(text)


def _events(trial: TrialStory) -> str:
    """What happened to it, and how often; that it started goes without saying."""
    kinds = Counter(event.kind for event in trial.events if event.kind != STARTED)
    return ", ".join(kind if count == 1 else f"{count} × {kind}" for kind, count in kinds.items())
