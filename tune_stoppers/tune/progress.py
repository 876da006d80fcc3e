"""`SweepReporter`: what a running sweep does, in one line, and why each trial ends."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ray.tune import ProgressReporter
from rich.console import Console
from rich.live import Live
from rich.text import Text

from tune_stoppers.core import require_number
from tune_stoppers.metrics import lookup, number
from tune_stoppers.result_keys import STOP_REASON
from tune_stoppers.tune.ray_internals.types import PAUSED, PENDING, RUNNING, Trial

EVERY = 30.0  # seconds between plain lines
REFRESH = 0.5  # seconds between changes of the line in a terminal
MOST_PARAMETERS = 4  # that a trial's line names
SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


class SweepReporter(ProgressReporter):
    """One line on how far the sweep is, and one when a trial starts or ends, with the reason.

    `RunConfig(progress_reporter=SweepReporter(), verbose=1)`. In a terminal and in a notebook the
    line on the sweep is kept up to date in place; elsewhere it is printed every `every` seconds.
    It says how many trials have ended, run, wait (paused or not started); the best value so far;
    how much of the training was saved by those that have ended, against the longest trial; and how
    long it takes at most, if every trial that is left runs as long as the longest, at the pace so
    far.

    Args:
        max_t: reports of a full run, where trials are to be measured against that; None: against
            the longest trial so far.
        every: seconds between the lines, where they are printed one below another.

    Two settings of Ray are made in the environment, unless they are there: RAY_AIR_NEW_OUTPUT=0, as
    Ray else prints its own tables and no reporter's; and the warning that snapshots are frequent is
    silenced, as `checkpoint_config` causes it.
    """

    def __init__(self, max_t: float | None = None, *, every: float = EVERY) -> None:
        if max_t is not None:
            require_number("max_t", max_t, above=0)
        require_number("every", every, at_least=0)
        self.max_t, self.every = max_t, every
        self._console: Console | None = None
        self._live: Live | None = None
        self._metric: str | None = None
        self._sign = 1
        self._total: int | None = None
        self._began = self._told = time.time()
        self._said = ""
        self._states: dict[str, str] = {}  # of the trials that were told about
        self._bests: dict[str, float] = {}  # lowest loss of each trial
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        """Ray keeps it with the experiment: what it has seen is said anew after a restore."""
        return _made, (self.max_t, self.every)

    def setup(
        self,
        start_time: float | None = None,
        total_samples: int | None = None,
        metric: str | None = None,
        mode: str | None = None,
        **kwargs: Any,
    ) -> None:
        """What Ray says of the sweep before it begins."""
        self._began = start_time or time.time()
        self._total = total_samples
        self._metric, self._sign = metric, -1 if mode == "max" else 1
        self._console = console()

    def should_report(self, trials: Sequence[Trial], done: bool = False) -> bool:
        """Whenever Ray asks; what has not changed is not said again."""
        return True

    def report(self, trials: Sequence[Trial], done: bool, *sys_info: str) -> None:
        """Say what is new."""
        out = self._console = self._console or console()
        for trial in trials:
            self._look(trial, out)
        now = time.time()
        terminal = out.is_terminal or out.is_jupyter
        if not done and now - self._told < (REFRESH if terminal else self.every):
            return
        line = self.line(trials, now)
        self._told = now
        if not terminal:
            if line != self._said:
                out.print(line, soft_wrap=True, markup=False)
            self._said = line
            return
        if self._live is None:
            self._live = Live(console=out, auto_refresh=False)
            self._live.start()
        self._live.update(Text(line, overflow="ellipsis", no_wrap=not done), refresh=True)
        if done:
            self._live.stop()
            self._live = None

    def line(self, trials: Sequence[Trial], now: float) -> str:
        """The state of the sweep in a line."""
        ended = [trial for trial in trials if trial.is_finished()]
        running = sum(trial.status == RUNNING for trial in trials)
        total = max(self._total or 0, len(trials))
        waiting = [trial for trial in trials if trial.status in (PAUSED, PENDING)]
        paused = sum(bool(_reports(trial)) for trial in waiting)
        counts = {"running": running, "paused": paused}
        counts["not started"] = total - len(ended) - running - paused
        told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        parts = [f"{len(ended)} of {total} ended", *([told] if told else [])]
        if failed := sum(trial.status == "ERROR" for trial in trials):
            parts.append(f"{failed} failed")
        if self._bests:
            trial_id = min(self._bests, key=self._bests.__getitem__)
            best = self._sign * self._bests[trial_id]
            parts.append(f"best {self._metric} {best:.6g} ({trial_id})")
        done = sum(_reports(trial) for trial in trials)
        whole = self.max_t or max((_reports(trial) for trial in trials), default=0)
        if ended and whole:
            saved = 1 - sum(min(_reports(trial) / whole, 1.0) for trial in ended) / len(ended)
            parts.append(f"{saved:.0%} of their training saved")
        parts.append(f"{_span(now - self._began)} so far")
        left = sum(max(whole - _reports(trial), 0) for trial in trials if not trial.is_finished())
        left += whole * (total - len(trials))
        if done and left and ended:
            parts.append(f"at most {_span((now - self._began) * left / done)} left")
        return " · ".join(parts)

    # -- inside --------------------------------------------------------------------------------

    def _look(self, trial: Trial, out: Console) -> None:
        result, trial_id = trial.last_result or {}, trial.trial_id
        value = number(lookup(result, self._metric)) if self._metric else None
        if value is not None:
            loss = self._sign * value
            if loss == loss:  # no NaN
                self._bests[trial_id] = min(loss, self._bests.get(trial_id, loss))
        before, status = self._states.get(trial_id), trial.status
        if status == before:
            return
        self._states[trial_id] = status
        if status == RUNNING and before in (None, PENDING) and not _reports(trial):
            out.print(f"{trial_id} starts: {_parameters(trial)}", soft_wrap=True, markup=False)
        elif trial.is_finished() and before is not None:  # else before a restore
            out.print(f"{trial_id} {self._end(trial, result)}", soft_wrap=True, markup=False)

    def _end(self, trial: Trial, result: Mapping[str, Any]) -> str:
        count = _reports(trial)
        if not count:
            return f"was not started: {result.get(STOP_REASON) or 'the sweep has ended'}"
        word = "failed" if trial.status == "ERROR" else "ends"
        text = f"{word} after {count} report{'s' * (count != 1)}"
        if trial.trial_id in self._bests:
            text += f", best {self._sign * self._bests[trial.trial_id]:.6g}"
        why = result.get(STOP_REASON)
        return f"{text}: {why}" if why else text


def console() -> Console:
    """Standard output."""
    return Console(highlight=False)


def _made(max_t: float | None, every: float) -> SweepReporter:
    return SweepReporter(max_t, every=every)


def _reports(trial: Trial) -> int:
    return int((trial.last_result or {}).get("training_iteration") or 0)


def _parameters(trial: Trial) -> str:
    given = getattr(trial, "evaluated_params", None) or trial.config  # what is not the same for all
    named = [
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in given.items()
        if isinstance(value, int | float | str)
    ]
    more = f", and {len(named) - MOST_PARAMETERS} more" if len(named) > MOST_PARAMETERS else ""
    return ", ".join(named[:MOST_PARAMETERS]) + more


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
