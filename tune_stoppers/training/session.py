"""One training run under a rule: what is judged, which state is kept, what every rank does."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from tune_stoppers.core import Action, Decision, Mode, OnMissing, Rule, SweepRule, require_number
from tune_stoppers.core.track import Track
from tune_stoppers.metrics import MetricReader, logger, lookup, number, sign_of
from tune_stoppers.rules import Patience
from tune_stoppers.training.keeper import BestStateKeeper
from tune_stoppers.training.ranks import agreed, is_first
from tune_stoppers.training.snapshot import own_generators
from tune_stoppers.training.spending import TOTALS, Spending


def as_rule(rule_or_patience: Rule | int, min_delta: float = 0.0) -> Rule:
    """The rule itself, or `Patience` of so many evaluations."""
    _refuse_stopper(rule_or_patience)
    if isinstance(rule_or_patience, SweepRule):
        raise TypeError(
            f"{rule_or_patience.name} compares the trials of a sweep, and here is one run: give "
            "it to RuleStopper or RuleScheduler, or take a rule of tune_stoppers.rules.trial."
        )
    if not isinstance(rule_or_patience, Rule):
        return Patience(rule_or_patience, min_delta)
    if min_delta:
        raise ValueError(
            f"min_delta belongs to a patience; give it to the rule, got {min_delta} "
            f"beside {rule_or_patience!r}."
        )
    return rule_or_patience


def _refuse_stopper(given: Any) -> None:
    """A stopper is no rule: `TypeError` with what to write instead."""
    kind = type(given).__name__
    if isinstance(getattr(given, "rule", None), Rule):
        metric, mode = getattr(given, "metric", None), getattr(given, "mode", None)
        own = f", with metric {metric!r} and mode {mode!r}" if metric else ""
        raise TypeError(
            f"{kind} is for Ray Tune; here goes the rule in it. Write {kind}(…).rule instead of "
            f"{kind}(…){own}: its rule is {given.rule!r}."
        )
    if hasattr(given, "stoppers"):
        raise TypeError(
            f"{kind} combines stoppers of Ray Tune; here go rules. Write a.rule | b.rule (or &) "
            f"of the stoppers in it."
        )


@dataclass(frozen=True)
class _Standing:
    """Where the run stands; rank 0's, and the same on every rank."""

    track: Track
    decision: Decision | None = None
    best_value: float | None = None
    best_step: float | None = None
    offer: tuple[float, float] | None = None  # step and loss of a fresh evaluation
    run: str | None = None  # by this name its states lie in a keeper's folder


class RuleSession:
    """The face that `EarlyStopping` and `RuleCallback` share.

    With data parallel every rank must judge every evaluation: rank 0's value and step count, and
    all ranks get its decision. A keeper in memory keeps each rank's own copy, whenever rank 0
    improved; into a folder rank 0 alone writes, and all restore from there.
    """

    def __init__(
        self,
        owner: str,
        rule: Rule,
        metric: str | None,
        mode: Mode,
        *,
        on_missing: OnMissing = "raise",
        keeper: BestStateKeeper | None = None,
    ) -> None:
        self.rule, self.metric, self.mode, self.keeper = rule, metric, mode, keeper
        self._owner = owner
        objective = metric if rule.needs_objective else None
        self._reader = MetricReader(owner, rule, objective, mode, on_missing)
        self._standing = _Standing(Track(rule))
        self._joined = False  # the keeper knows which run this is
        self._spends = not TOTALS.isdisjoint(rule.reads)
        self._spending = Spending()
        self._spending.elapsed()  # the clock runs from here

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
        return self.stopped

    def _judged(self, metrics: Mapping[str, Any], step: float | None) -> _Standing:
        before = self._standing
        if step is None:
            step = (before.track.step or 0) + 1
        require_number(f"{self._owner} step", step)
        fresh = step != before.track.step
        if self._spends:  # one run, which is all its own sweep
            metrics = {**dict.fromkeys(TOTALS, self._spending.elapsed()), **metrics}
        report = self._reader.read("this run", step, metrics)
        value = None if self.metric is None else number(lookup(metrics, self.metric))
        decision = before.track.update(report, checkpoint=True).decision
        if value is None or not fresh:
            return replace(before, decision=decision, offer=None)
        standing = replace(before, decision=decision, offer=(step, sign_of(self.mode) * value))
        if self._improves(value):
            standing = replace(standing, best_value=value, best_step=step)
        return standing

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
        with self._kept_by_rank_0() as keeper:
            return self._restored(keeper, model, optimizer, scheduler)

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
            with self._kept_by_rank_0() as keeper:
                if keeper.best_step is not None:
                    self._restored(keeper, model, optimizer, scheduler)
            raise
        self.restore_best(model, optimizer, scheduler)

    @contextmanager
    def _kept_by_rank_0(self) -> Iterator[BestStateKeeper]:
        """The keeper to restore from; another rank's folder is read anew."""
        self.keeper = self.keeper or BestStateKeeper()
        if self.keeper.directory is None or is_first():
            yield self.keeper
            return
        with own_generators():  # those in the folder are rank 0's
            keeper = BestStateKeeper(self.keeper.directory)
            if self._standing.run is not None:
                keeper.take_up(self._standing.run)
            yield keeper

    def state_dict(self) -> dict[str, Any]:
        """The state of the rule as JSON data; the best weights stay with the keeper."""
        return {
            "rule": self.rule.dump(self._standing.track.state),
            "step": self.step,
            "best_value": self.best_value,
            "best_step": self.best_step,
            "stopped": self.stopped,
            "reason": self.reason,
            **({"seconds": self._spending.elapsed()} if self._spends else {}),
            **({"run": self._standing.run} if self._standing.run is not None else {}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from `state_dict()`.

        `ValueError` if it is another rule's, or if the keeper holds another run's states.
        `stopped` then says what the rule, as it is configured now, makes of that state.
        """
        self._spending = Spending(elapsed=state.get("seconds", 0.0))
        self._spending.elapsed()
        track = Track(self.rule)
        track.state = self.rule.load(state["rule"])
        decision = None
        if state["step"] is not None:
            track.time.place(state["step"])
            decision = self.rule.verdict(track.state)
        best = state["best_value"], state["best_step"]
        self._standing = _Standing(track, decision, *best, run=state.get("run"))
        self._joined = False
        self.join()
