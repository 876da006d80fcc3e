"""What a scheduler remembers, in memory and beside the experiment, across `Tuner.restore`.

The record of its rule, and of each trial its configuration and its time. Everything that changes
them is a line of the journal; now and then the whole is written as a state. A run's files are its
own: their folder is named by the birth of the experiment and by the scheduler, so a new
experiment under an old name starts clean.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from tune_stoppers.codec import RECORD_FORMAT
from tune_stoppers.core import SweepRule
from tune_stoppers.core.track import Timeline
from tune_stoppers.experiment.configs import as_data
from tune_stoppers.journal.fold import fold
from tune_stoppers.journal.lines import (
    BEGINS,
    CONFIG,
    ENDED,
    FORGOT,
    OVER,
    RESTORED,
    STARTED,
    TRIAL,
    UNJUDGED,
    USER,
    Line,
    asked,
    asks_to_stop,
    event_line,
)
from tune_stoppers.journal.recorder import Recorder, Remembered
from tune_stoppers.journal.spec import to_spec
from tune_stoppers.metrics import number
from tune_stoppers.tune.ray_internals.types import Trial
from tune_stoppers.tune.storage import recorder_for

logger = logging.getLogger("tune_stoppers")

LINES_BETWEEN_STATES = 500
ANEW = (
    "%s: the sweep begins anew, under new trial ids, and %s are forgotten. They stay in the "
    "folder: best_states(..., generation=1) shows them."
)

R = TypeVar("R")


def fingerprint(config: Mapping[str, Any]) -> str:
    """A short name of a configuration, the same in every process."""
    return hashlib.sha256(json.dumps(_named(config)).encode()).hexdigest()[:16]


def _named(value: Any) -> Any:
    """`value` as JSON data in one order; what is neither text nor a number by its type."""
    if isinstance(value, Mapping):
        return sorted(((str(key), _named(item)) for key, item in value.items()), key=str)
    if isinstance(value, list | tuple):
        return [_named(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    as_number = number(value)  # of numpy, say
    return type(value).__name__ if as_number is None else as_number


def told(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the journal says of a configuration beside its fingerprint, as far as it can."""
    values = as_data(config)
    return {} if values is None else {"values": values}


class KnownTrial:
    """A trial as a scheduler remembers it."""

    __slots__ = ("ahead", "configs", "ended", "metrics", "started", "stopped", "time")

    def __init__(self, configs: list[str]) -> None:
        self.configs = configs  # fingerprints, oldest first
        self.time = Timeline()
        self.ahead: float | None = None  # restored: reports up to here were judged before
        self.ended = False
        self.started = False  # by a scheduler that held it back; it may not have reported yet
        self.stopped = ""  # why it is to stop, whatever it reports
        self.metrics: Mapping[str, float] = {}  # of its newest report, those that the rule reads

    def end(self, step: float) -> None:
        """The trial has ended with a report at `step`, which may not have been judged before."""
        self.ended = True
        if self.time.step is None or step > self.time.step:
            self.time.step = step

    def repeats(self, step: float) -> bool:
        """Whether a report at `step` was judged before the restore; `catching_up` ends that."""
        return self.ahead is not None and step <= self.ahead

    def catching_up(self, step: float) -> bool:
        """Whether a report at `step` repeats what was judged before the restore."""
        if self.ahead is None or step >= self.ahead:
            self.ahead = None
            return False
        return True


class Memory(Generic[R]):
    """The record of `rule`, and where each trial is."""

    def __init__(self, owner: str, rule: SweepRule[R], uid: str) -> None:
        self.owner, self.rule, self.uid = owner, rule, uid
        self.record = rule.init()
        self.trials: dict[str, KnownTrial] = {}
        self.sign = 1
        self.over = ""  # why the search has ended
        self.fit: Any = []  # of the model that compares the trials, as it was last fitted
        self._recorder: Recorder | None = None
        self._opened = False
        self._unmet: set[str] | None = None  # restored, and not seen among Ray's trials yet
        self.recalled = 0  # trials remembered from before a restore
        self._lines = 0  # since the last state

    def register(self, trial: Trial, sign: int, **task: Any) -> KnownTrial:
        """Ray has added a trial: a new one, one that is tried again, or one that is restored.

        `task`: what the journal is to say of the sweep: its metric and what counts as time.

        What was remembered of it is kept if its configuration is one that it had.
        """
        if not self._opened:
            self._open(trial, sign, task)
        config = fingerprint(trial.config)
        known = self.trials.get(trial.trial_id)
        if self._unmet is not None and trial.trial_id in self._unmet:
            self._unmet.discard(trial.trial_id)
            if known is not None and config not in known.configs:
                self._forget([trial.trial_id])
                known = None
        if known is None:
            known = self.trials[trial.trial_id] = KnownTrial([config])
            self.log_event(trial.trial_id, TRIAL, config=config, **told(trial.config))
        return known

    def reconfigured(self, trial: Trial) -> None:
        """The trial continues with another configuration, which identifies it too."""
        config = fingerprint(trial.config)
        self.trials[trial.trial_id].configs.append(config)
        self.log_event(trial.trial_id, CONFIG, config=config, **told(trial.config))

    def known(self, trial_id: str) -> KnownTrial:
        """What is remembered of a trial; a stranger is new."""
        known = self.trials.get(trial_id)
        if known is None:
            known = self.trials[trial_id] = KnownTrial([])
        return known

    def finish_restore(self) -> None:
        """All restored trials have been met: the others never were."""
        if self._unmet is None:
            return
        unmet, self._unmet = sorted(self._unmet), None
        judged = [t for t in unmet if (known := self.trials.get(t)) and known.time.step is not None]
        if judged and len(unmet) == self.recalled:
            logger.warning(ANEW, self.owner, f"the trials judged before ({len(judged)})")
        if unmet:
            self._forget(unmet)
        self._save()

    @property
    def keeps(self) -> bool:
        """Whether anything is written: a replay has no storage."""
        return self._recorder is not None

    def end(self, why: str) -> None:
        """The search has ended."""
        self.over = why
        self.log_event("", OVER, why=why)

    @property
    def requested(self) -> dict[str, str]:
        """Trials that a user wants stopped, and why."""
        return {} if self._recorder is None else self._recorder.requested

    def honoured(self, trial_id: str) -> None:
        """A request to stop this trial has been met."""
        if self._recorder is not None:
            self._recorder.honoured(trial_id)

    def log(self, line: Callable[[], Line]) -> None:
        """Append the line that `line` makes to the journal; a state follows now and then."""
        if self._recorder is None:
            return
        self._recorder.write(line)
        self._lines += 1
        if self._lines >= max(LINES_BETWEEN_STATES, 2 * len(self.trials)):
            self._save()

    def log_event(self, trial_id: str, event: str, **more: Any) -> None:
        """Append an event to the journal."""
        line = event_line(self.owner, trial_id, event, **more)
        self.log(lambda: line)

    def flush(self) -> None:
        """Wait until all is on storage."""
        if self._recorder is not None:
            self._recorder.flush()

    def last_line_with_checkpoint(self, trial_id: str, checkpoint: str) -> Line | None:
        """The newest line about a report of the trial that came with a checkpoint of this name.

        None if there is none, or the storage cannot be read.
        """
        if self._recorder is None:
            return None
        self.flush()
        wanted = trial_id, checkpoint
        try:
            return self._recorder.newest(
                lambda line: (line.get("trial"), line.get("checkpoint")) == wanted
            )
        except (OSError, ValueError) as error:
            logger.warning("%s: the journal cannot be read (%s).", self.owner, error)
            return None

    def _open(self, trial: Trial, sign: int, task: dict[str, Any]) -> None:
        self._opened, self.sign = True, sign
        self._recorder = recorder_for(trial, self.owner, self.uid)
        if self._recorder is None:
            return
        remembered = self._recorder.read(self._accepts)
        self._recorder.watch()
        if remembered.state is None and not remembered.lines:
            if self._recorder.has_twin():
                logger.warning(ANEW, self.owner, "its trials from before")
            said = {"rule": self.rule.signature, "spec": to_spec(self.rule)}
            self.log_event("", BEGINS, sign=sign, **task, **said)
            return
        self._recall(remembered)
        self._unmet = set(self.trials)
        self.recalled = len(self._unmet)
        self.log_event("", RESTORED, trials=len(self.trials))

    def _accepts(self, state: Any) -> bool:
        """Whether `state` is of this rule and can be read; if so, its record is the record.

        One of another format is left alone, as one of another rule: the journal says it all.
        """
        written = state["rule"], state.get("format")
        if written != (self.rule.signature, RECORD_FORMAT):
            return False
        try:
            self.record = self.rule.load(state["record"])
        except Exception as error:  # whatever a rule's `load` runs into, also a user's own
            text = "%s: a state cannot be used (%r); what was written before it is used."
            logger.warning(text, self.owner, error)
            return False
        return True

    def _recall(self, remembered: Remembered) -> None:
        state = remembered.state
        if state is not None:
            self.over, self.fit = state["over"], state.get("fit", [])
            for trial_id, kept in state["trials"].items():
                configs, step, ended, stopped, metrics, *more = kept
                known = self.trials[trial_id] = KnownTrial(configs)
                known.time.step, known.ended, known.stopped = step, ended, stopped
                known.metrics = {name: float(value) for name, value in metrics.items()}
                known.started = bool(more and more[0])
        for line in remembered.lines:
            self._recall_time(line)
        for _ in fold(self.rule, self.record, remembered.lines, self.sign):
            pass
        for known in self.trials.values():
            known.ahead = known.time.step

    def _recall_time(self, line: Line) -> None:
        trial_id, event = line.get("trial", ""), line.get("event")
        self.fit = (line.get("numbers") or {}).get("fit", self.fit)
        if event == FORGOT:
            for gone in line["trials"]:
                self.trials.pop(gone, None)
        elif event in (TRIAL, CONFIG):
            self.known(trial_id).configs.append(line["config"])
        elif "action" in line:
            known = self.known(trial_id)
            known.time.place(line["step"])
            known.metrics = {name: float(v) for name, v in line.get("metrics", {}).items()}
            if asks_to_stop(line):
                known.stopped = f"{self.owner}: {line['reason']}"
        elif event == ENDED:
            self.known(trial_id).end(line["step"])
        elif event == UNJUDGED:
            self.known(trial_id).ended = True
        elif event == STARTED:
            self.known(trial_id).started = True
        elif event == USER:
            self.known(trial_id).stopped = asked(line["numbers"]["why"])
        elif event == OVER:
            self.over = line["why"]

    def _forget(self, trial_ids: Iterable[str]) -> None:
        gone = list(trial_ids)
        for trial_id in gone:
            self.trials.pop(trial_id, None)
        self.rule.forget(self.record, gone)
        self.log_event("", FORGOT, trials=gone)

    def _save(self) -> None:
        if self._recorder is None:
            return
        self._lines = 0
        body = {
            "rule": self.rule.signature,
            "format": RECORD_FORMAT,
            "over": self.over,
            "fit": self.fit,
            "trials": {
                trial_id: (
                    list(known.configs),
                    known.time.step,
                    known.ended,
                    known.stopped,
                    dict(known.metrics),
                    known.started,
                )
                for trial_id, known in self.trials.items()
            },
        }
        record = self.rule.freeze(self.record)  # it keeps changing
        self._recorder.save(lambda: body | {"record": record()})
