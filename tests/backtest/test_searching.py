"""A searcher over recorded trials: what it suggests, what runs, and what it is told."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher, SearchGenerator
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch
from ray.tune.stopper import MaximumIterationStopper

from tune_stoppers import PromotionASHAScheduler
from tune_stoppers.backtest.clock import StalledError
from tune_stoppers.backtest.compare import compare
from tune_stoppers.backtest.process import Faults
from tune_stoppers.backtest.replay import replay
from tune_stoppers.recorded.sweep import Sweep


def sweep(configs: Sequence[dict[str, Any]], losses: Sequence[Sequence[float]]) -> Sweep:
    """Trials "0", "1", … with these configurations and losses."""
    rows = [
        {"trial_id": str(n), "training_iteration": i, "loss": loss}
        | {f"config/{name}": value for name, value in config.items()}
        for n, (config, curve) in enumerate(zip(configs, losses, strict=True))
        for i, loss in enumerate(curve, start=1)
    ]
    return Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min")


def line(trials: int, length: int = 3) -> Sweep:
    """Trial n has x = n, and loss n + 1/i at report i."""
    losses = [[n + 1 / i for i in range(1, length + 1)] for n in range(trials)]
    return sweep([{"x": n} for n in range(trials)], losses)


def bowl(trials: int = 150, length: int = 4) -> Sweep:
    """Three hyperparameters of which the best lies inside; half of the trials are bad by one."""
    dice = np.random.default_rng(3)
    configs, losses = [], []
    for _ in range(trials):
        rate, share = 10 ** dice.uniform(-5, -1), dice.random()
        name = str(dice.choice(["adam", "sgd"]))
        level = (np.log10(rate) + 3) ** 2 + 4 * (share - 0.3) ** 2 + (name == "sgd")
        configs.append({"rate": rate, "share": share, "by/name": name})
        losses.append([level + 1 / i for i in range(1, length + 1)])
    return sweep(configs, losses)


class Scripted(Searcher):
    """Suggests what it is given, in order, then FINISHED; its copies note all calls with it."""

    def __init__(self, script: Sequence[Any], calls: list[tuple] | None = None) -> None:
        super().__init__(metric="loss", mode="min")
        self.script = list(script)
        self.calls = [] if calls is None else calls

    def __deepcopy__(self, memo: object) -> "Scripted":
        return Scripted(self.script, self.calls)

    def suggest(self, trial_id):
        answer = self.script.pop(0) if self.script else Searcher.FINISHED
        self.calls.append(("suggest", trial_id, answer))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def on_trial_result(self, trial_id, result):
        assert result["trial_id"] == trial_id
        self.calls.append(("result", trial_id, result["training_iteration"], result["loss"]))

    def on_trial_complete(self, trial_id, result=None, error=False):
        last = None if result is None else (result["training_iteration"], result["loss"])
        self.calls.append(("complete", trial_id, last, error))


class Downhill(Searcher):
    """A toy that improves: from 50 it steps down by 5 while that helps, then up by halves."""

    def __init__(self) -> None:
        super().__init__(metric="loss", mode="min")
        self.at: dict[str, float] = {}
        self.seen: dict[float, float] = {}

    def suggest(self, trial_id):
        best = min(self.seen, key=self.seen.__getitem__, default=50.0)
        self.at[trial_id] = best - 5.0 if best == min(self.seen, default=best) else best + 0.5
        return {"x": self.at[trial_id]}

    def on_trial_complete(self, trial_id, result=None, error=False):
        self.seen[self.at[trial_id]] = result["loss"]


def handed_out(result) -> list[str]:
    """The trials that were run, in the order in which they started."""
    journal = result.journal
    return journal[journal["action"] == "start"]["trial_id"].tolist()


def xs(*values: float) -> list[dict[str, float]]:
    return [{"x": value} for value in values]


def test_the_nearest_unused_trial_runs():
    """A suggestion made twice is the next nearest trial; what was not suggested stays PENDING."""
    result = replay(line(6), searcher=Scripted(xs(4.2, 4.2, 0.0)), workers=1)
    assert handed_out(result)[0] == "4"
    assert handed_out(result)[1] in ("3", "5")
    assert handed_out(result)[2:] == ["0"]
    assert result.trials["trial_id"].tolist()[:3] == handed_out(result)
    assert result.trials["status"].tolist() == ["TERMINATED"] * 3 + ["PENDING"] * 3
    assert not result.stalled


def test_the_searcher_is_told_what_its_trials_reported():
    """Each report that does not end the trial, then the last one with the end."""
    searcher = Scripted(xs(1.0, 0.0))
    replay(line(3), searcher=searcher, workers=1)
    assert searcher.calls[:4] == [
        ("suggest", "suggestion_00000", {"x": 1.0}),
        ("result", "suggestion_00000", 1, 2.0),
        ("result", "suggestion_00000", 2, 1.5),
        ("result", "suggestion_00000", 3, 1 + 1 / 3),
    ]
    assert searcher.calls[4] == ("complete", "suggestion_00000", (3, 1 + 1 / 3), False)
    assert searcher.calls[-1][:2] == ("suggest", searcher.calls[-1][1])


@pytest.mark.parametrize(
    "rules",
    [
        {"stopper": MaximumIterationStopper(2)},
        {"scheduler": ASHAScheduler(max_t=2, grace_period=1)},
    ],
    ids=["stopper", "scheduler"],
)
def test_the_searcher_is_told_of_trials_that_were_stopped(rules):
    """The report at which a trial is stopped comes with its end, and only so."""
    searcher = Scripted(xs(2.0))
    replay(line(3), **rules, searcher=searcher, workers=1)
    assert searcher.calls[1:3] == [
        ("result", "suggestion_00000", 1, 3.0),
        ("complete", "suggestion_00000", (2, 2.5), False),
    ]


def test_the_searcher_is_told_of_errors_but_not_of_retries():
    """A trial that fails for good is completed with error, without a result."""
    options = {"failure_rate": 0.6, "workers": 1, "seed": 2}
    searcher = Scripted(xs(*range(8)))
    result = replay(line(8), searcher=searcher, **options)
    failed = int((result.trials["ended_by"] == "error").sum())
    ends = [call for call in searcher.calls if call[0] == "complete"]
    assert 0 < failed == sum(error for *_, error in ends) <= len(ends) == 8
    assert all(last is None for _, _, last, error in ends if error)
    again = Scripted(xs(*range(8)))
    result = replay(line(8), searcher=again, max_failures=-1, **options)
    assert result.trials["failures"].sum() > 0
    assert [c for c in again.calls if c[0] == "complete" and c[3]] == []


class Ending(FIFOScheduler):
    """Ends what is pending when a trial reports; its copies note what they see of the searcher."""

    def __init__(self) -> None:
        super().__init__()
        self.searches: list[Any] = []

    def __deepcopy__(self, memo: object) -> "Ending":
        return self

    def on_trial_result(self, controller, trial, result):
        self.searches.append(controller.search_alg)
        for other in list(controller.get_trials()):
            if other.status == "PENDING":
                controller.stop_trial(other)
        return "CONTINUE"


def test_a_trial_that_never_ran_is_completed_without_a_result():
    """As Ray tells it of a trial that a scheduler removes."""
    searcher = Scripted(xs(0, 1, 2, 3))
    replay(line(4), Ending(), searcher=SearchGenerator(searcher), workers=1)
    assert ("complete", "suggestion_00001", None, False) in searcher.calls


@pytest.mark.parametrize(
    ("wrapped", "most"),
    [
        (lambda searcher: searcher, 3),
        (lambda searcher: ConcurrencyLimiter(searcher, max_concurrent=2), 2),
        (SearchGenerator, 4),
    ],
    ids=["as it is", "limited", "open"],
)
def test_how_many_suggestions_are_unfinished_at_a_time(wrapped, most):
    """As many as there are workers, none ahead; a limiter keeps its own limit; a SearchGenerator
    is asked one ahead."""
    searcher = Scripted(xs(*range(12)))
    replay(line(12), searcher=wrapped(searcher), workers=3)
    unfinished, highest, told = 0, 0, 0
    for kind, *_, answer in searcher.calls:
        unfinished += (kind == "suggest" and answer != "FINISHED") - (kind == "complete")
        highest, told = max(highest, unfinished), told + (kind == "complete")
    assert (highest, told) == (most, 12)


@pytest.mark.parametrize("limited", [True, False])
def test_schedulers_see_the_searcher_as_ray_shows_it(limited):
    """A SearchGenerator, whose searcher is a ConcurrencyLimiter if it is limited."""
    scheduler, searcher = Ending(), Scripted(xs(0, 1))
    replay(line(2), scheduler, searcher=searcher if limited else SearchGenerator(searcher))
    assert isinstance(scheduler.searches[0], SearchGenerator)
    assert isinstance(scheduler.searches[0].searcher, ConcurrencyLimiter) is limited


def test_a_searcher_that_waits_is_asked_again():
    """None means: not now; the next question comes with the next event."""
    searcher = Scripted([{"x": 0}, *[None] * 5, {"x": 2}])
    result = replay(line(3), searcher=searcher, workers=2)
    assert handed_out(result) == ["0", "2"]
    started = result.journal["time"][result.journal["action"] == "start"].tolist()
    assert started[0] == 0 < started[1] < 3
    assert [call[0] for call in searcher.calls].count("suggest") == 8
    late = replay(line(3), searcher=Scripted([None, None, {"x": 2}]))
    assert handed_out(late) == ["2"]  # nothing runs: it is asked at once, as Ray does each second


def test_a_searcher_that_suggests_nothing_any_more_is_named():
    """Ray would ask for ever; the replay says so, or ends there."""
    script = [{"x": 0}] + [None] * 2000
    with pytest.raises(
        StalledError, match=r"Scripted suggests nothing, though all of its 1 trials"
    ):
        replay(line(2), searcher=Scripted(script))
    result = replay(line(2), searcher=Scripted(script), on_stall="end")
    assert (result.stalled, result.reports) == (True, 3)


def test_a_searcher_that_finishes_at_once_runs_nothing():
    """No trial, no report; the worst regret."""
    result = replay(line(2), searcher=Scripted([]))
    assert (result.reports, result.regret, result.savings) == (0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("searcher", "error", "message"),
    [
        (Scripted([KeyError("lr")]), RuntimeError, "Scripted failed in suggest: KeyError: 'lr'"),
        (Scripted([7]), TypeError, "Scripted suggested 7; a suggestion is a configuration"),
        (Scripted([{"y": 1}]), ValueError, r"suggested \{'y': 1\}; none of these is .*: x\."),
        (OptunaSearch({"x": tune.uniform(0, 1)}), RuntimeError, "OptunaSearch failed in suggest"),
        (BasicVariantGenerator(), TypeError, "must be a Ray Searcher .* got BasicVariantGen"),
    ],
    ids=["suggest fails", "no configuration", "unknown names", "no metric", "no searcher"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_searcher_that_cannot_be_used_is_one_clear_error(searcher, error, message):
    """Whose fault, in which call, and why."""
    with pytest.raises(error, match=message):
        replay(line(2), searcher=searcher)


def test_a_sweep_without_hyperparameters_cannot_be_searched():
    """There would be nothing to be near to."""
    same = sweep([{"x": 1}, {"x": 1}], [[1.0], [2.0]])
    with pytest.raises(ValueError, match="no hyperparameter differs between the trials of sweep"):
        replay(same, searcher=Scripted(xs(1)))


def test_a_scheduler_that_holds_and_pauses_trials_comes_to_the_end():
    """The paused count as unfinished; it makes room, and every trial is suggested and ends."""
    searcher = Scripted(xs(*range(30)))
    scheduler = PromotionASHAScheduler(8, 2, 2, metric="loss", mode="min")
    result = replay(line(30, 8), scheduler, searcher=searcher, workers=2)
    assert set(result.trials["status"]) == {"TERMINATED"}
    assert result.trials["pauses"].sum() > 0
    assert len([call for call in searcher.calls if call[0] == "complete"]) == 30


# As Ray does it

LENGTHS = (3, 6, 6, 6, 6)  # of the trials with x = 0, 1, …
CRASH = (2, 3)  # a trial, and the reports that it makes before


def play_back(config: dict[str, Any]) -> None:
    x = config["x"]
    for i in range(1, LENGTHS[x] + 1):
        if (x, i - 1) == CRASH:
            raise RuntimeError("crashed as told")
        tune.report({"loss": x + 1 / i})


def crash_drawn() -> dict[str, Any]:
    """Options under which the replay draws just that failure."""
    for seed in range(10_000):
        dice = Faults(failure_rate=0.1, seed=seed).dice(len(LENGTHS))
        draws = {(x, at) for x, die in enumerate(dice) for at in range(6) if die.roll()}
        if draws == {CRASH}:
            return {"failure_rate": 0.1, "seed": seed}
    raise AssertionError("no seed draws that crash alone")


def numbered(calls: Sequence[tuple]) -> list[tuple]:
    """The calls, with suggestions by number in place of their ids."""
    names = list(dict.fromkeys(name for _, name, *_ in calls))
    return [(kind, names.index(name), *rest) for kind, name, *rest in calls]


@pytest.mark.stress
@pytest.mark.parametrize("limited", [True, False])
def test_the_searcher_hears_what_ray_tells_it(limited, ray_session, tmp_path):
    """Every call, in order, of trials that end, are stopped by a rule or by a stopper, and fail."""
    script = xs(2, 3, 0, 1, 4)
    losses = [[x + 1 / i for i in range(1, length + 1)] for x, length in enumerate(LENGTHS)]
    recorded = sweep(xs(*range(5)), losses)

    real = Scripted(script)
    tune.Tuner(
        tune.with_resources(play_back, {"cpu": 2}),  # all there are: one trial at a time
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            num_samples=5,
            search_alg=real,
            max_concurrent_trials=1 if limited else None,
            scheduler=ASHAScheduler(max_t=6, grace_period=1, reduction_factor=2),
        ),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path), stop=MaximumIterationStopper(5), verbose=0
        ),
    ).fit()
    played = Scripted(script)
    replay(
        recorded,
        ASHAScheduler(max_t=6, grace_period=1, reduction_factor=2),
        MaximumIterationStopper(5),
        searcher=played if limited else SearchGenerator(played),
        workers=1,
        order="recorded",
        **crash_drawn(),
    )
    expected = numbered(real.calls)
    assert numbered(played.calls) == expected
    ends = [call[2:] for call in expected if call[0] == "complete"]
    assert (None, True) in ends  # the crash; of the others, one was stopped at its first report
    assert {last[0] for last, error in ends if not error} >= {1, 3}


# Searchers that improve


def test_a_toy_that_goes_downhill_finds_the_best_sooner():
    """x = 0 is best of 100: in steps of 5 from 50 down, with one worker, after 11 trials."""
    result = replay(line(100, 1), searcher=Downhill(), workers=1, max_reports=11)
    assert handed_out(result)[:3] == ["45", "40", "35"]
    assert result.best == 1.0
    shuffled = [replay(line(100, 1), seed=s, workers=1, max_reports=11).best for s in range(5)]
    assert np.mean(shuffled) > 3.0


def test_optuna_finds_better_trials_sooner_than_chance():
    """Without a space of its own it gets that of the record, with the sweep's metric and mode."""
    recorded = bowl()
    unit = float(np.median([curve.metrics["loss"][-1] for curve in recorded]))

    def area(**options: Any) -> float:
        runs = [
            replay(recorded, seed=seed, workers=4, max_reports=240, **options) for seed in range(4)
        ]
        return float(np.mean([run.log["value"].mean() for run in runs])) / unit

    assert area(searcher=OptunaSearch(seed=1)) < 0.8 * area()


def test_the_same_seed_is_the_same_replay():
    """The searcher is copied: used twice, it begins anew; another seed, other trials."""
    recorded, searcher = bowl(60), OptunaSearch(seed=4)
    first, again = (
        replay(recorded, searcher=searcher, seed=1, max_reports=120).log for _ in range(2)
    )
    other = replay(recorded, searcher=OptunaSearch(seed=5), seed=1, max_reports=120).log
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)


def test_compare_makes_a_searcher_for_each_ordering():
    """Of the sweep and the seed; every replay is that of `replay` with the same ones."""
    recorded, asked = bowl(30), []

    def factory(of: Sweep, seed: int) -> Searcher:
        asked.append((len(of), seed))
        return OptunaSearch(seed=seed)

    found = compare(
        recorded,
        {"two": lambda: MaximumIterationStopper(2)},
        searcher=factory,
        orderings=2,
        seed=7,
        workers=2,
        budget=3.0,
        processes=1,
    ).runs.set_index(["rule", "ordering"])
    assert asked == [(30, 7), (30, 8)] * 2
    alone = replay(
        recorded,
        stopper=MaximumIterationStopper(2),
        searcher=OptunaSearch(seed=8),
        seed=8,
        workers=2,
        resume_cost=0.5,
    )
    assert found.loc[("two", 1), "savings"] == alone.savings == 0.5
    assert found.loc[("two", 1), "regret_end"] == alone.regret
