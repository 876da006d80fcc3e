"""`compare`: every rule on the same orders, honest scores, one sentence."""

import math

import numpy as np
import pandas as pd
import pytest
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, HyperBandScheduler
from ray.tune.stopper import MaximumIterationStopper

from tune_stoppers.backtest.compare import compare, example_path
from tune_stoppers.backtest.named import default_rules
from tune_stoppers.backtest.replay import replay
from tune_stoppers.backtest.score import area, regret_curve
from tune_stoppers.recorded.sweep import Sweep


def sweep(name: str = "one", trials: int = 40, length: int = 8, **options) -> Sweep:
    dice = np.random.default_rng(len(name))
    shape = dice.random((trials, 1)) + dice.random((trials, 1)) / np.arange(1, length + 1)
    rows = [
        {"trial_id": f"t{i}", "training_iteration": t, "loss": value}
        for i, values in enumerate(shape.tolist())
        for t, value in enumerate(values, start=1)
    ]
    return Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min", name=name, **options)


RULES = {
    "asha": lambda sweep: ASHAScheduler(max_t=sweep.max_t, reduction_factor=2),
    "two": lambda: MaximumIterationStopper(2),
}
QUICK = {"workers": 4, "orderings": 3, "processes": 1}


def test_scores_are_those_of_single_replays():
    """A run is `replay` with the same seed; its area, regret and savings are as by hand."""
    recorded = sweep()
    found = compare(recorded, RULES, budget=2.0, seed=5, **QUICK).runs.set_index(
        ["rule", "ordering"]
    )
    alone = replay(recorded, stopper=MaximumIterationStopper(2), workers=4, seed=6, resume_cost=0.5)
    curve = regret_curve(alone.incumbent, alone.regret_of, unit=8.0)
    row = found.loc[("two", 1)]
    assert row["auc"] == row["score"] == area(curve, 2.0)
    assert (
        (row["savings"], row["regret_end"]) == (alone.savings, alone.regret) == (0.75, alone.regret)
    )
    assert "regret_at_4" not in found  # after the budget


def test_no_stopping_is_always_there_and_saves_nothing():
    """It is the baseline, too; a rule that never stops ties with it everywhere."""
    found = compare(sweep(), {"fifo": FIFOScheduler}, **QUICK)
    row = found.table().loc[("sweeps", "fifo")]
    assert found.baseline == "no stopping"
    assert (row["wins"], row["ties"], row["losses"], row["savings"]) == (0, 3, 0, 0)
    assert row["speedup_4"] == row["curve_speedup_4"] == 1.0
    assert row["rank"] == 1.5


def test_the_budget_closes_or_is_only_looked_at():
    """Going on past the budget changes no score; only then are savings known."""
    within = compare(sweep(), RULES, budget=2.0, whole=False, **QUICK).runs
    beyond = compare(sweep(), RULES, budget=2.0, **QUICK).runs
    columns = ["auc", "regret_at_1", "regret_at_2", "started", "speedup_2"]
    pd.testing.assert_frame_equal(within[columns], beyond[columns])
    idle = within["rule"] == "no stopping"
    assert within.loc[idle, "savings"].isna().all()
    assert (beyond.loc[idle, "savings"] == 0).all()
    assert (within.loc[idle, "started"] == 8 / 40).all()  # 4 workers, 2 trainings each


def test_an_exhausted_pool_is_flagged():
    """After 2 of 8 reports each, 4 workers are through with 40 trials within 4 trainings."""
    runs = compare(sweep(), RULES, whole=False, **QUICK).runs
    assert (
        runs[runs["rule"] == "two"][["started", "exhausted"]].to_numpy().tolist() == [[1, True]] * 3
    )
    assert not runs[runs["rule"] == "no stopping"]["exhausted"].any()


def test_a_sweep_with_a_target_is_scored_by_the_time_to_it():
    """Its runs end there: the last value says nothing; the unit is no stopping's mean."""
    recorded = sweep(target=0.3)
    found = compare(recorded, RULES | {"one": lambda: MaximumIterationStopper(1)}, **QUICK)
    runs = found.runs
    assert runs["auc"].isna().all()
    assert runs["regret_end"].isna().all()
    usual = runs[runs["rule"] == "no stopping"]
    assert usual["score"].mean() == pytest.approx(1.0)
    two = runs[runs["rule"] == "two"]
    expected = two["time_to_target"].to_numpy() / usual["time_to_target"].mean()
    np.testing.assert_allclose(two["score"], expected)
    gain = usual["time_to_target"].to_numpy() / two["time_to_target"].to_numpy()
    np.testing.assert_allclose(two["speedup_4"], gain)
    assert "time to target" in found.recommendation()


def test_a_target_not_reached_counts_as_the_budget():
    """And the time itself is not known."""
    runs = compare(sweep(target=-1.0), RULES, **QUICK).runs
    assert runs["time_to_target"].isna().all()
    assert (runs["score"] == 1.0).all()


def test_families_surrogates_and_sweeps_only_shown():
    """Each family has its own rows; what is only shown is not in overall; surrogates are told."""
    sweeps = [sweep("a"), sweep("bb", surrogate=True), sweep("ccc", description={"family": "f"})]
    found = compare(sweeps, RULES, families={"a": "g", "bb": "g"}, unscored=["ccc"], **QUICK)
    table = found.table()
    assert list(dict.fromkeys(table.index.get_level_values(0))) == ["f", "g", "overall"]
    assert table["tasks"].tolist() == [1] * 3 + [2] * 6
    assert table.loc["g", "surrogate"].all()
    assert not table.loc["f", "surrogate"].any()
    assert "surrogates among them" in found.recommendation()


def test_overall_gives_every_family_the_same_weight():
    """Two sweeps here and one there: the mean of the families' means."""
    families = {"a": "g", "bb": "g", "ccc": "f"}
    table = compare([sweep(n) for n in families], RULES, families=families, **QUICK).table()
    for column in ("score", "savings", "regret_at_2"):
        both = (table.loc[("g", "asha"), column] + table.loc[("f", "asha"), column]) / 2
        assert table.loc[("overall", "asha"), column] == pytest.approx(both)


def test_rules_may_have_different_numbers_of_orderings():
    """Pairs and ranks are over the orderings that both, or all, have run."""
    orderings = {"no stopping": 4, "asha": 4, "two": 2}
    found = compare(sweep(), RULES, workers=4, orderings=orderings, processes=1)
    table = found.table().loc["sweeps"]
    assert table["orderings"].to_dict() == orderings
    assert table.loc["two", ["wins", "ties", "losses"]].sum() == 2
    assert table["rank"].sum() == 6.0


def test_the_recommendation_names_the_best_with_savings_and_risk():
    """And those that it cannot be told from."""
    rules = RULES | {"same": RULES["asha"]}
    found = compare(sweep(), rules, baseline="two", **QUICK)
    scores = found.table().loc["sweeps"]["score"]
    best = scores.idxmin()
    text = found.recommendation()
    assert text.startswith(f"{best} served best: it saves ")
    shown = f"(0: the best trial, 1: the typical one) is {scores[best]:.3g}"
    for part in (shown, "% of the compute", "stopped the best trial in", "with two"):
        assert part in text
    twin = {"asha": "same", "same": "asha"}.get(best)
    assert twin is None or twin in text.split("Within the noise")[1]


def test_seconds_count_where_asked():
    """A trial that is slow costs more; the budget is the typical trial's time."""
    rows = [
        {
            "trial_id": str(i),
            "training_iteration": t,
            "time_total_s": t * (1.0 + i),
            "loss": 1.0 / i,
        }
        for i in range(1, 6)
        for t in (1, 2)
    ]
    timed = Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min")
    options = {"workers": 1, "orderings": 1, "processes": 1, "whole": False, "budget": 1.0}
    runs = compare(timed, {}, cost="seconds", **options).runs
    alone = replay(timed, workers=1, cost="seconds", budget=8.0)
    assert runs["reports"].tolist() == [alone.reports]
    with pytest.raises(ValueError, match="has no time_total_s"):
        compare(sweep(), {}, cost="seconds", **options)


def test_other_processes_give_the_same_runs():
    """Factories may be lambdas; the order of the rows is the same."""
    one = compare(sweep(), RULES, orderings=2, workers=4, processes=1).runs
    two = compare(sweep(), RULES, orderings=2, workers=4, processes=2).runs
    pd.testing.assert_frame_equal(one, two)


def test_the_default_rules_build_for_any_sweep():
    """Each has its run; stalls of Ray's HyperBand are told, not raised."""
    found = compare(sweep(), default_rules(), orderings=1, workers=4, processes=1)
    assert set(found.runs["rule"]) == {"no stopping", *default_rules()}
    lengths = [9, 9, 7, 9, 5, 9]
    rows = [
        {"trial_id": str(i), "training_iteration": t, "loss": float(i)}
        for i, n in enumerate(lengths)
        for t in range(1, n + 1)
    ]
    uneven = Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min")
    rules = {"hyperband": lambda s: HyperBandScheduler(max_t=s.max_t)}
    runs = compare(uneven, rules, workers=1, orderings=5, processes=1).runs
    assert runs.loc[runs["rule"] == "hyperband", "stalled"].any()


def test_an_error_says_where_it_happened():
    """Which rule, on which sweep."""

    def broken(recorded: Sweep) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError) as caught:
        compare(sweep(), {"broken": broken}, **QUICK)
    assert caught.value.__notes__ == ["rule 'broken', sweep 'one', ordering 0"]


WRONG = {
    "none": (([], {}), {}, "needs at least one sweep"),
    "twice": (([sweep(), sweep()], {}), {}, "two sweeps are named 'one'"),
    "baseline": ((sweep(), {}), {"baseline": "best"}, "baseline 'best' is none of the rules"),
    "budget": ((sweep(), {}), {"budget": math.inf}, "budget must be positive"),
    "workers": ((sweep(), {}), {"workers": 0}, "workers must be at least 1, got 0"),
    "orderings": ((sweep(), {}), {"orderings": 0}, "orderings must be at least 1, got 0"),
    "unknown": ((sweep(), {}), {"orderings": {"x": 1}}, "orderings names no rule 'x'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_unfit_arguments_are_named(name):
    """Before anything is replayed."""
    given, options, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        compare(*given, **options)


def test_rules_are_factories():
    """An instance would carry its state from one replay to the next."""
    with pytest.raises(TypeError, match="rule 'x' must be a factory such as `lambda: FIFO"):
        compare(sweep(), {"x": FIFOScheduler()})


def test_the_package_carries_recorded_sweeps():
    """One of small models, and a folder of LoRA fine-tunes, each to be loaded as it is."""
    assert len(Sweep.from_parquet(example_path())) == 144
    recorded = [Sweep.from_parquet(path) for path in example_path("lora").glob("*.parquet")]
    assert len(recorded) >= 3
    for found in recorded:
        assert (found.metric, found.mode, found.max_t) == ("eval_loss", "min", 24)
    with pytest.raises(ValueError, match="no example 'llm'; there are characters, lora"):
        example_path("llm")
