"""The contract of every rule as checks that run on any rule: ours, or one that you wrote.

In a test of your own::

    from tune_stoppers.core import Report
    from tune_stoppers.testing import check_rule

    losses = [3.0, 2.0, 2.5, float("nan"), 2.0, 1.0]
    check_rule(MyRule(patience=2), [Report("trial", i, loss) for i, loss in enumerate(losses)])

Each check raises `AssertionError` with the rule, the report and the two answers that differ. The
reports are those of any curve: gaps, ties, NaN, repeated steps and absent metrics are welcome, and
one curve shows little, so pass many (from Hypothesis, say). A rule must be importable by name for
the pickle check, so define it at the top of a module. Needs neither ray, torch nor Hypothesis.

Over 350 lines, as it is one contract, read from top to bottom.
"""

import importlib
import json
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass
from typing import Any

from tune_stoppers.core import Action, BaseRule, Decision, Report, Rule, State, SweepRule
from tune_stoppers.journal.lines import plain

MAX_STATE_BYTES = 1024  # of one trial's state: a stopper is pickled with every snapshot of Tune

_NONFINITE = (math.nan, math.inf, -math.inf)


def check_rule(rule: BaseRule, reports: Sequence[Report]) -> None:
    """Every check of the rule's kind.

    A `Rule` that judges trials apart is checked on each trial's reports alone. A `SweepRule` is
    checked on all reports in their order, as a scheduler shows them: those without the objective
    are left out where the rule needs it. `TypeError` for what is no rule.
    """
    check_complete(rule)
    if isinstance(rule, SweepRule):
        shown = [r for r in reports if r.loss is not None or not rule.needs_objective]
        for sweep_check in SWEEP_CHECKS:
            sweep_check(rule, shown)
        return
    assert isinstance(rule, Rule)
    curves = _per_trial(reports) if rule.scope == "trial" else [list(reports)]
    for curve in curves:
        for check in CHECKS:
            check(rule, curve)


def check_complete(rule: BaseRule) -> None:
    """The rule is a frozen dataclass that Tune can pickle: what Python does not check by itself."""
    if isinstance(rule, type) and issubclass(rule, BaseRule):
        raise TypeError(f"check_rule needs a rule, got its class; make one: {rule.__name__}(…).")
    if not isinstance(rule, Rule | SweepRule):
        raise TypeError(f"check_rule needs a rule of tune_stoppers.core, got {rule!r}.")
    kind = type(rule)
    name = kind.__qualname__
    own = kind.__dict__
    decorated = "__dataclass_fields__" in own or not own.get("__annotations__")
    decorated = decorated and is_dataclass(kind)
    assert decorated, f"{name} is no dataclass: put @dataclass(frozen=True) above its class."
    frozen = kind.__dataclass_params__.frozen  # type: ignore[union-attr]
    assert frozen, f"{name} can be changed after it was made: use @dataclass(frozen=True)."
    found: Any = importlib.import_module(kind.__module__)
    for part in name.split("."):
        found = getattr(found, part, None)
    assert found is kind, (
        f"{name} is not found in {kind.__module__} by its name, by which Tune pickles it: define "
        "it at the top of the module."
    )


def run_rule(rule: Rule, reports: Sequence[Report]) -> list[Decision]:
    """The decision on each report, from the rule's initial state on."""
    return [decision for _, _, decision in _walk(rule, reports)]


def check_pure(rule: Rule, reports: Sequence[Report]) -> None:
    """The same state and report give the same answer, and the given state is not changed."""
    for before, report, decision in _walk(rule, reports):
        shown = rule.dump(before)
        after, again = rule.update(before, report)
        _same(rule, report, "a second update of the same state", decision, again)
        _equal(rule, report, "the state given to update afterwards", shown, rule.dump(before))
        twice, _ = rule.update(before, report)
        _equal(rule, report, "the new state, computed twice", rule.dump(after), rule.dump(twice))


def check_idempotent(rule: Rule, reports: Sequence[Report]) -> None:
    """A report at the last step seen gets the same decision again and changes nothing.

    Whatever value it carries: Ray repeats a last report, and a retry may repeat a step with
    another value.
    """
    for before, report, decision in _walk(rule, reports):
        state, _ = rule.update(before, report)
        if state.step != report.step:
            continue  # the report was neutral
        shown = rule.dump(state)
        for loss in (report.loss, -1e9, 1e9, math.nan, None):
            same, again = rule.update(state, report._replace(loss=loss))
            _same(rule, report, f"the report repeated with loss {loss}", decision, again)
            _equal(rule, report, "the state after a repeated report", shown, rule.dump(same))


def check_state_round_trip(rule: Rule, reports: Sequence[Report]) -> None:
    """A state that goes to JSON and back at every step changes no later decision."""
    state = _reload(rule, rule.init())
    for _, report, decision in _walk(rule, reports):
        state, again = rule.update(state, report)
        _same(rule, report, "the decision with a state reloaded from JSON", decision, again)
        reloaded = _reload(rule, state)
        _equal(rule, report, "the reloaded state", rule.dump(state), rule.dump(reloaded))
        _same(rule, report, "the verdict of a reloaded state", decision, rule.verdict(reloaded))
        state = reloaded


def check_reasons(rule: Rule, reports: Sequence[Report]) -> None:
    """Every decision has a reason that can be read in both directions, and names its rule."""
    for _, report, decision in _walk(rule, reports):
        _check_words(rule, report, decision)


def check_missing_is_neutral(rule: Rule, reports: Sequence[Report]) -> None:
    """A report that carries nothing the rule reads changes no decision on the others."""
    expected = run_rule(rule, reports)
    empty = [report._replace(loss=None, metrics={}) for report in reports]
    if any(rule.concerns(report) for report in empty):
        return  # a rule of time alone: there is no report that it does not read
    both = [item for pair in zip(empty, reports, strict=True) for item in pair]
    for report, decision, again in zip(reports, expected, run_rule(rule, both)[1::2], strict=True):
        _same(rule, report, "the decision with empty reports in between", decision, again)


def check_nonfinite(rule: Rule, reports: Sequence[Report]) -> None:
    """NaN and infinities: "ignore" is neutral, "stop" stops at once, "worst" knows one kind."""
    for leaf in _leaves(rule):
        if not (leaf.needs_objective or leaf.reads):
            continue  # a rule of time alone
        _check_ignore(leaf.with_policy("ignore"), reports)
        _check_stop(leaf.with_policy("stop"), reports)
        _check_worst(leaf.with_policy("worst"), reports)


def check_causal(rule: Rule, reports: Sequence[Report]) -> None:
    """The decision on a report does not depend on later ones."""
    expected = run_rule(rule, reports)
    for count in range(1, len(reports)):
        early = run_rule(rule, reports[:count])
        report = reports[count - 1]
        _same(
            rule, report, f"its decision with only {count} reports", expected[count - 1], early[-1]
        )


def check_pickle(rule: Rule, reports: Sequence[Report]) -> None:
    """The rule and its state survive pickling at every step."""
    copy = pickle.loads(pickle.dumps(rule))
    assert copy == rule, f"{rule!r} is not itself after pickling but {copy!r}."
    state = copy.init()
    for _, report, decision in _walk(rule, reports):
        state, again = copy.update(pickle.loads(pickle.dumps(state)), report)
        _same(rule, report, "the decision of a pickled rule and state", decision, again)


def check_state_size(rule: Rule, reports: Sequence[Report]) -> None:
    """A trial's state stays small, pickled and as JSON; a combination has one per member."""
    limit = MAX_STATE_BYTES * len(list(_leaves(rule)))
    for before, report, _ in _walk(rule, reports):
        size = max(len(pickle.dumps(before)), len(json.dumps(rule.dump(before))))
        _expect(rule, report, size < limit, f"the state has {size} bytes, {limit} are allowed")


CHECKS: tuple[Callable[[Rule, Sequence[Report]], None], ...] = (
    check_reasons,
    check_state_round_trip,
    check_pure,
    check_idempotent,
    check_missing_is_neutral,
    check_nonfinite,
    check_causal,
    check_pickle,
    check_state_size,
)


def check_record_is_deterministic(rule: SweepRule[Any], reports: Sequence[Report]) -> None:
    """Two records that see the same reports say and remember the same."""
    one, other = rule.init(), rule.init()
    for report in reports:
        decision, again = rule.update(one, report), rule.update(other, report)
        _same(rule, report, "the decision of a second record", decision, again)
    _equal(rule, reports[-1:], "the second record", _dumped(rule, one), _dumped(rule, other))


def check_record_is_idempotent(rule: SweepRule[Any], reports: Sequence[Report]) -> None:
    """A report at the step last seen of its trial gets the same decision and changes nothing."""
    record = rule.init()
    for report in reports:
        decision = rule.update(record, report)
        shown = _dumped(rule, record)
        again = rule.update(record, report)
        _same(rule, report, "the report repeated", decision, again)
        _equal(rule, report, "the record after a repeated report", shown, _dumped(rule, record))


def check_record_round_trip(rule: SweepRule[Any], reports: Sequence[Report]) -> None:
    """A record that goes to JSON and back at every report changes no later decision."""
    record, reloaded = rule.init(), rule.init()
    for report in reports:
        reloaded = rule.load(_through_json(rule, rule.freeze(reloaded)()))
        decision, again = rule.update(record, report), rule.update(reloaded, report)
        _same(rule, report, "the decision with a record reloaded from JSON", decision, again)
        _equal(rule, report, "the reloaded record", _dumped(rule, record), _dumped(rule, reloaded))


def check_record_reasons(rule: SweepRule[Any], reports: Sequence[Report]) -> None:
    """Every decision has a reason that can be read in both directions, and names its rule."""
    record = rule.init()
    for report in reports:
        _check_words(rule, report, rule.update(record, report))


def check_record_forgets(rule: SweepRule[Any], reports: Sequence[Report]) -> None:
    """Trials that are forgotten leave no trace in what is remembered, and can be seen anew."""
    record = rule.init()
    for report in reports:
        rule.update(record, report)
    rule.forget(record, {report.trial_id for report in reports})
    shown = json.dumps(_dumped(rule, record), default=str)
    for report in reports:
        name = json.dumps(report.trial_id)
        _expect(rule, report, name not in shown, "the forgotten trial is still remembered")
        rule.update(record, report)


def check_record_pickle(rule: SweepRule[Any], reports: Sequence[Report]) -> None:
    """The rule and its record survive pickling: a stopper's travel with Tune's snapshots."""
    copy = pickle.loads(pickle.dumps(rule))
    assert copy == rule, f"{rule!r} is not itself after pickling but {copy!r}."
    record, other = rule.init(), copy.init()
    for report in reports:
        other = pickle.loads(pickle.dumps(other))
        decision, again = rule.update(record, report), copy.update(other, report)
        _same(rule, report, "the decision of a pickled rule and record", decision, again)


SWEEP_CHECKS: tuple[Callable[[SweepRule[Any], Sequence[Report]], None], ...] = (
    check_record_reasons,
    check_record_round_trip,
    check_record_is_deterministic,
    check_record_is_idempotent,
    check_record_forgets,
    check_record_pickle,
)


def check_symmetry(
    make_stopper: Callable[[Any], Any], values: Sequence[float | None], metric: str = "loss"
) -> None:
    """A stopper on `values` under "min" stops exactly where it does on -values under "max".

    `make_stopper(mode)` makes the stopper for `metric`; it negates thresholds and limits itself.
    A value of None is a report without the metric.
    """
    answers = {}
    for mode, sign in (("min", 1), ("max", -1)):
        stopper = make_stopper(mode)
        answers[mode] = [
            bool(stopper("trial", _result(step, None if value is None else sign * value, metric)))
            for step, value in enumerate(values, start=1)
        ]
    assert answers["min"] == answers["max"], (
        f"{make_stopper('min')!r} is not symmetric on {list(values)}: "
        f"it stops at {_steps(answers['min'])} under min, at {_steps(answers['max'])} under max."
    )


def _check_words(rule: BaseRule, report: Report, decision: Decision) -> None:
    _check_kind(rule, report, decision)
    for sign in (1, -1):
        try:
            reason = decision.say(sign)
        except (KeyError, IndexError, ValueError) as error:
            hint = "give each number that the text names: self.stop('{bad} bad', bad=3)"
            wrong = f"the reason {decision.text!r} cannot be filled in ({error!r}); {hint}"
            raise AssertionError(_said(rule, report, wrong)) from error
        _expect(rule, report, bool(reason.strip()), "the reason is empty")
        _expect(rule, report, "{" not in reason, f"the reason is not filled in: {reason!r}")
    _expect(rule, report, bool(decision.rule), "the decision does not name its rule")
    json.dumps(decision.plain_numbers())


def _through_json(rule: BaseRule, data: Any) -> Any:
    """As the recorder writes a state: what JSON lacks becomes a string."""
    try:
        return json.loads(json.dumps(plain(data), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{rule!r}: its dump is no JSON data: {error}") from error


def _dumped(rule: SweepRule[Any], record: Any) -> Any:
    return _through_json(rule, rule.dump(record))


def _walk(rule: Rule, reports: Sequence[Report]) -> Iterator[tuple[State, Report, Decision]]:
    """The state before each report, the report, and the decision on it."""
    state = rule.init()
    for report in reports:
        before = state
        try:
            state, decision = rule.update(before, report)
        except (TypeError, AttributeError):
            forgot = before.own is not None and rule.observe(before.own, report) is None
            _expect(rule, report, not forgot, "observe returned None, not the rule's next state")
            raise
        _check_kind(rule, report, decision)
        yield before, report, decision


def _per_trial(reports: Sequence[Report]) -> list[list[Report]]:
    curves: dict[str, list[Report]] = {}
    for report in reports:
        curves.setdefault(report.trial_id, []).append(report)
    return list(curves.values())


def _leaves(rule: Rule) -> Iterator[Rule]:
    """The rules of a combination, which have a policy each; a plain rule is its own."""
    children: tuple[Rule, ...] = getattr(rule, "children", ())
    if not children:
        yield rule
    for child in children:
        yield from _leaves(child)


def _reload(rule: Rule, state: State) -> State:
    try:
        return rule.load(json.loads(json.dumps(rule.dump(state), allow_nan=False)))
    except (TypeError, ValueError) as error:
        wrong = f"{rule!r}: the state {state.own!r} does not come back from JSON: {error}"
        raise AssertionError(wrong) from error


def _check_kind(rule: BaseRule, report: Report, decision: object) -> None:
    is_one = isinstance(decision, Decision)
    wrong = f"{decision!r} is no decision; return self.keep(…) or self.stop(…)"
    _expect(rule, report, is_one, wrong)


def _poisoned(rule: Rule, report: Report, value: float) -> Report:
    """`report` with `value` for every number that the rule reads."""
    return report._replace(loss=value, metrics=dict.fromkeys(rule.reads, value))


def _check_ignore(rule: Rule, reports: Sequence[Report]) -> None:
    expected = run_rule(rule, reports)
    poison = [_poisoned(rule, r, _NONFINITE[i % 3]) for i, r in enumerate(reports)]
    both = [item for pair in zip(poison, reports, strict=True) for item in pair]
    what = 'under "ignore", the decision with values in between that are not finite'
    for report, decision, again in zip(reports, expected, run_rule(rule, both)[1::2], strict=True):
        _same(rule, report, what, decision, again)


def _check_stop(rule: Rule, reports: Sequence[Report]) -> None:
    for before, report, _ in _walk(rule, reports):
        if before.step is not None and report.step <= before.step:
            continue
        for value in _NONFINITE:
            _, decision = rule.update(before, _poisoned(rule, report, value))
            stops = decision.action is Action.STOP
            _expect(rule, report, stops, f'under "stop", {value} does not stop the trial')


def _check_worst(rule: Rule, reports: Sequence[Report]) -> None:
    if not rule.needs_objective:
        return
    for before, report, _ in _walk(rule, reports):
        nan, *others = (rule.update(before, report._replace(loss=v))[1] for v in _NONFINITE)
        for value, other in zip(_NONFINITE[1:], others, strict=True):
            _same(rule, report, f'under "worst", a loss of {value} instead of NaN', nan, other)


def _result(step: int, value: float | None, metric: str) -> dict[str, Any]:
    """A result as Ray makes it: nested, with the time that Ray counts."""
    result: dict[str, Any] = {"training_iteration": step}
    if value is None:
        return result
    *folders, name = metric.split("/")
    inner = result
    for folder in folders:
        inner = inner.setdefault(folder, {})
    inner[name] = value
    return result


def _steps(answers: Sequence[bool]) -> str:
    return str([step for step, answer in enumerate(answers, start=1) if answer] or "no step")


def _same(rule: BaseRule, report: object, what: str, expected: Decision, got: Decision) -> None:
    """Fail unless two decisions say the same."""
    wanted, found = ((d.action.value, d.rule, d.reason, d.ends_sweep) for d in (expected, got))
    _equal(rule, report, what, wanted, found)


def _equal(rule: BaseRule, report: object, what: str, expected: object, got: object) -> None:
    _expect(rule, report, expected == got, f"{what}: expected {expected}, got {got}")


def _expect(rule: BaseRule, report: object, holds: bool, message: str) -> None:
    assert holds, _said(rule, report, message)


def _said(rule: BaseRule, report: object, message: str) -> str:
    return f"{rule!r} at {report!r}: {message}."
