"""One training run under a rule: what is judged, which state is kept, what every rank does.

Over 350 lines: what rank 0 decides and what every rank does with it is to be read in one place.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from tune_stoppers.core import (
    Action,
    BaseRule,
    Decision,
    Mode,
    OnMissing,
    Rule,
    SweepRule,
    require,
    require_number,
)
from tune_stoppers.core.track import SharedTrack, Track
from tune_stoppers.journal.lines import plain
from tune_stoppers.metrics import MetricReader, logger, lookup, number, sign_of
from tune_stoppers.rules.sweep.rollback import GONE, WENT_BACK, RollbackTrial
from tune_stoppers.training.going_back import (
    RUN,
    check_factor,
    course_of,
    scale_rates,
)
from tune_stoppers.training.keeper import BestStateKeeper
from tune_stoppers.training.ranks import agreed, is_first
from tune_stoppers.training.spending import TOTALS, reads_energy, spending_of_run


@dataclass(frozen=True)
class _Standing:
    """Where the run stands; rank 0's, and the same on every rank."""

    track: Track | SharedTrack
    decision: Decision | None = None
    best_value: float | None = None
    best_step: float | None = None
    offer: tuple[float, float] | None = None  # step and loss of a fresh evaluation
    run: str | None = None  # by this name its states lie in a keeper's folder
    due: float | None = None  # the step of the state that it is to go back to
    told: float | None = None  # the newest step at which the objective was reported
    cuts: int = 0  # rollbacks before the best state was kept: its learning rate was cut as often


class RuleSession:
    """The face that `EarlyStopping` and `RuleCallback` share.

    With data parallel every rank must judge every evaluation: rank 0's value and step count, and
    all ranks get its decision. A keeper in memory keeps each rank's own copy, whenever rank 0
    improved; into a folder rank 0 alone writes, and all restore from there.
    """

    def __init__(
        self,
        owner: str,
        rule: BaseRule,
        metric: str | None,
        mode: Mode,
        *,
        on_missing: OnMissing = "raise",
        keeper: BestStateKeeper | None = None,
        factor: float | None = None,
    ) -> None:
        self.rule, self.metric, self.mode, self.keeper = rule, metric, mode, keeper
        self._owner = owner
        objective = metric if rule.needs_objective else None
        self._reader = MetricReader(owner, rule, objective, mode, on_missing)
        self._standing = _Standing(self._track())
        self._factor = check_factor(owner, factor, rule)
        self._joined = False  # the keeper knows which run this is
        self._spends = not TOTALS.isdisjoint(rule.reads)
        self._spending = spending_of_run(rule, {})

    def _track(self, record: Any = None) -> Track | SharedTrack:
        if isinstance(self.rule, SweepRule):
            record = self.rule.init() if record is None else record
            return SharedTrack(self.rule, record, RUN)
        assert isinstance(self.rule, Rule)
        return Track(self.rule)

    @property
    def _course(self) -> RollbackTrial | None:
        """What a `Rollback` remembers."""
        track = self._standing.track
        return course_of(track.rule, track.record) if isinstance(track, SharedTrack) else None

    @property
    def step(self) -> float | None:
        """The newest step judged; None: none yet."""
        return self._standing.track.step

    @property
    def best_value(self) -> float | None:
        """The best value seen, in the metric's own units; None before the first finite one."""
        return self._standing.best_value

    @property
    def best_step(self) -> float | None:
        """The step of the best value."""
        return self._standing.best_step

    @property
    def stopped(self) -> bool:
        """Whether the newest decision is to stop."""
        decision = self._standing.decision
        return decision is not None and decision.action is Action.STOP

    @property
    def due(self) -> bool:
        """Whether the run is to go back (`go_back`) before it trains on."""
        return self._standing.due is not None

    @property
    def rollbacks(self) -> int:
        """How often the run went back."""
        return 0 if self._course is None else self._course.rollbacks

    @property
    def reason(self) -> str:
        """Why the newest evaluation ended the run, or why not; in the metric's own units."""
        decision = self._standing.decision
        if decision is None:
            return "nothing judged yet"
        return f"{decision.rule}: {decision.say(sign_of(self.mode))}"

    def expect(self, metrics: Iterable[str]) -> None:
        """Take a report without one of these for neutral, and say nothing of it."""
        self._reader.expected = frozenset(metrics)

    def judge(
        self,
        metrics: Mapping[str, Any],
        step: float | None = None,
        model: Any = None,
        optimizer: Any = None,
        scheduler: Any = None,
    ) -> bool:
        """Judge one evaluation and offer its state to the keeper; True: stop now."""
        writes = self.keeper is not None and self.keeper.directory is not None
        if not writes:
            self.join()

        def decide() -> _Standing:
            self.join()
            standing = self._judged(metrics, step)
            if writes:  # before the others are told, who may restore right after
                self._keep(standing, model, optimizer, scheduler)
            return standing

        self._standing = agreed(decide)
        if not writes:
            self._keep(self._standing, model, optimizer, scheduler)
        self._follow()
        return self.stopped

    def _judged(self, metrics: Mapping[str, Any], step: float | None) -> _Standing:
        before = self._standing
        if step is None:
            step = (before.track.step or 0) + 1
        require_number(f"{self._owner} step", step)
        self._say_if_forgotten(before.track, step)
        if self._spends:  # one run, which is all its own sweep
            metrics = {**self._spending.totals_of_run(), **metrics}
        report = self._reader.read(RUN, step, metrics)
        value = None if self.metric is None else number(lookup(metrics, self.metric))
        decision = before.track.update(report, checkpoint=True).decision
        if value is None or step == before.told:
            return replace(before, decision=decision, offer=None)
        offer = step, sign_of(self.mode) * value
        standing = replace(before, decision=decision, offer=offer, told=step)
        if self._improves(value):
            standing = replace(standing, best_value=value, best_step=step)
        return standing if self._course is None else self._placed(standing, self._course)

    def _say_if_forgotten(self, track: Track | SharedTrack, step: float) -> None:
        """Warn where a run goes back to where nothing is remembered of its rule."""
        if isinstance(track, Track) and track.forgets(step):
            logger.warning(
                "%s: step %g comes after step %g, and what the rule knew before it is no longer "
                "there, so it begins anew. Load the rule's state of the checkpoint resumed from.",
                *(self._owner, step, track.step),
            )

    def _placed(self, standing: _Standing, course: RollbackTrial) -> _Standing:
        """What a `Rollback` makes of a fresh report: the best state is here, or to be gone to."""
        anchor, decision = course.anchor, standing.decision
        if anchor is not None and standing.offer is not None and anchor.step == standing.offer[0]:
            return replace(standing, cuts=course.rollbacks)
        goes = decision is not None and decision.action is Action.PAUSE and anchor is not None
        return replace(standing, offer=None, due=anchor.step if goes and anchor else None)

    def _improves(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        sign = sign_of(self.mode)
        return self.best_value is None or sign * value < sign * self.best_value

    def join(self) -> None:
        """Tell the keeper, once, which run this is; its best may be ahead of the rule's state.

        `ValueError` if the keeper has the states of another run. In a folder rank 0 alone does.
        """
        keeper = self.keeper
        if keeper is None or self._joined or not (keeper.directory is None or is_first()):
            return
        standing, sign = self._standing, sign_of(self.mode)
        best = None
        if standing.best_value is not None and standing.best_step is not None:
            best = (standing.best_step, sign * standing.best_value)
        keeper.join(standing.run, best)
        self._joined = True
        if keeper.directory is not None:
            standing = replace(standing, run=keeper.run)
        if keeper.best_loss is not None and (best is None or keeper.best_loss < best[1]):
            value = float(sign * keeper.best_loss)
            standing = replace(standing, best_value=value, best_step=keeper.best_step)
        self._standing = standing

    def stay(self) -> None:
        """The run has ended: it does not go back any more."""
        self._standing = replace(self._standing, due=None)

    def go_back(self, model: Any, optimizer: Any, scheduler: Any = None) -> None:
        """Put the best state back, and cut the learning rate; every rank must.

        Where that state is not at hand (in memory it does not survive a resume), the rule is told
        so, and the run has its recovery time without a rollback.
        """
        standing, course = self._standing, self._course
        assert standing.due is not None and course is not None
        assert isinstance(standing.track, SharedTrack)
        rule, record = standing.track.rule, standing.track.record
        self._standing = replace(standing, due=None)
        keeper = self._to_restore_from()
        if standing.due not in keeper.steps:
            rule.note(record, RUN, GONE, {})
            logger.warning(
                "%s: the state of step %g was not kept, so the run goes on from where it is.",
                *(self._owner, standing.due),
            )
            return
        keeper.restore(model, optimizer, scheduler, step=standing.due)
        factor = self._factor ** (course.rollbacks + 1 - standing.cuts)
        scale_rates(optimizer, scheduler, factor)
        rule.note(record, RUN, WENT_BACK, {"step": standing.due})
        logger.info("%s at step %g: %s", self._owner, self.step, self.reason)

    def _keep(self, standing: _Standing, model: Any, optimizer: Any, scheduler: Any) -> None:
        if standing.offer is None or model is None:
            return
        if self.keeper is None:
            self.keeper, self._joined = BestStateKeeper(), True
        self.keeper.offer(*standing.offer, model, optimizer, scheduler)

    def restore_best(self, model: Any, optimizer: Any = None, scheduler: Any = None) -> float:
        """Put the best state back, however the run ended; returns its step.

        `NoBestStateError` if none was kept: no finite value, or no model was passed.
        """
        return self._restored(self._to_restore_from(), model, optimizer, scheduler)

    def _restored(self, keeper: BestStateKeeper, *parts: Any) -> float:
        """Restore the keeper's best; say so if it is not of the best value."""
        step = keeper.restore(*parts)
        best, loss = self._standing, keeper.best_loss
        if best.best_value is not None and loss is not None and best.best_step != step:
            logger.warning(
                "%s: the state of the best value, %g at step %g, was not kept; restored is the "
                "best that was, %g at step %g.",
                *(self._owner, best.best_value, best.best_step),
                *(sign_of(self.mode) * loss, step),
            )
        return step

    @contextmanager
    def restoring(self, model: Any, optimizer: Any = None, scheduler: Any = None) -> Iterator[None]:
        """Restore the best state however the block ends: by itself, by an exception or Ctrl-C.

        A block that raises before anything finite was kept leaves the model as it is.
        """
        try:
            yield
        except BaseException:
            keeper = self._to_restore_from()
            if keeper.best_step is not None:
                self._restored(keeper, model, optimizer, scheduler)
            raise
        self.restore_best(model, optimizer, scheduler)

    def _to_restore_from(self) -> BestStateKeeper:
        self.keeper = self.keeper or BestStateKeeper()
        self._follow()
        return self.keeper

    def _follow(self) -> None:
        """Have another rank's keeper go by what rank 0 writes into the folder."""
        keeper, run = self.keeper, self._standing.run
        if keeper is not None and keeper.directory is not None and not is_first():
            keeper.follow(run)

    def state_dict(self) -> dict[str, Any]:
        """The state of the rule as JSON data; the best weights stay with the keeper."""
        return {
            **self._dumped(self._standing),
            "step": self.step,
            "best_value": self.best_value,
            "best_step": self.best_step,
            "stopped": self.stopped,
            "reason": self.reason,
            **({"seconds": self._spending.elapsed()} if self._spends else {}),
            **({"kwh": self._spending.kwh()} if reads_energy(self.rule) else {}),
            **({"run": self._standing.run} if self._standing.run is not None else {}),
        }

    def _dumped(self, standing: _Standing) -> dict[str, Any]:
        track = standing.track
        if isinstance(track, Track):
            return {"rule": track.rule.dump(track.state)}
        decision = standing.decision
        told = decision and [decision.action.value, decision.rule, decision.say(self._reader.sign)]
        dumped = {"rule": track.rule.name, "record": plain(track.dump()), "decision": told}
        return {"rule": dumped, "cuts": standing.cuts}

    def _loaded(self, data: Mapping[str, Any]) -> tuple[Track | SharedTrack, Decision | None]:
        """The rule's state, and what it says there."""
        if isinstance(self.rule, Rule):
            track = Track(self.rule)
            track.state = self.rule.load(data)
            return track, self.rule.verdict(track.state)
        assert isinstance(self.rule, SweepRule)
        got = data.get("rule")
        require(got == self.rule.name, f"This state is of rule {got}, expected {self.rule.name}.")
        try:
            record = self.rule.load(data["record"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"This state is not of {self.rule!r}: {error!r}.") from error
        told = data["decision"]
        return self._track(record), told and Decision(Action(told[0]), told[2], told[1])

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from `state_dict()`.

        `ValueError` if it is another rule's, or if the keeper holds another run's states.
        `stopped` then says what the rule, as it is configured now, makes of that state.
        """
        self._spending = spending_of_run(self.rule, state)
        track, decision = self._loaded(state["rule"])
        if state["step"] is None:
            decision = None
        else:
            if isinstance(track, Track):
                track.take_up(state["step"], track.state)
            else:
                track.time.place(state["step"])
            self._reader.seen.update(filter(None, (self.metric, *self.rule.reads)))
        best = state["best_value"], state["best_step"]
        more = {"run": state.get("run"), "cuts": state.get("cuts", 0), "told": state["step"]}
        self._standing = _Standing(track, decision, *best, **more)
        self._joined = False
        self.join()
