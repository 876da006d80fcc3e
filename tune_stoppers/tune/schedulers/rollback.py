"""`RollbackScheduler`: the rule `Rollback` under Ray Tune."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Unpack

from ray.tune import Stopper

from tune_stoppers.core import Action, BaseRule, Decision, require, require_number
from tune_stoppers.metrics import closest, flat_keys, logger, lookup, number
from tune_stoppers.result_keys import CHECKPOINT_NAME
from tune_stoppers.rules.sweep.rollback import (
    BLOWN_UP,
    GONE,
    WENT_BACK,
    Anchor,
    Rollback,
    RollbackRecord,
)
from tune_stoppers.rules.trial.divergence import Divergence
from tune_stoppers.tune.live import Live
from tune_stoppers.tune.ray_internals.controller import (
    checkpoint_of,
    keep_checkpoint,
    members_of,
    remind_of,
    resume_from,
    stopper_of,
)
from tune_stoppers.tune.ray_internals.train_runs import REFUSAL, has_train_workers
from tune_stoppers.tune.ray_internals.types import (
    PAUSED,
    PENDING,
    CheckpointResult,
    Controller,
    Trial,
)
from tune_stoppers.tune.restore.journalled_results import is_as_saved, is_there, result_of
from tune_stoppers.tune.schedulers.base import CONTINUE, PAUSE, Common, SweepScheduler
from tune_stoppers.tune.schedulers.memory import fingerprint
from tune_stoppers.tune.stoppers.base import RuleStopper
from tune_stoppers.tune.stoppers.combinators import AnyOf

Config = dict[str, Any]


class GoingBack(Live):
    """Who is to go back, and what has been looked at."""

    def __init__(self) -> None:
        self.due: dict[str, Trial] = {}  # trials that are being paused, to go back
        self.checked = False  # the sweep's stopper
        self.warned = False


class RollbackScheduler(SweepScheduler[RollbackRecord]):
    """Sends a trial that is stuck or diverges back to its best checkpoint, at a lower rate.

    ::

        RollbackScheduler(patience=2, lr_key="learning_rate")  # stop_reason where it did not help:
        # "3 of 3 evaluations of recovery without improvement, value 3.3504, best 2.88663 at step 2"

    `rules.Rollback` says exactly when; it continues at once, before other trials. The
    trainable is started again with the changed `config`, and `tune.get_checkpoint()` is the best
    one. It must put its own learning rate into the optimizer after loading the optimizer's
    state: `TuneCallback` does so. Time (`time_attr`) goes back too.

    The best checkpoint is never deleted while it may be needed, whatever `CheckpointConfig` says:
    `num_to_keep=1` is taken as 2. After a kill it is found though Ray's snapshot is too old to
    know of it, unless something else was saved under its name since. A trial without a checkpoint
    is only given more time, and one warning says so. Of a class trainable those count that Ray
    saves by `CheckpointConfig(checkpoint_frequency=…)`: it goes back to the best of these, and its
    `load_checkpoint` must not bring the old learning rate back.

    `ValueError` at the start of the sweep beside a `DivergenceStopper`, which would stop trials
    before they can be rescued, and where `lr_key` is not in the config. Trials of Ray Train
    (`TorchTrainer` and others started in a Tune function) are refused at their first checkpoint,
    which is not Tune's. In a replay no trial goes back, as no recorded curve knows what a lower
    rate would have done: it is only given more time.

    Args:
        patience: evaluations in a row without improvement before a rollback.
        recovery_patience: evaluations after it within which the trial must beat its best.
        factor: the learning rate is multiplied with it at each rollback; between 0 and 1.
        max_rollbacks: of one trial; it stops at the next trouble.
        cooldown: evaluations after a rollback before another.
        lr_key: where in `config` the learning rate is; "optimizer/lr" is `config["optimizer"]
            ["lr"]`.
        mutate: instead of `lr_key` and `factor`: takes a config and returns the next one; must
            give the same for the same.
        divergence: what counts as divergence; None: nothing does. Its limit is in loss units:
            negated where `mode` is "max".
        on_nonfinite: "worst": a value that is not finite is a divergence; "stop" stops the trial,
            "ignore" leaves the report out.
        common: those of `SweepScheduler`.
    """

    def __init__(
        self,
        patience: int = 5,
        recovery_patience: int = 3,
        factor: float = 0.5,
        max_rollbacks: int = 3,
        cooldown: int = 1,
        lr_key: str = "lr",
        *,
        mutate: Callable[[Config], Config] | None = None,
        divergence: Divergence | None = BLOWN_UP,
        **common: Unpack[Common],
    ) -> None:
        rule = Rollback(
            patience=patience,
            recovery_patience=recovery_patience,
            max_rollbacks=max_rollbacks,
            cooldown=cooldown,
            divergence=divergence,
            on_nonfinite=common.get("on_nonfinite", "worst"),
        )
        super().__init__(rule, **common)
        self.rule: Rollback = rule
        require_number("factor", factor, above=0, below=1)
        if not isinstance(lr_key, str) or not lr_key:
            raise TypeError(f"lr_key must be the name of a config entry, got {lr_key!r}.")
        if mutate is not None and not callable(mutate):
            raise TypeError(f"mutate must be a function of a config, got {mutate!r}.")
        self.factor, self.lr_key, self.mutate = factor, lr_key, mutate

    def _begin(self) -> None:
        super()._begin()
        self._live = GoingBack()

    # -- Ray's calls ---------------------------------------------------------------------------

    def on_trial_adopted(self, controller: Controller, trial: Trial) -> None:
        """Check a new sweep and trial; bring one that Ray has restored to where it was."""
        self._check(controller, trial)
        course = self.record.get(trial.trial_id)
        if course is None or trial.status != PENDING:
            return
        known = self._memory.known(trial.trial_id)
        behind = course.rollbacks - _rollbacks_seen(known.configs, fingerprint(trial.config))
        anchor = self.rule.asks(self.record, trial.trial_id)
        if behind > 0:  # Ray's memory is older than the last rollback
            for _ in range(behind):
                trial.set_config(self._next_config(trial.config))
            if len(known.configs) <= course.rollbacks:
                self._memory.reconfigured(trial)
            if course.anchor is not None:
                self._take_to(trial, course.anchor)
        elif anchor is not None and self._acts_at(course.step):
            self._go_back(trial, anchor)
        if known.ahead is not None:
            known.ahead = known.time.step = course.step

    def on_trial_result(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> str:
        """Judge a report; Ray's name for the action."""
        require(
            not has_train_workers(result),
            f"{self.name} cannot roll back trial {trial.trial_id}: {REFUSAL}.",
        )
        action = super().on_trial_result(controller, trial, result)
        course = self.record.get(trial.trial_id)
        if course is not None and course.anchor is not None:
            keep_checkpoint(trial, course.anchor.name)
        elif self.rule.is_stranded(self.record, trial.trial_id) and not self._live.warned:
            self._live.warned = True
            logger.warning(
                "%s: trial %s has no checkpoint to go back to; such trials are given %d more "
                "evaluations instead. Report a checkpoint with each evaluation; for a class "
                "trainable, set checkpoint_frequency in CheckpointConfig.",
                *(self.name, trial.trial_id, self.rule.recovery_patience),
            )
        return action

    def act(
        self, controller: Controller, trial: Trial, result: dict[str, Any], decision: Decision
    ) -> str:
        """Pause a trial that is to go back; one that is saving waits for its next report."""
        if decision.action is not Action.PAUSE:
            return super().act(controller, trial, result, decision)
        anchor = self.rule.asks(self.record, trial.trial_id)
        if anchor is None or trial.is_saving:
            return CONTINUE
        own = anchor.name == result.get(CHECKPOINT_NAME)  # Ray registers it when it pauses
        if not own and self._find(trial, anchor) is None:
            self._sweep.note(trial.trial_id, GONE, checkpoint=anchor.name)
            return CONTINUE
        self._live.due[trial.trial_id] = trial
        return PAUSE

    def choose_trial_to_run(self, controller: Controller) -> Trial | None:
        """A trial that goes back, else Ray's order."""
        self._begin_to_choose(controller)
        for trial_id, trial in self._live.due.items():
            if trial.status == PAUSED:
                del self._live.due[trial_id]
                anchor = self.rule.asks(self.record, trial_id)
                if anchor is not None:
                    self._go_back(trial, anchor)
                return trial
        return super().choose_trial_to_run(controller)

    def on_trial_complete(
        self, controller: Controller, trial: Trial, result: dict[str, Any]
    ) -> None:
        """Record the last report of a trial that ended by itself or by a stopper."""
        self._live.due.pop(trial.trial_id, None)
        super().on_trial_complete(controller, trial, result)

    def on_trial_error(self, controller: Controller, trial: Trial) -> None:
        """A crash or a lost node: if the trial comes back, what is due is done then."""
        self._live.due.pop(trial.trial_id, None)
        super().on_trial_error(controller, trial)

    def on_trial_remove(self, controller: Controller, trial: Trial) -> None:
        """A trial that was never run, or is paused, is dropped."""
        self._live.due.pop(trial.trial_id, None)
        super().on_trial_remove(controller, trial)

    def debug_string(self) -> str:
        """One line: trials and rollbacks."""
        rollbacks = sum(course.rollbacks for course in self.record.values())
        return f"{super().debug_string()}, {rollbacks} rollbacks, {len(self._live.due)} under way"

    # -- going back ----------------------------------------------------------------------------

    def _go_back(self, trial: Trial, anchor: Anchor) -> None:
        """Roll back a trial that does not run."""
        trial_id = trial.trial_id
        if not self._take_to(trial, anchor):
            return
        trial.set_config(self._next_config(trial.config))
        rate = {} if self.mutate else {"lr": number(lookup(trial.config, self.lr_key))}
        self._sweep.note(trial_id, WENT_BACK, checkpoint=anchor.name, step=anchor.step, **rate)
        self._memory.reconfigured(trial)
        self._memory.known(trial_id).time.step = anchor.step

    def _take_to(self, trial: Trial, anchor: Anchor) -> bool:
        """Let the trial continue from there; False, and a note, if that cannot be."""
        found = self._find(trial, anchor)
        if found is None:
            self._sweep.note(trial.trial_id, GONE, checkpoint=anchor.name)
            return False
        resume_from(trial, found)
        return True

    def _find(self, trial: Trial, anchor: Anchor) -> CheckpointResult | None:
        """The checkpoint as Ray has it; None if it is gone, or its name is another's now."""
        found = checkpoint_of(trial, anchor.name) or self._recall(trial, anchor)
        if found is None or number(lookup(found.metrics, self.time_attr)) != anchor.step:
            return None
        return found

    def _recall(self, trial: Trial, anchor: Anchor) -> CheckpointResult | None:
        """One that Ray's snapshot was too old to know, told to Ray; None if there is none."""
        storage = trial.storage  # None in a replay
        if storage is None or not is_there(storage, anchor.name):
            return None
        line = self._memory.last_line_with_checkpoint(trial.trial_id, anchor.name)
        if line is None or line["step"] != anchor.step:
            return None
        if trial.checkpoint_freq:  # of a class, saved after that report and before the next
            course = self.record[trial.trial_id]
            written = course.step != anchor.step or course.watch.rested == 0  # it went back there
        else:
            written = is_as_saved(storage, anchor.name, line)
        if not written:
            return None
        result = result_of(line, self._metric, self.time_attr)
        return None if result is None else remind_of(trial, anchor.name, result)

    def _next_config(self, config: Config) -> Config:
        if self.mutate is None:
            return scaled(config, self.lr_key, self.factor)
        changed = self.mutate(config)
        if not isinstance(changed, dict):
            raise TypeError(f"{self.name} mutate must return a config, got {changed!r}.")
        return changed

    def _acts_at(self, step: float | None) -> bool:
        return not self.dry_run and step is not None and step >= self.start_after

    # -- what is refused -----------------------------------------------------------------------

    def _check(self, controller: Controller, trial: Trial) -> None:
        """Raise for what can be seen to go wrong before anything has run."""
        if not self._live.checked and not self.dry_run:
            self._live.checked = True
            for rule in _divergence_rules(stopper_of(controller)):
                raise ValueError(
                    f"{self.name} rescues trials that diverge, and a DivergenceStopper would stop "
                    f"them first. Leave it out, and type {self.name}(divergence={rule!r})."
                )
        if self.mutate is None and number(lookup(trial.config, self.lr_key)) is None:
            keys = flat_keys(trial.config)
            raise ValueError(
                f"{self.name} lr_key={self.lr_key!r} is no number in the config, which has: "
                f"{', '.join(sorted(keys)) or 'nothing'}.{closest(self.lr_key, keys)} Give its "
                "lr_key, or mutate=."
            )


def scaled(config: Config, key: str, factor: float) -> Config:
    """A copy of `config` with the number at `key`, flat or nested, multiplied with `factor`."""
    if key in config:
        return config | {key: config[key] * factor}
    for cut in (i for i, char in enumerate(key) if char == "/"):
        inner = config.get(key[:cut])
        if isinstance(inner, Mapping) and lookup(inner, key[cut + 1 :]) is not None:
            return config | {key[:cut]: scaled(dict(inner), key[cut + 1 :], factor)}
    raise KeyError(key)


def _rollbacks_seen(configs: list[str], config: str) -> int:
    """How many rollbacks `config` has seen: its newest index in `configs`, oldest first."""
    return max((i for i, known in enumerate(configs) if known == config), default=0)


def _divergence_rules(stopper: Stopper) -> Iterator[Divergence]:
    """The rules by which `stopper` alone would stop a trial that diverges."""
    for member in members_of(stopper):
        if isinstance(member, AnyOf):
            for inner in member.stoppers:
                yield from _divergence_rules(inner)
        elif isinstance(member, RuleStopper) and not member.dry_run:
            yield from _alone(member.rule)


def _alone(rule: BaseRule) -> Iterator[Divergence]:
    if isinstance(rule, Divergence):
        yield rule
    elif rule.name in ("AnyOf", "After"):  # of either kind of rule
        for child in getattr(rule, "children", ()):
            yield from _alone(child)
