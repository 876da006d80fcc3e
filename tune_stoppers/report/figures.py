"""The pictures of a report as matplotlib axes, for a paper or a notebook.

Each function draws on `ax`, or on axes of its own, and returns them::

    story = experiment_story("results/my_sweep", "eval_loss", "min")
    plot_curves(story).figure.savefig("curves.pdf")

They need the extra `plots`: without matplotlib they raise ImportError, which says how to get it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tune_stoppers.report import pictures
from tune_stoppers.report.data.story import Story
from tune_stoppers.report.glyphs import ALL, SHAPES, Glyph
from tune_stoppers.report.pictures.picture import Bar, Label, Line, Mark, Picture, Rule
from tune_stoppers.report.scales import Scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEST = "black"
GREY = {"color": "0.5", "linewidth": 0.8}
LINES: dict[str, dict[str, Any]] = {  # by role; those of a trial in its colour
    "curve": {"linewidth": 0.9, "alpha": 0.5},
    "recorded": {"linewidth": 0.9, "alpha": 0.3, "linestyle": ":"},
    "envelope": {"color": BEST, "linewidth": 1, "linestyle": ":"},
    "median": {"color": "0.4", "linewidth": 1.2, "linestyle": "--"},
    "lead": {"color": BEST, "linewidth": 1.5},
    "unstopped": {"color": "0.5", "linewidth": 1.2, "linestyle": "--"},
    "rung": {**GREY, "linestyle": "--"},
    "threshold": {**GREY, "linestyle": "--"},
    "axis": GREY,
}
FILLED = {glyph.name: glyph.filled for glyph in ALL}
MARKERS = {name: marker for name, (_, marker) in SHAPES.items()}
MARKERS |= {glyph.name: glyph.marker for glyph in ALL}


def plot_curves(story: Story, ax: Axes | None = None) -> Axes:
    """Learning curves with the glyph of each ending, the best trial, rungs and thresholds.

    Of more than 120 trials a sample, with bands of percentiles for all.
    """
    return draw(pictures.curves(story), ax)


def plot_incumbent(story: Story, ax: Axes | None = None) -> Axes:
    """The best value so far against time."""
    return draw(pictures.incumbent(story), ax)


def plot_timeline(story: Story, ax: Axes | None = None) -> Axes:
    """Which trial ran when, on as many rows as ran at a time, and what happened to it."""
    return draw(pictures.timeline(story), ax)


def plot_endings(story: Story, ax: Axes | None = None) -> Axes:
    """Per cause of ending: the time spent, and, pale, what continuing would have taken."""
    return draw(pictures.endings(story), ax)


def plot_hyperparameter(story: Story, name: str, ax: Axes | None = None) -> Axes:
    """The best value of each trial once it trained against one hyperparameter.

    `ValueError` if no trial has it; the message lists those that there are.
    """
    parameter = next((p for p in story.parameters if p.name == name), None)
    if parameter is None:
        known = ", ".join(p.name for p in story.parameters) or "none"
        raise ValueError(f"No trial has the hyperparameter {name!r}; there are: {known}.")
    return draw(pictures.scatter(story, parameter), ax)


def plot_hyperparameters(story: Story, ax: Axes | None = None) -> Axes:
    """How much of the ranking of trials each hyperparameter by itself explains, 0 to 1.

    The strongest on top; none of which that is not known, as there are too few trials. The dashed
    line: what one without any influence exceeds in about one of twenty sweeps.
    """
    return draw(pictures.strengths(story), ax)


def plot_parallel(story: Story, ax: Axes | None = None) -> Axes:
    """Parallel coordinates: each trial through up to eight hyperparameters to its best value."""
    return draw(pictures.parallel(story), ax)


def plot_metric(story: Story, name: str, ax: Axes | None = None) -> Axes:
    """A further metric of all trials: a gradient norm, a learning rate.

    `ValueError` if no trial reported it; the message lists those that were.
    """
    known = dict.fromkeys(key for trial in story.trials for key in trial.extras)
    if name not in known:
        raise ValueError(f"The story has no {name!r}; it has: {', '.join(known) or 'none'}.")
    return draw(pictures.metric_curves(story, name), ax)


def draw(picture: Picture, ax: Axes | None = None) -> Axes:
    """Any picture on `ax`, or on axes of its own."""
    ax = _axes(ax)
    for mark in picture.marks:
        _DRAW[type(mark)](mark, ax)
    for side, axis in (("x", picture.x), ("y", picture.y)):
        _scale(ax, side, axis.scale)
        getattr(ax, f"set_{side}label")(axis.name)
        if axis.labels != "round":
            at, texts = [value for value, _ in axis.ticks], [text for _, text in axis.ticks]
            getattr(ax, f"set_{side}ticks")(at, texts)
            getattr(ax, f"{side}axis").minorticks_off()
    for key in picture.key:
        ax.plot([], [], label=key.text, **_look(key.shape, key.glyph))
    if picture.key:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize="small", frameon=False)
    return ax


def _line(line: Line, ax: Axes) -> None:
    x, y = [step for step, _ in line.points], [value for _, value in line.points]
    if line.role == "band":
        ax.fill(x, y, color="0.5", alpha=0.2, linewidth=0)
        return
    best = line.trial is not None and line.trial.best and line.role == "curve"
    look = dict(LINES[line.role])
    if line.trial is not None:
        look |= {"color": line.trial.glyph.light}
    look |= {"color": BEST, "linewidth": 2, "alpha": 1} if best else {}
    ax.plot(x, y, drawstyle="steps-post" if line.steps else "default", **look)


def _rule(rule: Rule, ax: Axes) -> None:
    (ax.axvline if rule.upright else ax.axhline)(rule.at, zorder=1, **LINES[rule.role])
    if rule.text:
        transform = ax.get_xaxis_transform() if rule.upright else ax.get_yaxis_transform()
        at = (rule.at, 1.0) if rule.upright else (1.0, rule.at)
        side = "left" if rule.upright else "right"
        ax.text(*at, rule.text, transform=transform, fontsize=7, va="bottom", ha=side)


def _mark(mark: Mark, ax: Axes) -> None:
    look = _look(mark.shape, mark.trial.glyph if mark.trial else None)
    if mark.role == "star" or (mark.role == "mark" and mark.shape in SHAPES):
        look |= {"color": BEST, "markersize": 11 if mark.role == "star" else 5}
    ax.plot([mark.x], [mark.y], zorder=4, clip_on=False, **look)


def _bar(bar: Bar, ax: Axes) -> None:
    glyph, best = (
        bar.trial.glyph if bar.trial else bar.glyph,
        bar.trial is not None and bar.trial.best,
    )
    ax.barh(
        bar.y,
        bar.end - bar.begin,
        left=bar.begin,
        height=bar.thickness,
        color=glyph.light if glyph else "0.4",
        alpha=0.35 if bar.role == "spare" else 1,
        edgecolor=BEST if best else "none",
        zorder=3 if best else 2,
    )


def _label(label: Label, ax: Axes) -> None:
    ax.annotate(
        label.text,
        (label.x, label.y),
        ({"start": 6, "middle": 0, "end": -6}[label.side], -12 if label.below else 6),
        textcoords="offset points",
        ha={"start": "left", "middle": "center", "end": "right"}[label.side],
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1},
        zorder=5,
    )


_DRAW: dict[type, Any] = {Line: _line, Rule: _rule, Mark: _mark, Bar: _bar, Label: _label}


def _look(shape: str, glyph: Glyph | None) -> dict[str, Any]:
    hollow = {} if FILLED.get(shape, shape != "would") else {"markerfacecolor": "none"}
    color = glyph.light if glyph and not shape.startswith("e-") else BEST
    size = {"marker": MARKERS[shape], "color": color, "markersize": 5}
    return {"linestyle": "", **size, **hollow}


def _scale(ax: Axes, side: str, scale: Scale) -> None:
    """The range, and logarithms where it is wide."""
    getattr(ax, f"set_{side}scale")("log" if scale.log else "linear")
    getattr(ax, f"set_{side}lim")(scale.low, scale.high)


def _axes(ax: Axes | None) -> Axes:
    """The axes given, or new ones; what to install where there is no matplotlib."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "Figures need matplotlib: pip install 'tune_stoppers[plots]'. The HTML page does not."
        ) from error
    return plt.subplots(layout="constrained")[1] if ax is None else ax
