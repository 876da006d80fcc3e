"""The pictures of a report as matplotlib axes, for a paper or a notebook.

Each function draws on `ax`, or on axes of its own, and returns them::

    story = experiment_story("results/my_sweep", "eval_loss", "min")
    plot_curves(story).figure.savefig("curves.pdf")

They need the extra `plots`: without matplotlib they raise ImportError, which says how to get it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tune_stoppers.report.data.importance import by_chance, too_few
from tune_stoppers.report.data.story import Story, TrialStory
from tune_stoppers.report.data.totals import known
from tune_stoppers.report.glyphs import Glyph, glyphs_of
from tune_stoppers.report.scales import (
    SPREAD,
    Scale,
    curve_scale,
    objective_scale,
    scale_of,
    short,
    unit_of_time,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEST = "black"
FAINT = 0.5


def plot_curves(story: Story, ax: Axes | None = None) -> Axes:
    """Learning curves with the glyph of each ending, the best trial, rungs and thresholds."""
    ax = _axes(ax)
    looks = glyphs_of(story)
    y = curve_scale(story)
    for trial in story.trials:
        if not trial.curve:
            continue
        steps = [step for step, _ in trial.curve]
        values = [y.clamp(value, story.sign) for _, value in trial.curve]
        glyph = looks[trial.ending.cause]
        best = trial is story.best
        ax.plot(
            steps,
            values,
            color=BEST if best else glyph.light,
            linewidth=2 if best else 0.9,
            alpha=1 if best else FAINT,
            zorder=3 if best else 2,
        )
        ax.plot(steps[-1:], values[-1:], linestyle="", zorder=4, **_marker(glyph))
    for rung in story.rungs:
        ax.axvline(rung, color="0.6", linewidth=0.8, linestyle="--", zorder=1)
    for threshold in story.thresholds:
        ax.axhline(threshold, color="0.6", linewidth=0.8, linestyle="--", zorder=1)
    best_trial = story.best
    if best_trial is not None:
        label = f"best: {short(best_trial.best_value)} ({best_trial.trial_id})"
        at = ([best_trial.best_step], [best_trial.best_value])
        ax.plot(*at, marker="*", markersize=11, color=BEST, linestyle="", zorder=5, label=label)
    _show(ax, y, "y")
    ax.set(xlabel=story.time_attr, ylabel=story.metric)
    _legend(story, looks, ax)
    return ax


def plot_incumbent(story: Story, ax: Axes | None = None) -> Axes:
    """The best value so far against time."""
    ax = _axes(ax)
    name, size = unit_of_time(story.duration if story.clock == "s" else 0.0)
    found = story.incumbent
    if found:
        end = max(story.duration, found[-1][0])
        times = [time / size for time, _, _ in found] + [end / size]
        values = [value for _, value, _ in found]
        ax.step(times, [*values, values[-1]], where="post", color=BEST)
        _show(ax, scale_of(values, pad=0.05), "y")
    ax.set(xlabel=_time_label(story, name), ylabel=f"best {story.metric} so far")
    return ax


def plot_timeline(story: Story, ax: Axes | None = None) -> Axes:
    """Which trial ran when, on as many rows as ran at a time; a line: it resumed or went back."""
    ax = _axes(ax)
    looks = glyphs_of(story)
    name, size = unit_of_time(story.duration if story.clock == "s" else 0.0)
    for row, (_, lane) in enumerate(story.lanes):
        for span, trial in lane:
            best = trial is story.best
            ax.barh(
                row,
                (span.end - span.begin) / size,
                left=span.begin / size,
                height=0.8,
                color=looks[trial.ending.cause].light,
                edgecolor=BEST if best else "white",
                linewidth=1.5 if best else 0.3,
                zorder=3 if best else 2,
            )
            if span.opening != "start":
                ax.plot([span.begin / size] * 2, [row - 0.4, row + 0.4], color=BEST, zorder=4)
    ax.invert_yaxis()
    ax.set(xlabel=_time_label(story, name), ylabel="at the same time", yticks=[])
    _legend(story, looks, ax)
    return ax


def plot_endings(story: Story, ax: Axes | None = None) -> Axes:
    """Per cause of ending: the time spent, and, pale, what continuing would have taken."""
    ax = _axes(ax)
    looks = glyphs_of(story)
    name, size = unit_of_time(story.spent if story.clock == "s" else 0.0)
    for row, (cause, trials) in enumerate(story.causes.items()):
        spent, saved = known(t.spent for t in trials) / size, known(t.saved for t in trials) / size
        ax.barh(row, spent, color=looks[cause].light)
        ax.barh(row, saved, left=spent, color=looks[cause].light, alpha=0.35)
    labels = [f"{cause} ({len(trials)})" for cause, trials in story.causes.items()]
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.set(xlabel=f"spent and, pale, saved, {name if story.clock == 's' else 'reports'}")
    return ax


def plot_hyperparameter(story: Story, name: str, ax: Axes | None = None) -> Axes:
    """The best value of each trial once it trained against one hyperparameter.

    `ValueError` if no trial has it; the message lists those that there are.
    """
    parameter = next((p for p in story.parameters if p.name == name), None)
    if parameter is None:
        known = ", ".join(p.name for p in story.parameters) or "none"
        raise ValueError(f"No trial has the hyperparameter {name!r}; there are: {known}.")
    ax = _axes(ax)
    looks = glyphs_of(story)
    values = [story.sign * loss for loss in story.outcomes]
    y = objective_scale(values, story.sign)
    slots = {text: float(index) for index, text in enumerate(map(str, parameter.distinct))}
    for trial, reached, value in zip(story.trials, values, parameter.values, strict=True):
        if value is None or math.isnan(reached):
            continue
        x = float(value) if parameter.numeric else slots[str(value)]
        ax.plot([x], [y.clamp(reached, story.sign)], **_marker(looks[trial.ending.cause]))
    if parameter.numeric:
        _show(ax, scale_of(parameter.distinct, pad=0.05, wide=SPREAD), "x")
    else:
        ax.set_xticks(list(slots.values()), list(slots))
        ax.set_xlim(-0.5, len(slots) - 0.5)
    _show(ax, y, "y")
    ax.set(xlabel=name, ylabel=f"best {story.metric}")
    return ax


def plot_hyperparameters(story: Story, ax: Axes | None = None) -> Axes:
    """How much of the ranking of trials each hyperparameter by itself explains, 0 to 1.

    The strongest on top; none of which that is not known, as there are too few trials. The dotted
    line: what one without any influence exceeds in about one of twenty sweeps.
    """
    ax = _axes(ax)
    told = [(parameter, story.strength(parameter)) for parameter in story.swept]
    swept = [parameter for parameter, strength in told if not math.isnan(strength)]
    ax.barh(range(len(swept)), [strength for _, strength in told[: len(swept)]], color="0.4")
    ax.axvline(by_chance(story.judged), color="0.2", linestyle=":")
    if not swept:
        ax.text(0.5, 0.5, too_few(story.judged), ha="center", transform=ax.transAxes)
    ax.set_yticks(range(len(swept)), [parameter.name for parameter in swept])
    ax.invert_yaxis()
    ax.set(xlabel=f"goes with the ranking by {story.metric}", xlim=(0, 1))
    return ax


def plot_metric(story: Story, name: str, ax: Axes | None = None) -> Axes:
    """A further metric of all trials: a gradient norm, a learning rate.

    `ValueError` if no trial reported it; the message lists those that were.
    """
    known = dict.fromkeys(key for trial in story.trials for key in trial.extras)
    if name not in known:
        raise ValueError(f"The story has no {name!r}; it has: {', '.join(known) or 'none'}.")
    ax = _axes(ax)
    looks = glyphs_of(story)
    trials = [trial for trial in story.trials if name in trial.extras]
    for trial in trials:
        best = trial is story.best
        ax.plot(
            [step for step, _ in trial.extras[name]],
            [value for _, value in trial.extras[name]],
            color=BEST if best else looks[trial.ending.cause].light,
            linewidth=2 if best else 0.9,
            alpha=1 if best else FAINT,
        )
    _show(ax, _range_of(trials, name), "y")
    ax.set(xlabel=story.time_attr, ylabel=name)
    return ax


def _range_of(trials: list[TrialStory], name: str) -> Scale:
    return scale_of([value for trial in trials for _, value in trial.extras[name]], pad=0.03)


def _axes(ax: Axes | None) -> Axes:
    """The axes given, or new ones; what to install where there is no matplotlib."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "Figures need matplotlib: pip install 'tune_stoppers[plots]'. The HTML page does not."
        ) from error
    return plt.subplots(layout="constrained")[1] if ax is None else ax


def _marker(glyph: Glyph) -> dict[str, Any]:
    hollow = {} if glyph.filled else {"markerfacecolor": "none"}
    return {"marker": glyph.marker, "color": glyph.light, "markersize": 5, **hollow}


def _show(ax: Axes, scale: Scale, side: str) -> None:
    """Set the range, and logarithms where it is wide."""
    axis, limits = (ax.set_xscale, ax.set_xlim) if side == "x" else (ax.set_yscale, ax.set_ylim)
    axis("log" if scale.log else "linear")
    limits(scale.low, scale.high)


def _legend(story: Story, looks: dict[str, Glyph], ax: Axes) -> None:
    """Causes by their glyphs."""
    for cause, trials in story.causes.items():
        label = f"{cause} ({len(trials)})"
        ax.plot([], [], linestyle="", label=label, **_marker(looks[cause]))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize="small", frameon=False)


def _time_label(story: Story, name: str) -> str:
    return f"time since the first start, {name}" if story.clock == "s" else "virtual time, reports"
