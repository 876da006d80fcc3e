"""What `tune-stoppers watch` shows: the sweep as it stands, and a line to type into."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from rich.console import Group
from rich.table import Table
from rich.text import Text

from tune_stoppers.experiment.journals import merged, objective_of
from tune_stoppers.journal.lines import GIVEN_UP, RESUMED, STARTED
from tune_stoppers.metrics import number
from tune_stoppers.report import compute
from tune_stoppers.report.data.explain import Explained, TrialTold, number_of
from tune_stoppers.report.data.journalled import went_on, why_of
from tune_stoppers.report.data.watching import Event, Watch, open_first, seconds_left
from tune_stoppers.report.scales import duration

HINT = "stop TRIAL [why] and Enter asks for a trial to be stopped; q and Enter leaves"
BESIDE = 9  # lines of a window beside the trials
HEADER = ("trial", "status", "step", "value", "best", "why")
CHOSEN = (STARTED, RESUMED, GIVEN_UP)  # what a scheduler does beside judging reports
NUMBERS = ("step", "value", "best")


def headline(watch: Watch) -> list[str]:
    """The sweep in a few lines: trials, best so far, saved so far, time left."""
    told = watch.told
    if told is None:
        return [f"{watch.experiment.root}: no trial has begun yet"]
    statuses = Counter(trial.record.status for trial in told.trials)
    counts = ", ".join(f"{many} {status}" for status, many in statuses.most_common())
    lines = [f"{told.name}: {len(told.trials)} trials: {counts}"]
    if (best := watch.best) is not None:
        at = f"{best['metric']} {best['value']:.6g}, trial {best['trial']} at step {best['step']:g}"
        lines.append(f"best so far: {at}")
    totals = told.totals
    if totals.spent > 0:
        lines.append(f"spent {duration(totals.spent)}, {compute.headline(totals, totals.share)}")
    if watch.ended:
        return [*lines, "the sweep has ended"]
    left = seconds_left(told)
    known = f"about {duration(left)}, if no trial is stopped any more"
    return [*lines, f"time left: {'not known' if math.isnan(left) else known}"]


def rows(told: Explained, most: int) -> list[tuple[str, ...]]:
    """The trials, those that run first, then the best; at most so many."""
    _, mode = objective_of(merged(told.runs))
    sign = -1 if mode == "max" else 1
    best = {trial.trial_id: _best(trial, sign) for trial in told.trials}

    def order(trial: TrialTold) -> tuple[int, float]:
        loss = best[trial.trial_id]
        return open_first(trial.record.status), math.inf if loss is None else sign * loss

    shown = sorted(told.trials, key=order)[:most]
    return [
        (
            trial.trial_id,
            trial.record.status,
            _short(trial.step),
            _short(trial.value),
            _short(best[trial.trial_id]),
            _why(trial),
        )
        for trial in shown
    ]


def view(watch: Watch, height: int, said: str = "", typed: str | None = None) -> Group:
    """The whole window. `typed`: what is being typed; None: nothing can be."""
    parts: list[Text | Table] = [Text(line) for line in headline(watch)]
    if watch.told is not None:
        most = max(height - BESIDE, 1)
        table = Table(box=None, pad_edge=False, expand=True)
        for name in HEADER:
            side: Literal["left", "right"] = "right" if name in NUMBERS else "left"
            rest = 1 if name == HEADER[-1] else None  # takes what the others leave
            table.add_column(name, justify=side, no_wrap=True, ratio=rest)
        for row in rows(watch.told, most):
            table.add_row(*map(Text, row))
        more = len(watch.told.trials) - most
        parts += [Text(""), table, *([Text(f"and {more} more")] if more > 0 else [])]
    if typed is not None:
        parts += [Text(said or HINT, style="dim"), Text(f"> {typed}")]
    return Group(*parts)


def sentence(event: Event, begin: float) -> str:
    """An event in a line; "" for those that nobody waits for: decisions to continue, accounts."""
    at = f"+{(number(event.get('time')) or begin) - begin:.0f} s"
    kind, trial = event["kind"], event.get("trial") or "the sweep"
    if kind == "best":
        return f"{at}  {trial}: best so far, {event['metric']} {event['value']:.6g}"
    if kind == "status":
        return f"{at}  {trial}: {event['status']}"
    if kind == "end":
        counts = ", ".join(f"{many} {status}" for status, many in event["trials"].items())
        return f"{at}  the sweep has ended: {counts}"
    if kind == "event":
        why = why_of(event)
        if event["event"] not in CHOSEN or not why:
            return ""
        told = why if went_on(event) else f"{event['event']}: {why}"
        return f"{at}  {trial}: {told}"
    if event["action"] == "CONTINUE":
        return ""
    step = number(event.get("step")) or 0.0
    dry = " (dry run)" if event.get("dry_run") else " (not yet)" if event.get("early") else ""
    return f"{at}  {trial} step {step:g}: {event['action']}{dry}, {event['owner']}: {why_of(event)}"


class Prompt:
    """What has been typed so far."""

    def __init__(self) -> None:
        self.typed = ""

    def feed(self, keys: str) -> list[str]:
        """Take keys; the lines that they have completed."""
        done = []
        for key in keys:
            if key in "\r\n":
                done.append(self.typed.strip())
                self.typed = ""
            elif key in "\b\x7f":
                self.typed = self.typed[:-1]
            elif key.isprintable():
                self.typed += key
        return [line for line in done if line]


def _best(trial: TrialTold, sign: int) -> float | None:
    values: Sequence[float | None] = [number_of(line.get("value")) for line in trial.counted]
    known = [sign * value for value in values if value is not None and math.isfinite(value)]
    return sign * min(known) if known else None


def _why(trial: TrialTold) -> str:
    if trial.record.reason or trial.ending.kind in ("failed", "stopped"):
        return trial.ending.reason
    return why_of(trial.decisions[-1]) if trial.decisions else ""


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
