"""Trials that crash, hang, and report nonsense: the sweep ends, and nobody else is the worse."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.fs as pafs
import pytest

from tests.faults.misbehaving import (
    BREAKS_AT,
    FAILING,
    HANGS,
    HEALTHY,
    KINDS,
    LATER,
    NONFINITE,
    SILENT,
    STEPS,
    TRAP,
    run_sweep,
    sound,
)
from tune_stoppers import (
    AutoScheduler,
    BoundASHAScheduler,
    DivergenceStopper,
    FreezeThawScheduler,
    PatienceStopper,
    PromotionASHAScheduler,
    RollbackScheduler,
    RuleScheduler,
    explain,
    rules,
)
from tune_stoppers.core import OnNonfinite, Rule, SweepRule
from tune_stoppers.experiment.journals import Run, runs_of
from tune_stoppers.journal.fold import fold
from tune_stoppers.journal.lines import ENDED, Line
from tune_stoppers.journal.rerun import judge_again, same
from tune_stoppers.report.data.explain import verify
from tune_stoppers.report.terminal.explained import verdict

pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    # Ray's own, in the driver: its event loop policy and the loggers it still loads by default
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
]


@pytest.fixture(autouse=True)
def no_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own logger for it ends any sweep at an integer beyond 64 bits."""
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")


EASY = rules.Patience(2, min_delta=0.06)  # stops every healthy curve before its end
COMMON: dict[str, Any] = {
    "metric": "loss",
    "mode": "min",
    "time_attr": "step",
    "on_missing": "skip",
}
SCHEDULERS: dict[str, Callable[..., Any]] = {
    "auto": lambda **more: AutoScheduler(STEPS, 2, **COMMON, **more),
    "bound": lambda **more: BoundASHAScheduler(STEPS, 2, 2, **COMMON, **more),
    "promotion": lambda **more: PromotionASHAScheduler(STEPS, 2, 2, pen=3, **COMMON, **more),
    "freeze-thaw": lambda **more: FreezeThawScheduler(STEPS, 2, 2, **COMMON, **more),
    "rollback": lambda **more: RollbackScheduler(patience=3, **COMMON, **more),
    "rule": lambda **more: RuleScheduler(EASY, **COMMON, **more),
}


class Sweep(NamedTuple):
    """A sweep that has ended."""

    told: dict[str, dict[str, Any]]  # each trial's row of `explain`, by its kind
    kinds: dict[str, str]  # of the trials, by their ids
    runs: list[Run]

    def run_of(self, owner: str) -> Run:
        (found,) = (run for run in self.runs if run.owner == owner)
        return found

    def lines(self, owner: str, kinds: Iterable[str] = KINDS) -> list[Line]:
        """The lines of the journal about these trials."""
        wanted = {trial for trial, kind in self.kinds.items() if kind in set(kinds)}
        return [line for line in self.run_of(owner).lines if line["trial"] in wanted]


def swept(folder: Path, **options: Any) -> Sweep:
    """Run the sweep, and read all that it left behind."""
    path = run_sweep(folder, **options)
    told = explain(path)
    rows = {row["config/kind"]: row for row in told.to_dict("records")}
    kinds = dict(zip(told["trial_id"], told["config/kind"], strict=True))
    return Sweep(rows, kinds, runs_of(pafs.LocalFileSystem(), path))


def check_endings(sweep: Sweep, max_failures: int, paused_too: bool) -> None:
    """Every trial has ended, and why is said; one that was paused may have waited to the end."""
    for kind, row in sweep.told.items():
        assert row["cause"] and row["reason"], kind
        never = paused_too and math.isnan(row["step"])  # started
        if (
            kind not in SILENT
            and row["ending"] == "stopped"
            and (row["step"] <= BREAKS_AT or never)
        ):
            continue  # by a rule, or paused, before anything happened
        if kind == HANGS:
            assert row["cause"] == "BudgetStopper"
        elif kind in FAILING and max_failures < 0:
            assert row["cause"] in ("failed", "BudgetStopper"), kind  # it was being tried again
        elif kind in FAILING or (kind == "killed once" and not max_failures):
            assert row["ending"] == "failed", kind
        elif kind == "nothing":
            assert row["cause"] == "never reported"
        elif kind == "returns early" or kind in SILENT:
            assert row["cause"] in ("ended by itself", "ran to the last step"), kind
        else:
            assert row["ending"] in ("stopped", "finished"), kind
            assert paused_too or row["cause"] != "BudgetStopper", kind
    if "raises" in sweep.told and sweep.told["raises"]["ending"] == "failed":
        assert sweep.told["raises"]["reason"] == "RuntimeError: broken on purpose"


def check_again(sweep: Sweep) -> None:
    """The journals are whole: every decision comes out again."""
    for run in sweep.runs:
        verified = verify(run)
        assert verified.rerun is not None
        assert not verified.failed, verdict(verified)


def check_rungs(sweep: Sweep, rule: Any, owner: str, worst: bool) -> None:
    """A rung holds sound losses alone, and the worst for what is not finite, if that is asked."""
    record, came = rule.init(), dict.fromkeys(sweep.kinds, 0.0)
    lines = sweep.run_of(owner).lines
    for _ in fold(rule, record, lines, 1):
        pass
    for line in lines:
        if "action" in line or line.get("event") == ENDED:
            came[line["trial"]] = max(came[line["trial"]], line["step"])
    for number, (time, rung) in enumerate(zip(rule.rungs, record.rungs, strict=True)):
        expected = {}
        for trial, kind in sweep.kinds.items():
            if kind in NONFINITE:
                if worst and number == 0:
                    expected[trial] = math.inf
            elif kind not in SILENT and came[trial] >= time:
                first = max(time, LATER) if kind == "backwards" else time
                expected[trial] = sound(kind, first)
        assert rung.of_trial == expected, f"rung {time}"


def check_peers(sweep: Sweep, rule: SweepRule[Any], owner: str) -> None:
    """Without the trials that report nothing sound, the others are judged the same."""
    peers = [kind for kind in KINDS if kind not in (*NONFINITE, *SILENT)]
    judged = list(fold(rule, rule.init(), sweep.lines(owner, peers), 1))
    assert judged
    for line, decision in judged:
        assert (line["action"], line["reason"]) == (decision.action.value, decision.say())


def check_alone(sweep: Sweep, rule: Rule | SweepRule[Any], owner: str) -> None:
    """A rule that looks at one trial at a time decides on each as if it were the only one."""
    for kind in sweep.told:
        judged = list(judge_again(rule, sweep.lines(owner, [kind]), 1))
        for line, decision in judged:
            assert decision is None or same(line, decision, 1), line
        if kind in HEALTHY:
            assert [line["step"] for line, _ in judged] == list(range(1, len(judged) + 1))


def check_values(sweep: Sweep) -> None:
    """Nothing was judged but what a trial is known to have reported.

    A report out of order is noted by a stopper, with the decision that it does not change.
    """
    for run in sweep.runs:
        for line in run.lines:
            value, kind = line.get("value"), sweep.kinds.get(line["trial"])
            if "action" not in line or value is None or kind in NONFINITE:
                continue
            passed_over = line.get("event") == "out of order"
            expected = TRAP if passed_over else sound(str(kind), line["step"])
            assert value == expected, line


def check(sweep: Sweep, name: str, policy: OnNonfinite, max_failures: int) -> None:
    """All that must hold of a sweep under the scheduler or the stoppers `name`."""
    check_endings(sweep, max_failures, paused_too=name in ("auto", "promotion", "freeze-thaw"))
    check_again(sweep)
    check_values(sweep)
    if name == "plain":
        check_alone(sweep, replace(EASY, on_nonfinite=policy), "PatienceStopper")
        check_alone(sweep, rules.Divergence(), "DivergenceStopper")
        return
    scheduler, worst = SCHEDULERS[name](on_nonfinite=policy), policy == "worst"
    if name in ("rule", "rollback"):
        check_alone(sweep, scheduler.rule, scheduler.name)
        return
    check_rungs(sweep, scheduler.rule, scheduler.name, worst)
    if not worst:
        check_peers(sweep, scheduler.rule, scheduler.name)


def watching(name: str, policy: str) -> dict[str, Any]:
    """The scheduler or the stoppers `name`, for `swept`."""
    if name != "plain":
        return {"scheduler": SCHEDULERS[name](on_nonfinite=policy)}
    common: dict[str, Any] = COMMON | {"on_nonfinite": policy}
    patience = PatienceStopper(patience=EASY.patience, min_delta=EASY.min_delta, **common)
    return {"stopper": patience | DivergenceStopper(**COMMON)}


def test_a_scheduler_judges_sound_losses_alone(tmp_path: Path) -> None:
    """Three healthy trials among a dozen broken ones; those that die are tried again, twice."""
    comparable = (*HEALTHY[:3], "numpy", "twice", "backwards", "wide")
    garbage = ("nan", "-inf", "string", "none", "other metrics", "nothing")
    broken = ("raises", "killed once", "returns early")
    kinds = (*comparable, *garbage, *broken)
    sweep = swept(tmp_path, **watching("bound", "worst"), max_failures=2, kinds=kinds)
    check(sweep, "bound", policy="worst", max_failures=2)


def test_stoppers_end_what_they_should_and_the_clock_the_rest(tmp_path: Path) -> None:
    """One trial hangs and one is tried again for ever: the sweep's budget ends it, and says so."""
    kinds = (*HEALTHY[:2], "inf", "array", "no time", "nothing", "returns early", "raises", HANGS)
    sweep = swept(tmp_path, **watching("plain", "worst"), max_failures=-1, kinds=kinds)
    check(sweep, "plain", policy="worst", max_failures=-1)


@pytest.mark.stress
def test_a_trial_whose_time_ran_backwards_is_promoted(tmp_path: Path) -> None:
    """It is among the best where it was paused, at its first report, and goes on."""
    kinds = ("backwards", HEALTHY[0], HEALTHY[2], "numpy", "twice", "wide")
    sweep = swept(tmp_path, **watching("promotion", "worst"), kinds=kinds)
    lines = sweep.lines("PromotionASHAScheduler", ["backwards"])
    assert "resumed" in {line.get("event") for line in lines}
    check(sweep, "promotion", policy="worst", max_failures=0)


@pytest.mark.stress
@pytest.mark.parametrize("name", [*SCHEDULERS, "plain"])
@pytest.mark.parametrize("max_failures", [0, 2, -1])
@pytest.mark.parametrize("policy", ["worst", "ignore"])
def test_every_scheduler(tmp_path: Path, name: str, max_failures: int, policy: OnNonfinite) -> None:
    """Each of ours, and stoppers alone, with any number of retries, under either policy."""
    endless = ("killed", "torch") if max_failures < 0 else ()  # they would take every place
    sweep = swept(
        tmp_path,
        **watching(name, policy),
        max_failures=max_failures,
        kinds=tuple(kind for kind in KINDS if kind not in endless),
        width=100_000,
    )
    check(sweep, name, policy, max_failures)
