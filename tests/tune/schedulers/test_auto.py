"""AutoScheduler: workers go where most improvement is expected, and the sweep ends when none is."""

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.fs as pafs
import pytest
from ray import tune

import benchmarks
from tests.stand_ins.starting_stage import Stage
from tests.tune.schedulers.test_promotion_asha_ray import MAX_T, fit, journal, paths, statuses
from tune_stoppers import AutoScheduler, Sweep, replay
from tune_stoppers.backtest.cluster import Cluster
from tune_stoppers.backtest.process import Costs
from tune_stoppers.backtest.replay import ReplayResult
from tune_stoppers.experiment.journals import Run, runs_of
from tune_stoppers.journal.lines import Line
from tune_stoppers.report.data.compared_again import BEGINS_WITH
from tune_stoppers.report.data.explain import verify
from tune_stoppers.report.data.journalled import why_of
from tune_stoppers.report.terminal.explained import verdict

HORIZON = 24


def curves(count: int = 24, seed: int = 0, *, mode: str = "min", noise: float = 0.0) -> Sweep:
    """Losses that fall to a floor which the learning rate decides; high rates begin slowly."""
    dice = np.random.default_rng(seed)
    made = {}
    for number in range(count):
        rate = float(10 ** dice.uniform(-6, 0))
        floor, lag = (math.log10(rate) + 3) ** 2 / 4, 3.0 + math.log10(rate) / 3
        times = np.arange(1, HORIZON + 1)
        losses = 1 + floor + 4 * np.exp(-times / (2 * lag)) + dice.normal(0, noise, HORIZON)
        made[f"t{number:02d}"] = (rate, losses if mode == "min" else -losses)
    rows = [
        {"trial_id": name, "training_iteration": t, "loss": loss, "config/lr": rate}
        for name, (rate, losses) in made.items()
        for t, loss in enumerate(losses.tolist(), 1)
    ]
    return Sweep.from_frame(pd.DataFrame(rows), name="made", metric="loss", mode=mode)


def run(sweep: Sweep, scheduler: AutoScheduler | None = None, **more: Any) -> ReplayResult:
    given: dict[str, Any] = {"workers": 4, "resume_cost": 0.5}
    return replay(sweep, scheduler or AutoScheduler(HORIZON), **given | more)


@pytest.mark.parametrize("workers", [1, 4, 16])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_best_trial_runs_to_its_end_and_most_work_is_saved(workers: int, mode: str) -> None:
    """With one worker and with many; a maximised metric is no different."""
    result = run(curves(mode=mode), workers=workers)
    assert result.regret < 0.02
    assert result.savings > 0.3
    assert "pause" in set(result.journal["action"])


def test_trials_that_wait_come_back_when_they_are_worth_it() -> None:
    """Nothing is given up while the sweep goes on: only at its end are trials stopped."""
    result = run(curves(seed=3))
    journal, reports = result.journal, result.trials.set_index("trial_id")["reports"]
    short = journal["trial_id"].map(reports) < HORIZON
    ends = journal[(journal["action"] == "stop") & short]
    last = journal[journal["action"].isin(["start", "resume"])]["time"].max()
    assert len(ends) >= 5
    assert ends["time"].min() >= last


def test_the_first_workers_do_not_run_to_their_ends_for_nothing() -> None:
    """A hopeless trial among the first four is paused at its first rungs."""
    result = run(curves(seed=1), order="recorded")
    firsts = result.trials.set_index("trial_id").loc[["t00", "t01", "t02", "t03"]]
    assert firsts["reports"].min() <= 3


@pytest.mark.parametrize("seed", range(3))
def test_without_checkpoints_it_stops_later_and_does_not_lose_the_best(seed: int) -> None:
    """What is stopped cannot come back; nothing is paused, as it would start from zero."""
    result = run(curves(seed=seed), checkpoint_every=0)
    assert result.regret < 0.02
    assert result.savings > 0.1
    assert "pause" not in set(result.journal["action"])


def shared_gpu() -> Sweep:
    """24 LoRA fine-tunes that shared a GPU; three of high learning rates diverge."""
    return Sweep.from_parquet(Path(benchmarks.__file__).with_name("shared_gpu.parquet"))


@pytest.mark.parametrize("others", [5, 9, 21])
def test_trials_that_have_diverged_do_not_go_on(others: int) -> None:
    """One begins with the lowest loss of all, at its first report, and is at 11 by its third."""
    sweep = shared_gpu()
    ends = {curve.trial_id: curve.metrics["eval_loss"][-1] for curve in sweep}
    diverged = [trial_id for trial_id, end in ends.items() if end > 6]
    assert len(diverged) == 3
    kept = {*diverged, *[trial_id for trial_id in ends if trial_id not in diverged][:others]}
    frame = sweep.frame[sweep.frame["trial_id"].isin(kept)]
    sweep = Sweep.from_frame(frame, metric="eval_loss", mode="min")
    made = []
    for seed in range(3):
        result = run(sweep, workers=6, seed=seed, resume_cost=5.0, start_cost=5.0)
        made.append(result.trials.set_index("trial_id").loc[diverged, "reports"].max())
    assert max(made) <= 8  # some go on while nothing is known of others
    assert np.mean(made) <= 5


def test_a_trial_that_has_diverged_and_saves_nothing_is_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As a Trainer's callback saves improvements only. One that is only behind goes on, and one
    warning says what to do about it."""
    ray = Stage(AutoScheduler(HORIZON), 2, reuse=True)
    ray.search_alg.set_finished()
    ray.add(*(f"t{number}" for number in range(8)))
    steps: dict[str, int] = {}
    best = dict.fromkeys(range(8), np.inf)
    for _ in range(200):
        ray.turn()
        if not ray.running:
            continue
        trial = min(ray.running, key=lambda trial: steps.get(trial.trial_id, 0))
        step = steps[trial.trial_id] = steps.get(trial.trial_id, 0) + 1
        number = int(trial.trial_id[1:])
        loss = {1: 4 * step**2 if step > 2 else 3 - step / 10, 2: 3.5 + 0.01 * step}.get(
            number, 4 - number / 10 - step / 20
        )
        saved = number not in (1, 2) or loss < best[number]
        best[number] = min(best[number], loss)
        ray.report(trial, step, float(loss), saved=saved)
    assert {trial.status for trial in ray.trials} == {"TERMINATED"}
    assert steps["t1"] <= HORIZON / 2  # until any has come that far
    assert "it has diverged" in ray.scheduler.explain("t1")
    assert "diverged" not in ray.scheduler.explain("t2")
    said = [text for text in caplog.messages if "came to a rung without a checkpoint" in text]
    assert len(said) == 1 and "checkpoint_every=1" in said[0]


@pytest.mark.parametrize(
    ("trials", "workers", "losses"),
    [
        (1, 1, [2.30, 2.31, 2.32, 2.1]),  # alone: a poor second report is no divergence
        (4, 4, [2.30, 2.31, 2.32, 2.1]),
        (16, 8, [2.30, 2.36, 2.37, 2.1]),  # all start alike, and nothing has been learnt yet
        (16, 4, [4.0, 9.0, 3.5, 3.0]),  # one outlier
    ],
)
def test_a_poor_start_is_not_taken_for_divergence(
    trials: int, workers: int, losses: list[float]
) -> None:
    """A stop without a checkpoint is for good."""
    ray = Stage(AutoScheduler(HORIZON), workers, reuse=True)
    ray.search_alg.set_finished()
    ray.add(*(f"t{number}" for number in range(trials)))
    steps: dict[str, int] = {}
    for _ in range(60):
        ray.turn()
        for trial in list(ray.running):
            step = steps[trial.trial_id] = steps.get(trial.trial_id, 0) + 1
            loss = losses[min(step, len(losses)) - 1] - step / 1000
            loss += int(trial.trial_id[1:]) / 10_000
            ray.report(trial, step, loss, saved=step == 1 or loss < losses[0] - 0.01)
    assert all("diverged" not in ray.scheduler.explain(name) for name in steps)


def test_a_worker_waits_for_a_first_report_rather_than_for_nothing() -> None:
    """While the last trial of eight starts, those that promise next to nothing do not go on."""
    ray = Stage(AutoScheduler(HORIZON), 2, reuse=True)
    ray.search_alg.set_finished()
    ray.add(*(f"t{number}" for number in range(8)))
    steps: dict[str, int] = {}
    for _ in range(400):
        ray.turn()
        for trial in [t for t in ray.running if t.trial_id != "t7"][:1]:
            step = steps[trial.trial_id] = steps.get(trial.trial_id, 0) + 1
            ray.report(trial, step, 4 - (step / 8 if trial.trial_id == "t1" else step / 1000))
    assert [trial.trial_id for trial in ray.running] == ["t7"]
    assert steps["t1"] == HORIZON
    assert sum(steps.values()) < 0.4 * 8 * HORIZON
    ray.report(ray.running[0], 1, 4.0)
    for _ in range(5):
        ray.turn()
    assert {trial.status for trial in ray.trials} == {"TERMINATED"}


def test_dear_starts_and_many_workers_still_save_time() -> None:
    """All workers start at once, trials change places less, and none idles while work is due."""
    sweep = shared_gpu()
    costs: dict[str, Any] = {"workers": 6, "resume_cost": 5.0, "start_cost": 5.0}
    runs = [run(sweep, seed=seed, **costs) for seed in range(4)]
    whole = replay(sweep, None, **costs)
    assert np.mean([result.seconds for result in runs]) < 0.65 * whole.seconds
    assert np.mean([result.work for result in runs]) < 0.55 * whole.work
    assert np.mean([result.regret for result in runs]) < 0.02
    begins = runs[0].journal[runs[0].journal["action"] == "start"]
    assert (begins["time"] == 5.0).sum() == 6  # their starts take so long


def test_what_a_start_costs_is_measured() -> None:
    """In units of the time, beside what a resume costs."""
    scheduler = AutoScheduler(HORIZON)
    cluster = Cluster(list(curves()), scheduler, workers=2, costs=Costs(start=3.0, resume=1.5))
    scheduler.set_search_properties("loss", "min")
    scheduler.use_clock(lambda: cluster.now)
    scheduler.use_workers(2)
    cluster.run()
    assert scheduler.record.starts > 1
    assert scheduler.rule.start_cost(scheduler.record) == pytest.approx(3.0)
    assert scheduler.rule.resume_cost(scheduler.record) == pytest.approx(1.5)


def coming_apart(seed: int) -> Sweep:
    """All trials are alike for a third of their way, as in a warm-up, and then come apart."""
    sweep, dice = curves(40, seed=seed), np.random.default_rng(seed)
    progress = np.arange(1, HORIZON + 1) / HORIZON
    for curve in sweep.curves:
        after = np.maximum(progress - 1 / 3, 0) * dice.normal()
        curve.metrics["loss"][:] = 3 + after + dice.normal(0, 0.01, HORIZON)
    return sweep


@pytest.mark.parametrize("checkpoint_every", [1, 0])
def test_where_ends_cannot_be_foreseen_it_halves_carefully_and_says_so(
    checkpoint_every: int,
) -> None:
    """It would end such sweeps with the best trial paused at its first rung."""
    results = [run(coming_apart(seed), checkpoint_every=checkpoint_every) for seed in range(4)]
    assert np.mean([result.regret for result in results]) < 0.2
    reasons = pd.concat([result.journal for result in results])["reason"].dropna()
    assert reasons.str.contains("times as far from where they were expected").any()


def graded(seed: int) -> Sweep:
    """An accuracy on five items, with the luck of the draw, and the loss that it comes from."""
    sweep, dice = curves(40, seed=seed), np.random.default_rng(seed)
    for curve in sweep.curves:
        losses = 1 + dice.uniform() + np.exp(-np.arange(1, HORIZON + 1) / 6)
        curve.metrics["train_loss"] = losses
        right = dice.binomial(5, np.exp(-losses / 2))
        curve.metrics["loss"] = 1 - right / 5
    return sweep


def test_where_the_metric_is_coarse_the_training_loss_finds_the_best() -> None:
    """It tells those apart that have the same accuracy."""
    lost: dict[tuple[str, ...], list[float]] = {(): [], ("no such metric", "train_loss"): []}
    for signals, found in lost.items():
        for seed in range(6):
            result = run(graded(seed), AutoScheduler(HORIZON, signals=signals))
            ends = {c.trial_id: c.metrics["train_loss"].min() for c in result.sweep.curves}
            whole = result.trials[result.trials["reports"] == HORIZON]["trial_id"]
            found.append(min(ends[trial_id] for trial_id in whole) - min(ends.values()))
    without, informed = map(np.mean, lost.values())
    assert informed < without / 2


def to_target(seed: int) -> Sweep:
    """Fine-tunes that end by themselves once their loss is below 2, some sooner than others."""
    dice = np.random.default_rng(seed)
    rows = []
    for number in range(30):
        pace, rate, loss = dice.uniform(0.2, 0.6), float(10 ** dice.uniform(-6, 0)), 4.0
        for time in range(1, HORIZON + 1):
            loss -= pace * dice.uniform(0.5, 1.5)
            rows.append(
                {
                    "trial_id": f"t{number:02d}",
                    "training_iteration": time,
                    "loss": loss,
                    "config/lr": rate,
                }
            )
            if loss < 2:
                break
    return Sweep.from_frame(pd.DataFrame(rows), name="to target", metric="loss", mode="min")


@pytest.mark.parametrize(("workers", "later"), [(1, 1.7), (4, 1.0)])
def test_where_trials_end_at_a_target_the_first_gets_there_soon_and_few_follow(
    workers: int, later: float
) -> None:
    """With few workers a little later than without stopping, as others are tried before."""
    for seed in range(3):
        sweep = to_target(seed)
        took = {}
        for name, scheduler in {"auto": AutoScheduler(HORIZON), "none": None}.items():
            result = replay(sweep, scheduler, workers=workers, resume_cost=0.5, order="recorded")
            best = result.incumbent
            took[name] = float(best["time"][best["value"] < 2].iloc[0])
            if scheduler is not None:
                assert result.savings > 0.5
                reasons = result.journal["reason"].dropna()
                assert reasons.str.contains("end by themselves at a target: no trial").any()
        assert took["auto"] <= later * took["none"]


def test_a_pool_smaller_than_what_it_needs_is_run_whole() -> None:
    """Of two trials nothing can be learnt that would spare one."""
    result = run(curves(2), workers=2)
    assert result.regret == 0


def test_a_sweep_of_copies_ends() -> None:
    """There is nothing to choose by, and nothing to gain."""
    sweep = curves(12)
    for curve in sweep.curves:
        curve.metrics["loss"][:] = sweep.curves[0].metrics["loss"]
        curve.config["lr"] = 1.0
    result = run(sweep)
    assert result.regret == 0


def test_diverged_trials_are_dropped_and_the_best_is_found() -> None:
    """NaN at the first report or later."""
    sweep = curves(16, seed=4)
    best = min(sweep.curves, key=lambda c: c.metrics["loss"].min()).trial_id
    spared = [curve for curve in sweep.curves if curve.trial_id != best]
    spared[0].metrics["loss"][:] = np.nan
    spared[1].metrics["loss"][5:] = np.nan
    spared[2].metrics["loss"][:] = 1e18
    assert run(sweep).regret < 0.02


def test_noise_does_not_hide_the_best() -> None:
    """An evaluation that was lucky is not taken for a lead that nobody can catch up."""
    assert np.mean([run(curves(30, seed=seed, noise=0.3)).regret for seed in range(3)]) < 0.1


def test_the_floor_keeps_a_sweep_going() -> None:
    """And least_gain=0 never ends it early."""
    half = run(curves(), AutoScheduler(HORIZON, floor=0.6, least_gain=1.0))
    assert 0.25 < half.savings < 0.5
    assert run(curves(), AutoScheduler(HORIZON, floor=0.0, least_gain=1.0)).savings > half.savings
    whole = run(curves(), AutoScheduler(HORIZON, least_gain=0.0))
    assert whole.savings < 0.05


def test_an_earlier_sweep_says_what_to_start_first() -> None:
    """And is still followed by the best, whether it was right or the other way round."""
    sweep, earlier = curves(40, seed=6), curves(40, seed=7)
    wrong = curves(40, seed=7)
    for curve in wrong.curves:
        curve.metrics["loss"][:] = 9 - curve.metrics["loss"]

    def first_good(scheduler: AutoScheduler) -> tuple[float, ReplayResult]:
        result = run(sweep, scheduler)
        started = result.journal[result.journal["action"] == "start"]["trial_id"].tolist()
        finals = {curve.trial_id: curve.metrics["loss"].min() for curve in sweep.curves}
        return float(np.mean([finals[trial_id] for trial_id in started[:4]])), result

    cold, _ = first_good(AutoScheduler(HORIZON))
    scheduler = AutoScheduler(HORIZON, history=earlier)
    warm, result = first_good(scheduler)
    assert warm < cold - 0.3
    assert result.regret < 0.02
    assert first_good(AutoScheduler(HORIZON, history=wrong))[1].regret < 0.05
    assert "made: 40 trials" in " ".join(scheduler.said_of_history) or scheduler.history


def test_a_history_that_knows_nothing_of_the_sweep_changes_nothing() -> None:
    """Of other hyperparameters."""
    other = curves(20, seed=8)
    for curve in other.curves:
        curve.config["momentum"] = curve.config.pop("lr")
    one = run(curves(), AutoScheduler(HORIZON, history=other)).journal
    assert one.equals(run(curves()).journal)


def test_a_history_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """At once, and by its path."""
    with pytest.raises(ValueError, match="nowhere"):
        AutoScheduler(HORIZON, history=str(tmp_path / "nowhere"))


def test_the_same_sweep_is_run_in_the_same_way() -> None:
    """Reports decide, nothing else."""
    one, other = run(curves()).journal, run(curves()).journal
    assert one.equals(other)


@pytest.mark.usefixtures("ray_session")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")
def test_in_a_real_sweep_the_best_is_found_and_each_ending_has_its_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No trial is left paused, nobody starts over, and the journal can be judged again."""
    floors = [float((5 * i) % 14) for i in range(14)]
    results = fit(
        AutoScheduler(MAX_T, 1, time_attr="steps"), tmp_path, {"floor": tune.grid_search(floors)}
    )
    assert not results.errors
    assert statuses(tmp_path) == {"TERMINATED"}
    steps = {r.config["floor"]: r.metrics.get("steps", 0) for r in results}
    assert steps[0.0] == MAX_T
    assert sum(steps.values()) < 14 * MAX_T * 0.7
    lines = journal(tmp_path)
    assert all(seen == list(range(1, len(seen) + 1)) for seen in paths(lines))
    events = [line.get("event") for line in lines]
    assert {"started", "paused", "resumed"} <= set(events)
    whys = [line["numbers"]["why"] for line in lines if line.get("event") == "resumed"]
    assert any("expected to end at" in why and "to pass it" in why for why in whys)
    reasons = {r.config["floor"]: r.metrics.get("stop_reason", "") for r in results}
    assert any("no trial is expected to improve the best" in why for why in reasons.values())
    never = [r for r in results if "steps" not in r.metrics]
    assert never
    assert all(r.config["floor"] > 3 and r.metrics["done"] for r in never)
    assert not [r for r in caplog.records if "Failed to fetch metrics" in r.message]
    (run_,) = runs_of(pafs.LocalFileSystem(), str(tmp_path / "sweep"))
    verified = verify(run_)
    assert verified.rerun is not None
    assert not verified.failed
    assert "comparisons of trials made again, all the same" in verdict(verified)[-1]
    told = [line for line in run_.lines if BEGINS_WITH in why_of(line)]
    assert verified.compared is not None
    assert verified.compared.checked == len(told) > 10
    chosen = [line for line in told if "at once" not in why_of(line)]
    _says_so_if_a_comparison_comes_out_otherwise(run_, chosen[-1])


def until_low(config: dict[str, Any]) -> None:
    """Ends by itself once its loss is below 2; a checkpoint with every report."""
    step, checkpoint = 0, tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            step = int(Path(folder, "step").read_text())
    loss = 4 - config["pace"] * step
    while loss >= 2:
        step += 1
        loss = 4 - config["pace"] * step - 0.01 * (step % 3)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "step").write_text(str(step))
            report = {"eval": {"loss": loss}, "steps": step}
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))


@pytest.mark.usefixtures("ray_session")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")
def test_a_real_sweep_to_a_target_ends_when_some_are_there(tmp_path: Path) -> None:
    """Its reasons say so, and come out the same again."""
    paces = [0.15 + 0.05 * (7 * number % 16) for number in range(16)]
    scheduler = AutoScheduler(HORIZON, time_attr="steps")
    results = fit(scheduler, tmp_path, {"pace": tune.grid_search(paces)}, trainable=until_low)
    assert not results.errors
    losses = [r.metrics["eval"]["loss"] for r in results if "eval" in r.metrics]
    assert 4 <= sum(loss < 2 for loss in losses) < 16
    reasons = [str(r.metrics.get("stop_reason", "")) for r in results]
    assert any("end by themselves at a target: no trial is expected" in why for why in reasons)
    (run_,) = runs_of(pafs.LocalFileSystem(), str(tmp_path / "sweep"))
    whys = [why_of(line) for line in run_.lines]
    assert any("as the best so far; expected to end at" in why for why in whys)
    verified = verify(run_)
    assert not verified.failed
    assert verified.compared is not None
    assert verified.compared.checked > 10
    assert verified.compared.differing == ()


def _says_so_if_a_comparison_comes_out_otherwise(run_: Run, line: Line) -> None:
    """Other numbers, or another trial; and what the journal does not tell is not checked."""
    numbers, trial_id = line["numbers"], line["trial"]
    line["numbers"] = numbers | {"why": numbers["why"].replace("%", "1%")}
    changed = verify(run_)
    assert changed.failed
    assert "1 differs" in "".join(verdict(changed))
    others = [one["trial"] for one in run_.lines if one.get("event") == "paused"]
    line["trial"] = next(other for other in others if other != trial_id)
    assert f"{trial_id} is worth more: expected to end at" in "".join(verdict(verify(run_)))
    line |= {"trial": trial_id, "numbers": numbers}
    for one in run_.lines:
        one.pop("values", None)
    unsure = verify(run_).compared
    assert unsure is not None
    assert (unsure.checked, unsure.differing) == (0, ())
