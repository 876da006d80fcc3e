"""Whether `max_t` is in units of the trials' time, and the line to write where it is not."""

from collections.abc import Callable
from typing import Any

import pytest

from tune_stoppers.core.per_trial import PerTrial
from tune_stoppers.journal.spec import from_spec, to_spec
from tune_stoppers.rules import Patience
from tune_stoppers.rules.horizon import Misfit, Seen, glance, max_t_of, misfit
from tune_stoppers.rules.sweep.bound_asha import BoundASHA
from tune_stoppers.rules.sweep.diminishing_returns import DiminishingReturns
from tune_stoppers.rules.sweep.forecast import Forecast
from tune_stoppers.rules.sweep.freeze_thaw import FreezeThaw
from tune_stoppers.rules.sweep.promotion import Promotion

Keys = dict[str, Callable[[int, int], float]]
STEP: Keys = {"step": lambda t, length: 100 * t}
PROGRESS: Keys = {"progress": lambda t, length: t / length}
EPOCH: Keys = {"epoch": lambda t, length: t / 10}


def trial(
    length: int,
    keys: Keys | None = None,
    *,
    made: int | None = None,
    attr: str = "training_iteration",
    ended: bool = True,
    sure: bool = True,
) -> Seen:
    """A trial of `length` reports, of which it has made so many."""
    last = length if made is None else made

    def row(t: int) -> dict[str, Any]:
        told = {name: count(t, length) for name, count in (keys or {}).items()}
        return {"training_iteration": t, "loss": 1.0, "config/epochs": 900, "lr": 1e-5} | told

    first, newest = row(1), row(last)
    end = glance(newest[attr], newest, attr) if ended else None
    return Seen(glance(first[attr], first, attr), newest[attr], end, sure and ended)


def found(max_t: float, trials: list[Seen], attr: str = "training_iteration") -> Misfit | None:
    return misfit(max_t, attr, trials)


@pytest.mark.parametrize(
    ("max_t", "attr", "keys", "length", "line"),
    [
        (1000, "training_iteration", {}, 6, " Write Auto(max_t=6)."),
        (600, "training_iteration", STEP, 6, 'write Auto(max_t=600, time_attr="step"); else '),
        (1000, "training_iteration", STEP, 6, 'write Auto(max_t=1000, time_attr="step"); else '),
        (1, "training_iteration", PROGRESS, 12, 'Auto(max_t=1, time_attr="progress"); else '),
        (3, "training_iteration", PROGRESS | EPOCH, 30, 'max_t=3, time_attr="epoch"); else '),
        (6, "progress", PROGRESS, 6, "write Auto(max_t=6); else "),
        (3, "step", STEP, 6, "write Auto(max_t=3)."),
        (12, "training_iteration", {"seen_tokens": lambda t, n: 3 * t}, 4, '"seen_tokens"); else '),
        (3600, "training_iteration", {"time_total_s": lambda t, n: 600 * t}, 6, '"time_total_s"'),
        (1_000_000, "training_iteration", {"step": lambda t, n: t * 166_667}, 6, "max_t=1000000,"),
    ],
)
def test_a_horizon_in_another_unit_is_told_with_the_line_to_write(
    max_t: float, attr: str, keys: Keys, length: int, line: str
) -> None:
    """What it counts, where something fits; else the length of the trials."""
    wrong = found(max_t, [trial(length, keys, attr=attr) for _ in range(3)], attr)
    assert wrong is not None
    said = wrong.say("Auto")
    assert said.startswith(f"Auto: max_t={max_t} does not fit the trials' time: ")
    assert line in said


def test_a_stoppers_line_has_its_metric() -> None:
    """It is given first."""
    wrong = found(1000, [trial(6)] * 3)
    assert wrong is not None
    assert wrong.say("S", '"loss", "min"').endswith(' Write S("loss", "min", max_t=6).')


@pytest.mark.parametrize(
    "trials",
    [
        [],
        [trial(6)] * 2,  # too few
        [trial(6, ended=False)] * 9,  # still running, crashed, or stopped
        [trial(100)] * 3,
        [trial(80), trial(60), trial(40)],  # about so long
        [trial(6)] * 3 + [trial(100, made=60, ended=False)],  # one goes far enough
        [trial(n) for n in (12, 20, 35)],  # they stop themselves early
        [trial(n) for n in (9, 6, 7, 6, 8)],
        [trial(6)] * 3 + [trial(100, made=7, ended=False)],  # three do at once, one runs on
        [trial(100, PROGRESS, made=n) for n in (6, 6, 6)],  # by their own account, too
        [trial(n, sure=False) for n in (6, 7, 8)],  # by a stopper that gives no reason
        [trial(100, {"progress": lambda t, n: 100 * t / n})] * 3,  # per cent
        [trial(100, STEP | PROGRESS | EPOCH)] * 3,  # steps to 10,000, ten epochs
        [trial(200, PROGRESS, made=100)] * 3,  # a horizon below the whole length is a choice
    ],
)
def test_no_false_alarm(trials: list[Seen]) -> None:
    """With max_t=100."""
    assert found(100, trials) is None


def test_equal_lengths_count_whoever_ended_them() -> None:
    """Ray's stop={"training_iteration": 6} gives no reason, and all come to it."""
    assert found(100, [trial(6, sure=False)] * 3) is not None
    assert found(100, [trial(40)] * 3) is not None  # less than half
    assert found(100, [trial(60)] * 3) is None


def test_trials_of_different_lengths() -> None:
    """Six that end by themselves, far away; or fewer with the same number of steps."""
    assert found(100, [trial(n) for n in (6, 9, 7, 6, 8, 9)]) is not None
    assert found(100, [trial(n, sure=False) for n in (6, 9, 7, 6, 8, 9)]) is None
    same: Keys = {"step": lambda t, n: 1000 * t / n}
    wrong = found(1000, [trial(n, same) for n in (6, 12, 24)])
    assert wrong is not None
    assert wrong.key == "step"


def test_one_report_a_trial_at_the_horizon_is_its_length() -> None:
    """A trial that reports once, at the end, and max_t=1."""
    assert found(1, [trial(1)] * 5) is None
    assert found(1, [trial(1, STEP | PROGRESS)] * 5) is None
    assert found(100, [trial(1, STEP, attr="step")] * 5, "step") is None


def test_reports_far_beyond_the_horizon() -> None:
    """Of a rule that does not end the trials there."""
    wrong = found(10, [trial(100, made=n, ended=False) for n in (21, 30, 40)])
    assert wrong is not None
    assert "trials run to training_iteration 40" in wrong.say("S")


def test_only_what_counts_is_looked_at() -> None:
    """Not hyperparameters, rates, sizes, ids, nested results, text, or what is not finite."""
    row = {
        "global_step": 5,
        "config/max_steps": 9,
        "tokens_per_second": 7.0,
        "samples/s": 3.0,
        "batch_size": 8,
        "iterations_since_restore": 2,
        "time_this_iter_s": 1.0,
        "eval": {"step": 3},
        "epoch": "third",
        "progress": float("nan"),
        "num_examples": float("inf"),
        "step_done": True,
        "training_iteration": 4,
    }
    assert glance(4, row, "training_iteration").others == {"global_step": 5.0}


def test_every_rule_with_a_horizon_is_known() -> None:
    """Also out of a journal's spec, and within another rule; others have none."""
    for kind in (BoundASHA, Promotion, FreezeThaw, Forecast, DiminishingReturns):
        assert max_t_of(kind(max_t=7)) == 7
        assert max_t_of(from_spec(to_spec(kind(max_t=7)))) == 7
    assert max_t_of(DiminishingReturns()) is None
    assert max_t_of(PerTrial(Patience(3) | Patience(4))) is None
