"""Learning curves, and the curves of further metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from tune_stoppers.report.data.story import Story, TrialStory
from tune_stoppers.report.pictures.picture import (
    Axis,
    Label,
    Line,
    Mark,
    Picture,
    Rule,
    Side,
    TrialRef,
    best_last,
    causes_key,
    inside,
    leavings,
    said_beyond,
    trial_refs,
)
from tune_stoppers.report.scales import Scale, curve_scale, metric_scale, scale_of, short

MANY = 120  # trials from which curves are sampled, and bands stand for the rest
LEADERS, SAMPLE = 8, 52  # curves drawn then: the best, and others evenly over the ranking
BINS = 60  # of the bands
BANDS = ((10, 90), (25, 75))  # percentiles
CAPTION = (
    "A line for each trial in the colour of its ending, the mark where it ended. The thick line is "
    "the best trial; the dotted one the best value of any trial up to that step."
)
SAMPLED = (
    " Of {count} trials, the best {leaders} and some {sample} others, evenly over the ranking, are "
    "drawn; for all, the mark of the ending. Bands: the middle 50 % and 80 % of the trials still "
    "running at a step; dashed: their median."
)
RECORDED = " Thin dots: how the recorded trial continued."
WOULD = " A ring: where the dry run would have stopped the trial."
RUNGS = " Dashed uprights: the rungs at which trials were compared."


def curves(story: Story) -> Picture:
    """All learning curves with their ends and causes; bands stand for those not drawn."""
    refs, many = trial_refs(story), len(story.trials) > MANY
    points = [point for trial in story.trials for point in (*trial.curve, *trial.beyond)]
    x = scale_of([step for step, _ in points], log=False)
    y = curve_scale(story)
    lines: list[Line | Rule] = [*_rules(story, x, y), *(_bands(story, y) if many else ())]
    for trial in _drawn(story):
        if len(trial.beyond) > 1 and not many:
            recorded = inside(trial.beyond, y, story.sign)
            lines.append(Line(recorded, "recorded", refs[trial.trial_id]))
        lines.append(Line(inside(trial.curve, y, story.sign), "curve", refs[trial.trial_id]))
    reached = [point for point in story.envelope if y.has(point[1])]
    if reached:
        lines.append(Line((*reached, (x.high, reached[-1][1])), "envelope", steps=True))
    caption = CAPTION
    if many:
        caption += SAMPLED.format(count=len(story.trials), leaders=LEADERS, sample=SAMPLE)
    elif any(len(trial.beyond) > 1 for trial in story.trials):
        caption += RECORDED
    caption += WOULD if any(trial.would for trial in story.trials) else ""
    caption += RUNGS if story.rungs else ""
    return Picture(
        title="Learning curves",
        about=f"{story.metric} of each trial against {story.time_attr}",
        x=Axis.of(story.time_attr, x),
        y=Axis.of(story.metric, y),
        marks=(*lines, *_offs(lines, y), *_ends(story, refs, y), *_best(story, refs, x, y)),
        height=340.0,
        caption=caption + said_beyond([v for t in story.trials for _, v in t.curve], y),
        key=causes_key(story),
        small=many,
    )


def metric_curves(story: Story, key: str) -> Picture:
    """A further metric of all trials: a gradient norm, a learning rate."""
    refs = trial_refs(story)
    drawn = [trial for trial in _drawn(story) if key in trial.extras]
    points = [p for trial in story.trials for p in trial.extras.get(key, ())]
    y = metric_scale(key, [trial.extras.get(key, ()) for trial in story.trials])
    lines = [Line(inside(t.extras[key], y, 1), "curve", refs[t.trial_id]) for t in drawn]
    return Picture(
        title=key,
        about=f"{key} of each trial against {story.time_attr}",
        x=Axis.of(story.time_attr, scale_of([step for step, _ in points], log=False)),
        y=Axis.of(key, y, 4),
        marks=(*lines, *_offs(lines, y)),
        small=len(story.trials) > MANY,
        caption="In the colours of the endings, as above."
        + said_beyond([value for _, value in points], y),
    )


def _drawn(story: Story) -> list[TrialStory]:
    """The trials whose curves are drawn, the best last, on top."""
    chosen = list(story.trials)
    if len(chosen) > MANY:
        ranked = story.ranked
        indices = np.unique(np.linspace(0, len(ranked) - 1, SAMPLE).astype(int)).tolist()
        picked = {t.trial_id for t in ranked[:LEADERS]}
        picked |= {ranked[index].trial_id for index in indices} if ranked else set()
        chosen = [trial for trial in chosen if trial.trial_id in picked]
    return best_last(story, [trial for trial in chosen if trial.curve])


def _bands(story: Story, y: Scale) -> Iterator[Line]:
    """Percentiles, by step, over the trials still running there."""
    steps = np.array([step for t in story.trials for step, _ in t.curve])
    values = np.array([value for t in story.trials for _, value in t.curve])
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    distinct = np.unique(steps)
    edges = distinct if len(distinct) <= BINS else np.linspace(distinct[0], distinct[-1], BINS)
    bins = np.searchsorted(edges, steps, side="right") - 1
    groups = [(float(edges[b]), values[bins == b]) for b in np.unique(bins).tolist()]
    for low, high in BANDS:
        lower = [(step, y.clamp(float(np.percentile(v, low)))) for step, v in groups]
        upper = [(step, y.clamp(float(np.percentile(v, high)))) for step, v in groups]
        yield Line((*lower, *reversed(upper)), "band")
    yield Line(tuple((step, y.clamp(float(np.median(v)))) for step, v in groups), "median")


def _ends(story: Story, refs: dict[str, TrialRef], y: Scale) -> Iterator[Mark]:
    """Where each curve ends, and where a dry run would have ended it."""
    for trial in best_last(story, [trial for trial in story.trials if trial.curve]):
        ref = refs[trial.trial_id]
        step, value = trial.curve[-1]
        yield Mark(step, y.clamp(value, story.sign), ref.glyph.name, "mark", ref)
        if trial.would is not None:
            there = [v for s, v in trial.curve if s <= trial.would.step]
            level = y.clamp(there[-1] if there else math.nan, story.sign)
            yield Mark(trial.would.step, level, "would", "would", ref)


def _best(story: Story, refs: dict[str, TrialRef], x: Scale, y: Scale) -> Iterator[Mark | Label]:
    """The best point of all."""
    best = story.best
    if best is None:
        return
    step, value = best.best_step, best.best_value
    side: Side = "end" if x.position(step) > 0.5 else "start"
    text, below = f"best {short(value)}", y.position(value) > 0.06
    yield Mark(step, value, "star", "star", refs[best.trial_id])
    yield Label(step, value, text, "callout", side, below)


def _rules(story: Story, x: Scale, y: Scale) -> Iterator[Rule]:
    """Rungs and thresholds; a rung has its number where there is room for it."""
    last = -1.0
    rungs = [rung for rung in story.rungs if x.has(rung)]
    for rung in rungs:
        room = x.position(rung) - last >= 0.06
        last = x.position(rung) if room else last
        yield Rule(rung, True, "rung", short(rung) if room else "")
    for threshold in story.thresholds:
        if y.has(threshold):
            yield Rule(threshold, False, "threshold", f"threshold {short(threshold)}")


def _offs(lines: Sequence[Line | Rule], y: Scale) -> Iterator[Mark]:
    """Arrows where curves leave the axis."""
    for line in lines:
        if isinstance(line, Line) and line.role == "curve":
            for step, value in leavings(line.points, y):
                yield Mark(
                    step, value, "off-up" if value == y.high else "off-down", "off", line.trial
                )
