"""The pictures of a story as SVG: curves, best so far, time line, hyperparameters.

Over 350 lines: the pictures share their margins and glyphs, and are changed together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from tune_stoppers.report.data.story import Parameter, Points, Span, Story, TrialStory
from tune_stoppers.report.glyphs import Glyph
from tune_stoppers.report.html.svg import across, glyph, line, plot, side, tag, thinned, words
from tune_stoppers.report.scales import (
    SPREAD,
    Scale,
    curve_scale,
    objective_scale,
    scale_of,
    short,
    unit_of_time,
)

MANY = 120  # trials from which curves are sampled, and bands stand for the rest
LEADERS, SAMPLE = 8, 52  # curves drawn then: the best, and others evenly over the ranking
BINS = 60  # of the bands
BANDS = ((10, 90), (25, 75))  # percentiles
LABELLED = 12  # rungs that are labelled
EVENTS = {  # the shape of an event's glyph, by the journal's word for it
    "pause": "pause",
    "paused": "pause",
    "resumed": "resume",
    "promotion": "promotion",
    "promoted": "promotion",
    "rollback": "rollback",
    "rewind": "rollback",
    "recovery": "rollback",
    "retry": "restart",
    "lost": "restart",
    "fail": "restart",
    "given up": "end",
    "user": "end",
}
SPANS = 6000  # that are drawn: the longest
MOMENTS = 250  # events and openings that are marked on the time line; more would hide it
PANELS, PANELS_OF_MANY = 12, 8  # of hyperparameters
Glyphs = dict[str, Glyph]
Index = dict[str, int]  # a trial's number on the page, by id


class Charts:
    """Draws one story. Everything of a trial carries its number as `data-t`."""

    def __init__(self, story: Story, glyphs: Glyphs) -> None:
        self.story = story
        self.glyphs = glyphs
        self.many = len(story.trials) > MANY
        self.number: Index = {trial.trial_id: i for i, trial in enumerate(story.trials)}

    def curves(self) -> str:
        """All learning curves with their ends and causes; bands stand for those not drawn."""
        story, height = self.story, 340.0
        points = [p for trial in story.trials for p in (*trial.curve, *trial.beyond)]
        x = scale_of([step for step, _ in points], log=False)
        y = curve_scale(story)
        lines = [*self._rules(x, y, height), *(self._bands(x, y, height) if self.many else ())]
        for trial in self._drawn():
            if len(trial.beyond) > 1 and not self.many:
                lines.append(self._line(trial, trial.beyond, x, y, height, "beyond"))
            lines.append(self._line(trial, trial.curve, x, y, height))
        envelope = [(x.position(step), y.position(value)) for step, value in story.envelope]
        if envelope:
            envelope.append((1.0, envelope[-1][1]))
        lines.append(line(envelope, height, steps=True, class_="envelope"))
        return plot(
            x,
            y,
            height,
            lines,
            [*self._ends(x, y, height), *self._rule_labels(x, y, height)],
            about=f"{story.metric} of each trial against {story.time_attr}",
            x_label=story.time_attr,
            y_label=f"{story.metric}{' (log)' if y.log else ''}",
        )

    @property
    def moments(self) -> int:
        """How many events and later starts of processes there are."""
        trials = self.story.trials
        later = sum(span.opening != "start" for trial in trials for span in trial.spans)
        return later + sum(len(trial.events) for trial in trials)

    def beyond_the_axis(self) -> int:
        """How many values of the objective lie beyond its axis, or are no numbers."""
        values = [value for trial in self.story.trials for _, value in trial.curve]
        y = curve_scale(self.story)
        return sum(not y.low <= value <= y.high for value in values)

    def extra(self, key: str) -> str:
        """A further metric of all trials."""
        story, height = self.story, 170.0
        points = [p for trial in story.trials for p in trial.extras.get(key, ())]
        x = scale_of([step for step, _ in points], log=False)
        finite = [value for _, value in points if math.isfinite(value)]
        y = objective_scale(finite, 1)
        if y.log or min(finite, default=0.0) >= 0:
            y = scale_of([min(value, y.high) for value in finite], pad=0.03)
        lines = [
            self._line(trial, trial.extras[key], x, y, height)
            for trial in self._drawn()
            if key in trial.extras
        ]
        return plot(
            x,
            y,
            height,
            lines,
            about=f"{key} of each trial against {story.time_attr}",
            x_label=story.time_attr,
            y_label=f"{key}{' (log)' if y.log else ''}",
            y_count=4,
        )

    def incumbent(self) -> str:
        """The best value so far against time."""
        story, height = self.story, 170.0
        found, unit, size = story.incumbent, *self._unit()
        end = max(story.duration, found[-1][0])
        x = Scale(0.0, end / size or 1.0)
        y = scale_of([value for _, value, _ in found], pad=0.05)
        points = [(x.position(time / size), y.position(value)) for time, value, _ in found]
        glyphs = [
            glyph("dot", px, height * (1 - py), class_="mark best", data_t=self.number[trial_id])
            for (px, py), (_, _, trial_id) in zip(points, found, strict=True)
        ]
        return plot(
            x,
            y,
            height,
            [line([*points, (1.0, points[-1][1])], height, steps=True, class_="c best")],
            glyphs,
            about=f"best {story.metric} so far against time",
            x_label=unit,
            y_label=f"best {story.metric} so far{' (log)' if y.log else ''}",
            y_count=4,
        )

    def timeline(self) -> str:
        """Who ran when: a row for each trial that ran at the same time."""
        lanes, (unit, size) = self.story.lanes, self._unit()
        row = min(max(420 / len(lanes), 3.0), 18.0)
        x = Scale(0.0, self.story.duration or 1.0)
        named = len({host for host, _ in lanes}) > 1
        spans = sorted((s.end - s.begin for _, lane in lanes for s, _ in lane), reverse=True)
        least = spans[SPANS] if len(spans) > SPANS else -1.0
        parts, top, last = [], 0.0, ""
        where: dict[str, list[tuple[Span, float]]] = {}
        for host, lane in lanes:
            if named and host != last:
                parts.append(words(host, class_="name", x=1, y=f"{top + 14:.1f}"))
                top, last = top + 20, host
            for span, trial in lane:
                where.setdefault(trial.trial_id, []).append((span, top + row / 2))
                if span.end - span.begin > least:
                    parts.append(self._bar(span, trial, x, top, row))
            top += row
        if self.moments <= MOMENTS:
            parts += self._openings(where, x)
            parts += self._events(where, x)
        ticks = Scale(0.0, x.high / size)
        labels = [
            words(
                short(value),
                class_="tick",
                x=across(ticks.position(value)),
                y=f"{top + 16:.1f}",
                text_anchor=side(ticks.position(value)),
            )
            for value in ticks.ticks()
        ]
        labels.append(words(unit, class_="name", x="100%", y=f"{top + 31:.1f}", text_anchor="end"))
        title = tag("title", "which trial ran when")
        content = title + "".join(parts) + "".join(labels)
        return tag("svg", content, class_="plot", height=f"{top + 36:.0f}", role="img")

    def parameters(self) -> list[tuple[Parameter, str]]:
        """What each trial came to against each hyperparameter that was swept."""
        values = [self.story.sign * loss for loss in self.story.outcomes]
        if not any(map(math.isfinite, values)):
            return []
        y = objective_scale(values, self.story.sign)
        most = PANELS_OF_MANY if self.many else PANELS
        return [(p, self._scatter(p, y)) for p in self.story.swept[:most]]

    def _drawn(self) -> list[TrialStory]:
        """The trials whose curves are drawn, the best last, on top."""
        story = self.story
        chosen = list(story.trials)
        if self.many:
            ranked = story.ranked
            indices = np.unique(np.linspace(0, len(ranked) - 1, SAMPLE).astype(int)).tolist()
            picked = {t.trial_id for t in ranked[:LEADERS]}
            picked |= {ranked[index].trial_id for index in indices} if ranked else set()
            chosen = [trial for trial in story.trials if trial.trial_id in picked]
        best = story.best
        return [t for t in chosen if t is not best] + ([best] if best is not None else [])

    def _attributes(self, trial: TrialStory, kind: str = "") -> dict[str, Any]:
        best = " best" if trial is self.story.best else ""
        look = f"k-{self.glyphs[trial.ending.cause].name}"
        return {"class_": f"{kind} {look}{best}".strip(), "data_t": self.number[trial.trial_id]}

    def _line(
        self, trial: TrialStory, curve: Points, x: Scale, y: Scale, height: float, kind: str = ""
    ) -> str:
        points = thinned([(x.position(step), y.position(value)) for step, value in curve])
        return line(points, height, **self._attributes(trial, f"c {kind}".strip()))

    def _bands(self, x: Scale, y: Scale, height: float) -> Iterator[str]:
        """Percentiles, by step, over the trials still running there."""
        steps = np.array([step for t in self.story.trials for step, _ in t.curve])
        values = np.array([value for t in self.story.trials for _, value in t.curve])
        finite = np.isfinite(values)
        steps, values = steps[finite], values[finite]
        distinct = np.unique(steps)
        edges = distinct if len(distinct) <= BINS else np.linspace(distinct[0], distinct[-1], BINS)
        bins = np.searchsorted(edges, steps, side="right") - 1
        groups = [(float(edges[b]), values[bins == b]) for b in np.unique(bins).tolist()]
        for low, high in BANDS:
            lower = [(x.position(s), y.position(float(np.percentile(v, low)))) for s, v in groups]
            upper = [(x.position(s), y.position(float(np.percentile(v, high)))) for s, v in groups]
            yield line([*lower, *reversed(upper)], height, class_="band")
        middle = [(x.position(s), y.position(float(np.median(v)))) for s, v in groups]
        yield line(middle, height, class_="median")

    def _ends(self, x: Scale, y: Scale, height: float) -> Iterator[str]:
        """Where each curve ends; where a dry run would have ended it; the best point."""
        size = "n" if self.many else "m"
        for trial in self.story.trials:
            if not trial.curve:
                continue
            step, value = trial.curve[-1]
            down = height * (1 - y.position(y.clamp(value, self.story.sign)))
            look = self.glyphs[trial.ending.cause]
            yield glyph(
                f"{size}-{look.name}", x.position(step), down, **self._attributes(trial, "mark")
            )
            if trial.would is not None:
                there = [v for s, v in trial.curve if s <= trial.would.step]
                level = height * (
                    1 - y.position(y.clamp(there[-1] if there else math.nan, self.story.sign))
                )
                at = x.position(trial.would.step)
                yield glyph("would", at, level, class_="would", data_t=self.number[trial.trial_id])
        best = self.story.best
        if best is None:
            return
        px, down = x.position(best.best_step), height * (1 - y.position(best.best_value))
        yield glyph("star", px, down, class_="mark best", data_t=self.number[best.trial_id])
        anchor = "end" if px > 0.5 else "start"
        below = down < height - 20
        yield words(
            f"best {short(best.best_value)}",
            class_="callout",
            x=across(px),
            y=f"{down + 17 if below else down - 10:.1f}",
            dx=8 if anchor == "start" else -8,
            text_anchor=anchor,
        )

    def _rules(self, x: Scale, y: Scale, height: float) -> Iterator[str]:
        """Rungs and thresholds as lines."""
        for rung in self._rungs(x):
            at = x.position(rung)
            yield line([(at, 0.0), (at, 1.0)], height, class_="rung")
        for threshold in self.story.thresholds:
            if y.low <= threshold <= y.high:
                at = y.position(threshold)
                yield line([(0.0, at), (1.0, at)], height, class_="threshold")

    def _rule_labels(self, x: Scale, y: Scale, height: float) -> Iterator[str]:
        rungs = self._rungs(x)
        last = -1.0
        for rung in rungs if len(rungs) <= LABELLED else ():
            at = x.position(rung)
            if at - last < 0.08:
                continue  # the labels would lie on each other
            last = at
            yield words(
                short(rung),
                class_="ruled",
                x=across(at),
                y=-3,
                text_anchor="end" if at > 0.9 else "start",
            )
        for threshold in self.story.thresholds:
            if y.low <= threshold <= y.high:
                level = height * (1 - y.position(threshold)) - 4
                text = f"threshold {short(threshold)}"
                yield words(text, class_="ruled", x="100%", y=f"{level:.1f}", text_anchor="end")

    def _rungs(self, x: Scale) -> list[float]:
        return [rung for rung in self.story.rungs if x.low <= rung <= x.high]

    def _unit(self) -> tuple[str, float]:
        """The name and size of the unit in which times are shown."""
        if self.story.clock == "reports":
            return "virtual time, reports", 1.0
        name, size = unit_of_time(self.story.duration)
        return f"time since the first start, {name}", size

    def _bar(self, span: Span, trial: TrialStory, x: Scale, top: float, row: float) -> str:
        width = max(x.position(span.end) - x.position(span.begin), 0.0005)
        return tag(
            "rect",
            x=across(x.position(span.begin)),
            y=f"{top + 0.5:.1f}",
            width=across(width),
            height=f"{row - 1:.1f}",
            **self._attributes(trial, "bar"),
        )

    def _openings(self, where: dict[str, list[tuple[Span, float]]], x: Scale) -> Iterator[str]:
        """Which stretches continued an earlier one, and which went back."""
        for trial_id, spans in where.items():
            for span, level in spans:
                if span.opening != "start":
                    yield glyph(
                        f"e-{span.opening}",
                        x.position(span.begin),
                        level,
                        class_="event",
                        data_t=self.number[trial_id],
                    )

    def _events(self, where: dict[str, list[tuple[Span, float]]], x: Scale) -> Iterator[str]:
        """What the journal tells, on the lane where the trial was at that time."""
        for trial in self.story.trials:
            spans = sorted(where.get(trial.trial_id, ()), key=lambda item: item[0].begin)
            for event in trial.events:
                before = [level for span, level in spans if span.begin <= event.time]
                if before:
                    name = EVENTS.get(event.kind, "event")
                    yield glyph(
                        f"e-{name}",
                        x.position(event.time),
                        before[-1],
                        class_="event",
                        data_t=self.number[trial.trial_id],
                    )

    def _scatter(self, parameter: Parameter, y: Scale) -> str:
        height = 140.0
        x, ticks = _positions(parameter)
        size = "n" if len(self.story.trials) > 40 else "m"
        glyphs = []
        trials = zip(self.story.trials, self.story.outcomes, parameter.values, strict=True)
        for index, (trial, loss, value) in enumerate(trials):
            if value is None or math.isnan(loss):
                continue
            px = x(value, index)
            down = height * (1 - y.position(self.story.sign * loss))
            name = f"{size}-{self.glyphs[trial.ending.cause].name}"
            glyphs.append(glyph(name, px, down, **self._attributes(trial, "mark")))
        strength = self.story.strength(parameter)
        facts = [] if math.isnan(strength) else [f"{strength:.2f}"]
        if parameter.numeric and scale_of(parameter.distinct, wide=SPREAD).log:
            facts.insert(0, "log")
        beside = f" ({', '.join(facts)})" if facts else ""
        return plot(
            Scale(0.0, 1.0),
            y,
            height,
            glyphs=glyphs,
            about=f"best {self.story.metric} against {parameter.name}",
            x_label=f"{_cut(parameter.name, 30)}{beside}",
            y_label=f"best {_cut(self.story.metric, 24)}{' (log)' if y.log else ''}",
            x_ticks=ticks,
            y_count=3,
        )


def _positions(parameter: Parameter) -> tuple[Any, list[tuple[float, str]]]:
    """Where a value lies across, and the labels: numbers on a scale, categories side by side."""
    if parameter.numeric:
        scale = scale_of(parameter.distinct, pad=0.04, wide=SPREAD)
        ticks = [(scale.position(value), short(value)) for value in scale.ticks(4)]
        return lambda value, index: scale.position(value), ticks
    names = parameter.distinct
    slot = {name: index for index, name in enumerate(names)}

    def position(value: Any, index: int) -> float:
        aside = (index * 0.618034) % 1 - 0.5  # spread evenly, the same in every report
        return (slot[str(value)] + 0.5 + 0.6 * aside) / len(names)

    every, room = math.ceil(len(names) / 6), max(36 // len(names), 5)
    ticks = [((i + 0.5) / len(names), _cut(name, room)) for i, name in enumerate(names)]
    return position, ticks[::every]


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"
