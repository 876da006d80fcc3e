"""Who ran when: a row for each trial that ran at the same time. y: pixels, 0 at the top."""

from __future__ import annotations

from collections.abc import Iterator

from tune_stoppers.journal.lines import RESUMED, STARTED
from tune_stoppers.report.data.story import Span, Story
from tune_stoppers.report.pictures.picture import (
    Axis,
    Bar,
    Key,
    Label,
    Mark,
    Picture,
    TrialRef,
    trial_refs,
)
from tune_stoppers.report.scales import Scale, time_axis

SHAPES = {  # of events, by the journal's word for them
    "pause": "e-pause",
    "paused": "e-pause",
    "promotion": "e-promotion",
    "promoted": "e-promotion",
    "rollback": "e-rollback",
    "rewind": "e-rollback",
    "recovery": "e-rollback",
    "retry": "e-restart",
    "lost": "e-restart",
    "fail": "e-restart",
    "given up": "e-end",
    "user": "e-end",
}
CHOSEN = (STARTED, RESUMED)  # the bar that follows shows it
OPENINGS = {"resume": "continued", "restart": "went back"}
SPANS = 6000  # that are drawn: the longest
MOMENTS = 250  # events and openings that are marked; more would hide the bars
WHOLE, THINNEST, THICKEST, HEADING = 420.0, 3.0, 18.0, 20.0  # pixels: all rows, a row, a host
CAPTION = (
    "Each bar is a process of a trial, in the colour of its ending; rows are as many as ran at a "
    "time."
)
STAMPS = " Ray's time stamps are whole seconds: positions are right to about a second."
CROWDED = (
    " {count} pauses, restarts and other events are not marked here, as they would hide it: the "
    "table has them."
)


def timeline(story: Story) -> Picture:
    """Which trial ran when, and what happened to it then."""
    refs, lanes = trial_refs(story), story.lanes
    unit, size = time_axis(story.clock, story.duration)
    row = min(max(WHOLE / max(len(lanes), 1), THINNEST), THICKEST)
    named = len({host for host, _ in lanes}) > 1
    lengths = sorted((s.end - s.begin for _, lane in lanes for s, _ in lane), reverse=True)
    least = lengths[SPANS] if len(lengths) > SPANS else -1.0
    bars: list[Bar | Label] = []
    where: dict[str, list[tuple[Span, float]]] = {}
    top, last = 0.0, ""
    for host, lane in lanes:
        if named and host != last:
            bars.append(Label(0.0, -top, host, "name", below=True))
            top, last = top + HEADING, host
        for span, trial in lane:
            where.setdefault(trial.trial_id, []).append((span, -top - row / 2))
            if span.end - span.begin > least:
                begin, end, ref = span.begin / size, span.end / size, refs[trial.trial_id]
                bars.append(Bar(begin, end, -top - row / 2, row - 1, "bar", ref))
        top += row
    moments = [*_openings(story, where, refs, size), *_events(story, where, refs, size)]
    crowded = len(moments) > MOMENTS
    caption = CAPTION + (STAMPS if story.source == "experiment" else "")
    return Picture(
        title="Who ran when",
        about="which trial ran when",
        x=Axis.of(unit, Scale(0.0, story.duration / size or 1.0)),
        y=Axis("", Scale(-max(top, row), 0.0), (), "names"),
        marks=(*bars, *(() if crowded else [mark for mark, _ in moments])),
        height=max(top, row),
        caption=caption + (CROWDED.format(count=len(moments)) if crowded else ""),
        key=() if crowded else tuple(Key(*k) for k in sorted({(m.shape, t) for m, t in moments})),
    )


Where = dict[str, list[tuple[Span, float]]]


def _openings(
    story: Story, where: Where, refs: dict[str, TrialRef], size: float
) -> Iterator[tuple[Mark, str]]:
    """Which stretches continued an earlier one, and which went back, each with its name."""
    for trial_id, spans in where.items():
        for span, level in spans:
            if span.opening != "start":
                shape, name = f"e-{span.opening}", OPENINGS[span.opening]
                yield Mark(span.begin / size, level, shape, "event", refs[trial_id]), name


def _events(
    story: Story, where: Where, refs: dict[str, TrialRef], size: float
) -> Iterator[tuple[Mark, str]]:
    """What the journal tells, on the row where the trial was at that time."""
    for trial in story.trials:
        spans = sorted(where.get(trial.trial_id, ()), key=lambda item: item[0].begin)
        for event in trial.events:
            before = [level for span, level in spans if span.begin <= event.time]
            if before and event.kind not in CHOSEN:
                shape = SHAPES.get(event.kind, "e-event")
                name = event.kind if event.kind in SHAPES else "other event"
                ref = refs[trial.trial_id]
                yield Mark(event.time / size, before[-1], shape, "event", ref), name
