"""Rules as Optuna pruners: they decide as in Ray, and the study's storage is all they need."""

import copy
import json
import math
import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest

from tune_stoppers import PatienceStopper, RulePruner, Sweep, replay
from tune_stoppers.rules import (
    AdaptivePatience,
    After,
    BoundASHA,
    DiminishingReturns,
    Divergence,
    Forecast,
    GradientNorm,
    Not,
    Overfit,
    Patience,
    Promotion,
    Recovery,
    Slope,
    Threshold,
)
from tune_stoppers.rules.horizon import max_t_of
from tune_stoppers.tune.schedulers.rule import RuleScheduler

STATES = optuna.trial.TrialState
ROOT = Path(__file__).parents[2]
TRIAL_RULES = [
    Patience(2),
    Patience(2, on_nonfinite="ignore"),
    AdaptivePatience(initial_patience=2, min_patience=1),
    Divergence(factor=1.0),
    Recovery(patience=1, recovery_patience=1),
    Slope(threshold=0.05, patience=2),
    Threshold(0.3),
    After(4, Patience(1)),
    Patience(2) & Not(Threshold(0.8)),
]
SWEEP_RULES = [
    BoundASHA(max_t=8),
    BoundASHA(max_t=8, grace_period=1, reduction_factor=2) | Patience(2),
    Forecast(max_t=8, probability=0.2),
    Threshold(0.2, scope="sweep"),
]


@pytest.fixture(autouse=True)
def quiet():
    """Optuna says each study and trial."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(level)


def curves(trials: int = 24, length: int = 8) -> dict[str, list[float]]:
    dice = np.random.default_rng(11)
    shape = dice.random((trials, 1)) + dice.random((trials, length)) / np.arange(1, length + 1)
    named = {f"t{i:02d}": row.tolist() for i, row in enumerate(shape)}
    named["t03"][2:] = [math.nan] * (length - 2)  # diverged
    return named


def recorded(mode: str) -> Sweep:
    sign = 1 if mode == "min" else -1
    rows = [
        {"trial_id": name, "training_iteration": t, "loss": sign * value}
        for name, values in curves().items()
        for t, value in enumerate(values, start=1)
    ]
    return Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode=mode)


def new_study(pruner, mode: str = "min", **options) -> optuna.Study:
    options.setdefault("sampler", optuna.samplers.RandomSampler(seed=0))
    return optuna.create_study(direction=f"{mode}imize", pruner=pruner, **options)


def unnamed(reason: str) -> str:
    """Without what Ray, or Optuna, calls a trial."""
    return re.sub(r"trial \w+ at", "trial at", reason)


class Beside(RuleScheduler):
    """Ray's scheduler, and an Optuna study that gets the same reports at the same moments."""

    def follow(self, study: optuna.Study) -> "Beside":
        self.study, self.trials, self.compared, self.stops = study, {}, 0, 0
        return self

    def on_trial_result(self, controller, trial, result):
        action = super().on_trial_result(controller, trial, result)
        mine = self.trials.get(trial.trial_id) or self.study.ask()
        self.trials[trial.trial_id] = mine
        mine.report(result["loss"], result["training_iteration"])
        pruned = mine.should_prune()
        whole = result["training_iteration"] == max_t_of(self.study.pruner.rule)
        stops = action == "STOP" and not (whole and not self._sweep.over)
        assert pruned == stops, (trial.trial_id, result, self.explain(trial.trial_id))
        if self.compared % 6 == 0 or pruned:
            afresh = RulePruner(self.study.pruner.rule)
            assert afresh.prune(self.study, self.state_of(mine)) == pruned
        if pruned:
            said = self.state_of(mine).user_attrs["stop_reason"]
            own = self.explain(trial.trial_id).removeprefix(f"{self.name}: ")
            assert unnamed(said).endswith(unnamed(own)) or self._sweep.over
            self.study.tell(mine, state=STATES.PRUNED)
        self.compared += 1
        self.stops += pruned
        return action

    def on_trial_complete(self, controller, trial, result):
        super().on_trial_complete(controller, trial, result)
        mine = self.trials[trial.trial_id]
        if not self.state_of(mine).state.is_finished():
            self.study.tell(mine, result["loss"] if math.isfinite(result["loss"]) else 9.0)

    def state_of(self, trial):
        return self.study.get_trials(deepcopy=False)[trial.number]

    def __deepcopy__(self, memo):
        return self  # the replay's own copy would follow a copy of the study


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("rule", TRIAL_RULES + SWEEP_RULES, ids=lambda rule: rule.name)
def test_it_decides_as_in_ray(rule, mode):
    """Report by report, with four trials at a time, of a replayed sweep; and so does a pruner that
    sees the study for the first time."""
    scheduler = Beside(rule).follow(new_study(RulePruner(rule), mode))
    replay(recorded(mode), scheduler, workers=4)
    assert scheduler.compared > 4
    assert scheduler.stops > 0


def run(study: optuna.Study, curve, asked=lambda step: True) -> tuple[int, optuna.Trial]:
    """One trial, as far as it gets."""
    trial = study.ask()
    for step, value in enumerate(curve, start=1):
        trial.report(value, step)
        if asked(step) and trial.should_prune():
            study.tell(trial, state=STATES.PRUNED)
            break
    else:
        study.tell(trial, value if math.isfinite(value) else 9.0)
    return step, trial


def lengths(study: optuna.Study) -> list[int]:
    return [trial.last_step for trial in study.get_trials(deepcopy=False)]


SECOND = """
import json, sys, optuna
from tune_stoppers import RulePruner
from tune_stoppers.rules import BoundASHA
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.load_study(
    study_name="s", storage=(STORAGE)(sys.argv[1]), pruner=RulePruner(RULE)
)
for curve in json.load(sys.stdin):
    trial = study.ask()
    for step, value in enumerate(curve, start=1):
        trial.report(value, step)
        if trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            break
    else:
        study.tell(trial, value)
    print(step)
assert not {"ray", "torch", "pandas"} & set(sys.modules)
"""
STORAGES = {
    "sqlite": "lambda path: 'sqlite:///' + path",
    "journal": "lambda path: optuna.storages.JournalStorage("
    "optuna.storages.journal.JournalFileBackend(path))",
}


@pytest.mark.parametrize(
    ("kind", "rule"),
    [("sqlite", "BoundASHA(max_t=8, reduction_factor=2)"), ("journal", "BoundASHA(max_t=8)")],
)
def test_a_second_process_decides_as_the_first_would_have(kind, rule, tmp_path):
    """It opens the storage that the first one filled, and nothing else."""
    path = str(tmp_path / "study")
    storage = eval(STORAGES[kind])(path)
    pruner = RulePruner(eval(rule))
    whole = new_study(pruner)
    alone = [run(whole, curve)[0] for curve in list(curves().values())[:8]]
    study = new_study(pruner, study_name="s", storage=storage)
    first = [run(study, curve)[0] for curve in list(curves().values())[:4]]
    code = SECOND.replace("STORAGE", STORAGES[kind]).replace("RULE", rule)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, path],
        input=json.dumps(list(curves().values())[4:8]),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert first + list(map(int, done.stdout.split())) == alone
    assert min(alone) < 8


def test_trials_at_the_same_time_share_one_record():
    """Threads of one study: whatever the order was, a pruner that comes later finds the same."""
    rule = BoundASHA(max_t=8, grace_period=1, reduction_factor=2)
    study = new_study(RulePruner(rule))
    with ThreadPoolExecutor(4) as pool:
        reached = list(pool.map(lambda curve: run(study, curve)[0], curves().values()))
    assert sorted(lengths(study)) == sorted(reached)
    assert 3 < sum(step < 8 for step in reached) < 24
    known = study.get_trials(deepcopy=False)
    times = [
        time for trial in known for time in trial.system_attrs["tune_stoppers:reported:0"].values()
    ]
    assert len(set(times)) == len(times) == sum(reached)


def test_the_times_of_a_long_trial_are_in_several_attributes():
    """Each is written again with every report in it."""
    study = new_study(RulePruner(BoundASHA(max_t=1000)))
    assert run(study, [1.0 / step for step in range(1, 131)])[0] == 130
    sizes = [len(times) for times in study.trials[0].system_attrs.values()]
    assert sizes == [64, 64, 2]


def test_optimize_with_several_jobs_and_a_resumed_study(tmp_path):
    """The usual way to use it; what the first run learnt counts in the second."""
    named = list(curves().values())

    def objective(trial):
        trial.suggest_float("x", 0, 1)
        for step, value in enumerate(named[trial.number], start=1):
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value if math.isfinite(value) else 9.0

    storage = f"sqlite:///{tmp_path / 'study.db'}"
    pruner = RulePruner(BoundASHA(max_t=8, grace_period=1, reduction_factor=2, optimism=1e9))
    study = new_study(pruner, study_name="s", storage=storage)
    study.optimize(objective, n_trials=5, n_jobs=2)
    again = optuna.load_study(
        study_name="s", storage=storage, pruner=pickle.loads(pickle.dumps(pruner))
    )
    again.optimize(objective, n_trials=5)
    table = again.trials_dataframe()
    pruned = table[table.state == "PRUNED"]
    assert 0 < len(pruned) < 10
    assert pruned.user_attrs_stop_reason.str.startswith("RulePruner: BoundASHA: ").all()
    assert table[table.state == "COMPLETE"].user_attrs_stop_reason.isna().all()


def test_a_report_counts_once_its_trial_asks():
    """Trials that ask at every other step, and those that never ask, count all the same."""
    rule = BoundASHA(max_t=8, grace_period=2, reduction_factor=2, optimism=1e9)
    often, seldom = new_study(RulePruner(rule)), new_study(RulePruner(rule))
    for name, curve in curves().items():
        if name == "t03":
            continue  # which is stopped where it diverges, asked or not
        run(often, curve)
        run(seldom, curve, asked=lambda step: step % 2 == 0)
    assert lengths(often) == lengths(seldom)
    never = new_study(optuna.pruners.NopPruner())
    for curve in list(curves().values())[:6]:
        run(never, curve)
    never.pruner = RulePruner(rule)
    assert run(never, [5.0] * 8)[0] == 2


def test_a_report_that_is_late_has_the_trial_folded_again():
    """A value for an earlier step than the newest: judged in the order of the steps."""
    study = new_study(RulePruner(Patience(2)))
    trial = study.ask()
    for step, value in ((1, 1.0), (4, 2.0)):
        trial.report(value, step)
        assert not trial.should_prune()
    trial.report(0.5, 2)
    assert not trial.should_prune()
    trial.report(3.0, 5)
    assert trial.should_prune()
    assert trial.should_prune()


def test_an_event_that_another_process_was_about_to_write():
    """It happened before what was folded already: the record is that of the right order."""
    rule = BoundASHA(max_t=4, grace_period=1, reduction_factor=2, optimism=1e9)
    study = new_study(RulePruner(rule))
    first, second, third = study.ask(), study.ask(), study.ask()
    first.report(1.0, 1)
    assert not first.should_prune()
    ((key, times),) = study.get_trials(deepcopy=False)[0].system_attrs.items()
    second.report(0.5, 1)
    study._storage.set_trial_system_attr(second._trial_id, key, {"1": times["1"] - 1})
    third.report(1.5, 1)
    assert third.should_prune()
    assert first.should_prune()  # the second was before it, and better


@pytest.mark.parametrize(("state", "length"), [("COMPLETE", 2), ("PRUNED", 2), ("FAIL", 4)])
def test_a_crash_is_no_evidence(state, length):
    """The last report of a trial that ended without asking counts; of one that failed it does
    not."""
    rule = BoundASHA(max_t=8, grace_period=2, reduction_factor=2, optimism=1e9)
    study = new_study(RulePruner(rule))
    for _ in range(2):
        trial = study.ask()
        trial.report(0.1, 2)
        study.tell(trial, 0.1 if state == "COMPLETE" else None, state=STATES[state])
    study.tell(study.ask(), 1.0)  # it never reported
    assert run(study, [1.0, 0.9, 0.8, 0.7])[0] == length


def test_a_trial_that_comes_to_the_horizon_is_complete():
    """As the best of the study it has to be; one that returns its best when it is to stop is too,
    and counts as stopped."""
    study = new_study(RulePruner(BoundASHA(max_t=4)))
    run(study, [1.0, 0.9, 0.8, 0.7])
    assert study.best_trial.last_step == 4
    study = new_study(RulePruner(2))
    study.optimize(lambda trial: 1.0 * run_in(trial, 9), n_trials=1)
    assert (study.best_value, study.best_trial.last_step) == (1.0, 3)


def run_in(trial: optuna.Trial, steps: int) -> float:
    """An objective that gets worse, and returns the best when it is to stop."""
    for step in range(1, steps + 1):
        trial.report(float(step), step)
        if trial.should_prune():
            break
    return 1.0


def test_a_decision_that_ends_the_sweep_stops_the_study():
    """`optimize` returns, the reason is on the study, and lifting it lets it go on."""
    study = new_study(RulePruner(Threshold(0.5, scope="sweep")))

    def objective(trial):
        value = 1.0 / (trial.number + 1)
        trial.report(value, 1)
        if trial.should_prune():
            raise optuna.TrialPruned
        return value

    study.optimize(objective, n_trials=10)
    assert len(study.trials) == 3
    assert study.user_attrs["stop_reason"].startswith("RulePruner: Threshold: ")
    study.optimize(lambda trial: objective(trial) + trial.number, n_trials=10)
    assert len(study.trials) == 4
    study.set_user_attr("stop_reason", None)
    study.pruner = RulePruner(Threshold(-1.0, scope="sweep"))
    study.optimize(objective, n_trials=2)
    assert len(study.trials) == 6


def test_a_dry_run_prunes_nothing():
    """But says which trials it would have pruned, and why the first time."""
    study = new_study(RulePruner(1, dry_run=True))
    assert run(study, [1.0, 2.0, 3.0])[0] == 3
    said = study.trials[0].user_attrs["would_stop_reason"]
    assert said == (
        "RulePruner: Patience: 1 of 1 evaluations without improvement, value 2, best 1 at step 1"
    )
    assert repr(study.pruner).endswith("smoothing=None), dry_run=True)")


def test_start_after_and_the_policy_for_nan():
    """As the keywords of the stoppers; and a maximised value is spoken of as it is."""
    study = new_study(RulePruner(1, start_after=4), "max")
    step, _ = run(study, [3.0, 2.0, 1.0, 0.5, 0.4])
    assert step == 4
    assert "value 0.5, best 3 at step 1" in study.trials[0].user_attrs["stop_reason"]
    nan = [1.0, math.nan, math.nan, 0.5]
    assert run(new_study(RulePruner(2)), nan)[0] == 3
    assert run(new_study(RulePruner(2, on_nonfinite="ignore")), nan)[0] == 4
    assert run(new_study(RulePruner(2, on_nonfinite="stop")), nan)[0] == 2


def test_many_trials_at_a_time():
    """More than are kept: of the others the values are folded again."""
    study = new_study(RulePruner(2))
    trials = [study.ask() for _ in range(70)]
    for step in (1, 2, 3):
        for trial in trials:
            trial.report(float(step), step)
            assert trial.should_prune() == (step == 3)


def test_a_pruner_is_copied_without_what_it_saw():
    """It can serve two studies, and a copy a third."""
    pruner = RulePruner(2)
    studies = [new_study(pruner), new_study(pruner), new_study(copy.deepcopy(pruner))]
    assert [run(study, [1.0, 2.0, 3.0, 4.0])[0] for study in studies] == [3, 3, 3]


REFUSED = {
    "stopper": (lambda: PatienceStopper("loss", "min"), TypeError, "Give it the rule in it: Pat"),
    "name": (lambda: "Patience", TypeError, "needs a rule of tune_stoppers.rules, got 'Patience'"),
    "bool": (lambda: True, TypeError, "needs a rule"),
    "zero": (lambda: 0, ValueError, "patience"),
    "pauses": (lambda: Promotion(max_t=9), TypeError, "In Ray Tune: PromotionASHAScheduler"),
    "reads": (lambda: Overfit(train_metric="train_loss", criterion="pq"), ValueError, "train_loss"),
    "other": (lambda: GradientNorm(), ValueError, "GradientNorm reads grad_norm, and a trial of"),
    "clock": (lambda: DiminishingReturns(max_t=9, worth=1.0), ValueError, "reports one number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_optuna_cannot_carry_out_is_refused(name):
    """As the pruner is made, with what to do instead."""
    make, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        RulePruner(make())


def test_its_own_keywords_are_checked():
    """At construction."""
    with pytest.raises(ValueError, match="start_after must be >= 0"):
        RulePruner(2, start_after=-1)
    with pytest.raises(TypeError, match="dry_run must be True or False, got 'yes'"):
        RulePruner(2, dry_run="yes")
    with pytest.raises(ValueError, match="on_nonfinite"):
        RulePruner(2, on_nonfinite="skip")
