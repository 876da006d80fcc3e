"""The cards at the top of the page: verdict, compute, what was swept and expected, what to know."""

from __future__ import annotations

import math
from collections import Counter
from html import escape
from typing import Any

from tune_stoppers.report import compute, pictures
from tune_stoppers.report.data.story import Parameter, Story
from tune_stoppers.report.html.markup import LISTED, count_of, figure, pairs, text_of, time_of
from tune_stoppers.report.scales import cut, short

REASON = 160  # letters of an error in the verdict


def cards(story: Story) -> str:
    """All of them."""
    return "".join(make(story) for make in (_verdict, _compute, _swept, _earlier, _notes))


def _verdict(story: Story) -> str:
    return _card("Verdict", _found(story) + _standing(story))


def _standing(story: Story) -> str:
    """Trials that the verdict does not rest on: how many, and of those that failed, why."""
    said = f"<p><b>{escape(' '.join(story.standing))}</b></p>" if story.standing else ""
    why = Counter(t.ending.reason for t in story.trials if t.ending.kind == "failed").most_common()
    items = [f"{count} × {cut(reason, REASON)}" for reason, count in why[:LISTED]]
    items += [f"{len(why) - LISTED} more reasons: see the table"] if len(why) > LISTED else []
    return said + (f"<ul>{''.join(f'<li>{escape(i)}</li>' for i in items)}</ul>" if items else "")


def _found(story: Story) -> str:
    best, kept = story.best, story.kept
    if best is None:
        text = f"No trial reported a finite {story.metric}, so there is no best one."
        if any(math.isfinite(value) for trial in story.trials for _, value in trial.curve):
            text = f"No trial has a finite {story.metric} of a trained model: all diverged at once."
        return f"<p>{escape(text)}</p>"
    found = f'<p class="big">{escape(story.metric)} {short(best.best_value)}</p>'
    found += f"<p>trial <b>{escape(best.trial_id)}</b>, {escape(story.time_attr)} "
    found += f"{short(best.best_step)}; {escape(best.ending.cause)}</p>"
    swept = {p.name: best.config[p.name] for p in story.swept if p.name in best.config}
    found += f"<p>{escape(_listed(swept))}</p>" if swept else ""
    if best.last_config:
        text = f"The trial then continued with {_listed(best.last_config)}."
        found += f"<p>{escape(text)}</p>"
    if story.facts:
        found += pairs(story.facts)
    if story.source == "replay":
        return found
    if kept is None:
        return found + "<p>No checkpoint of any trial exists any more.</p>"
    if kept is not best or kept.checkpoint_step != best.best_step:
        text = (
            f"That state was not kept. The best that was: trial {kept.trial_id}, "
            f"{story.metric} {short(kept.checkpoint_value)} at {short(kept.checkpoint_step)}."
        )
        if kept.checkpoint_config:
            text += f" It was trained with {_listed(kept.checkpoint_config)}."
        found += f"<p>{escape(text)}</p>"
    found += f"<p>Its checkpoint: {escape(str(kept.checkpoint))}</p><pre>{escape(story.load)}</pre>"
    return found


def _listed(config: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {text_of(value)}" for name, value in config.items())


def _compute(story: Story) -> str:
    totals, side = story.totals, f"at most {count_of(len(story.lanes), 'trial')} at a time"
    share = compute.headline(totals, story.share)
    if story.clock == "s":
        rows = compute.told(totals, story.reports, story.time_attr)
        rows += [("Took", f"{compute.clock(totals)}; {side}")] if story.lanes else []
    else:
        stake = time_of(story, totals.spent + totals.saved)
        rows = [
            ("Spent", count_of(story.reports, "report")),
            ("Saved", time_of(story, totals.saved)),
            ("At stake", f"{stake}, had nothing been stopped"),
        ]
        rows += [("Took", f"{time_of(story, story.duration)}, {side}")] if story.lanes else []
    content = f'<p class="big">{share}</p>{pairs(rows)}<p class="note">{escape(story.basis)}</p>'
    dry, best = story.dry_run, story.best
    if dry is not None and best is not None:
        part = f" ({dry.spared / story.spent:.0%} of it)" if story.spent else ""
        spared = f"{time_of(story, dry.spared)}{part}, {count_of(dry.reports, 'report')}"
        text = (
            f"The dry run took no decision. Had it, {count_of(dry.stopped, 'trial')} would have "
            f"been stopped and {spared} saved; the best found would have been "
            f"{short(dry.best_value)} instead of {short(best.best_value)}."
        )
        content += f"<p><b>{escape(text)}</b></p>"
    return _card("Compute", content)


def _swept(story: Story) -> str:
    swept = {parameter.name for parameter in story.swept}
    fixed = [p for p in story.parameters if p.name not in swept and p.distinct]
    rows = [(p.name, _range(p)) for p in story.parameters if p.name in swept]
    content = pairs(rows) if rows else "<p>All trials had the same configuration.</p>"
    if fixed:
        listed = ", ".join(f"{p.name} = {text_of(p.distinct[0])}" for p in fixed)
        content += f'<p class="note">The same in all: {escape(listed)}</p>'
    return _card("What was swept", content)


def _range(parameter: Parameter) -> str:
    values = parameter.distinct
    if parameter.numeric and len(values) > LISTED:
        return f"{short(values[0])} to {short(values[-1])}, {len(values)} values"
    shown = ", ".join(text_of(value) for value in values[:LISTED])
    return shown + (f" and {len(values) - LISTED} more" if len(values) > LISTED else "")


def _earlier(story: Story) -> str:
    """What earlier sweeps expected, against what came; nothing without a history."""
    earlier = story.earlier
    if earlier is None:
        return ""
    content = "".join(f"<p>{escape(line)}</p>" for line in earlier.said)
    content += pairs([(name, f"{value:.2f}") for name, value in earlier.came_true.items()])
    if earlier.came_true:
        text = (
            "Beside each: how much of what it expected had come true by the time "
            f"{earlier.after} trials had reported (0: nothing, 1: all)."
        )
        content += f'<p class="note">{escape(text)}</p>'
    if picture := pictures.agreement(story):
        content += figure(picture)
    return _card("What earlier sweeps expected", content)


def _notes(story: Story) -> str:
    where = "Replayed from" if story.source == "replay" else "Made from"
    items = [*story.notes, f"{where} {story.place}."]
    content = "".join(f"<li>{escape(item)}</li>" for item in items)
    return _card("To know when reading this", f"<ul>{content}</ul>")


def _card(title: str, content: str) -> str:
    return f'<section class="card"><h2>{escape(title)}</h2>{content}</section>'
