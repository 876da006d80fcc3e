"""Earlier sweeps wherever they lie: experiments, folders of them, files; and what is of no use."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.stand_ins.folders import trial
from tune_stoppers import example_path
from tune_stoppers.history import History
from tune_stoppers.recorded.sweep import Sweep

RATES = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
OBJECTIVE = {"metric": "loss", "mode": "min"}


def experiment(folder, best=1e-3, rows=8, stopped=()):
    """Five trials, the better the nearer their learning rate is to `best`."""
    for place, lr in enumerate(RATES):
        far = abs(np.log10(lr / best))
        length = 2 if place in stopped else rows
        losses = [float(4 - (4 - far) * (k + 1) / rows) for k in range(length)]
        trial(folder, f"t{place}", losses, {"optim": {"lr": lr}}, done=True)
    return folder


def frame(best=1e-3, scale=1.0):
    """The same trials as a table; losses in units of `scale`."""
    import pandas as pd

    rows = [
        {"trial_id": str(lr), "training_iteration": k, "config/lr": lr, "loss": scale * far * k}
        for lr in RATES
        for k in (1, 2)
        for far in [abs(np.log10(lr / best))]
    ]
    return pd.DataFrame(rows)


def best_of(history):
    """The learning rate that is expected to do best."""
    prior = history.prior([{"lr": lr} for lr in RATES])
    assert prior.trust == 1
    return RATES[int(np.argmin(prior.expected))]


def test_an_experiment_a_folder_of_them_files_and_sweeps(tmp_path):
    """One of each kind, with one metric: a list reads them all."""
    experiment(tmp_path / "runs" / "one")
    experiment(tmp_path / "runs" / "two", stopped=(0, 4))
    frame().to_csv(tmp_path / "three.csv", index=False)
    frame(scale=2.0).to_parquet(tmp_path / "four.parquet")
    recorded = Sweep.from_frame(frame(scale=3.0), name="five", **OBJECTIVE)
    sources = [
        str(tmp_path / "runs"),
        tmp_path / "three.csv",
        tmp_path / "four.parquet",
        recorded,
    ]
    history = History.of(sources, **OBJECTIVE)
    assert [sweep.name for sweep in history.sweeps] == ["one", "two", "three", "four", "five"]
    assert history.said == ()
    assert best_of(history) == 1e-3
    for source in sources:
        assert best_of(History.of(source, **OBJECTIVE)) == 1e-3
    assert best_of(History.of(f"file://{tmp_path}/runs/one", **OBJECTIVE)) == 1e-3


def test_experiments_that_ours_watched_say_themselves_what_they_optimised():
    """Their journals have it; those of an older version too."""
    history = History.of(Path(__file__).parents[1] / "experiment" / "version_0_1")
    assert [(sweep.name, sweep.trials) for sweep in history.sweeps] == [
        ("auto", 8),
        ("promotion", 8),
    ]
    assert history.said == ()


def test_the_sweeps_of_the_package():
    """By the name alone, all that there are."""
    history = History.of("lora")
    assert len(history.sweeps) == len(list(example_path("lora").glob("*.parquet"))) >= 5
    assert all(sweep.trials >= 24 for sweep in history.sweeps)


def test_nothing_is_read_twice(tmp_path):
    """A folder and an experiment in it, a sweep twice: each counts once."""
    one = experiment(tmp_path / "one")
    recorded = Sweep.from_frame(frame(), name="five", **OBJECTIVE)
    history = History.of([tmp_path, one, str(one) + "/", recorded, recorded], **OBJECTIVE)
    assert [sweep.name for sweep in history.sweeps] == ["one", "five"]


def test_the_same_sweep_in_another_file_counts_once(tmp_path):
    """Exported, in another order, copied, the metric the other way round: and that is said."""
    one = experiment(tmp_path / "one")
    recorded = Sweep.from_ray(one, **OBJECTIVE)
    recorded.to_parquet(tmp_path / "two.parquet")
    table = recorded.frame.sample(frac=1, random_state=0).sort_values("training_iteration")
    table.to_csv(tmp_path / "three.csv", index=False)
    turned = table.assign(loss=-table["loss"])
    other = Sweep.from_frame(turned, name="four", metric="loss", mode="max")
    sources = [one, tmp_path / "two.parquet", tmp_path / "three.csv", other]
    history = History.of(sources, metric="loss")
    assert [sweep.name for sweep in history.sweeps] == ["one"]
    assert history.said[-1] == "four is one again: it counts once."
    assert len(history.said) == 3
    other_winner = experiment(tmp_path / "other", best=1e-3 + 1e-9)
    assert len(History.of([one, other_winner], **OBJECTIVE).sweeps) == 2
    dealt = table.assign(**{"config/optim/lr": -table["config/optim/lr"]})
    moved = Sweep.from_frame(dealt, name="moved", **OBJECTIVE)  # the same losses elsewhere
    assert len(History.of([one, moved], **OBJECTIVE).sweeps) == 2


def test_trials_that_run_or_were_cut_off_count_for_what_they_show(tmp_path):
    """A torn line, a trial that has not reported, one that failed."""
    one = experiment(tmp_path / "one", stopped=(0, 1))
    trial(one, "waits", [], {"optim": {"lr": 1.0}})
    trial(one, "failed", [4.0], {"optim": {"lr": 2.0}}, error="out of memory")
    with (one / "train_t2_1_x_2026-01-01_00-00-00" / "result.json").open("a") as file:
        file.write('{"loss": 0.')
    (past,) = History.of(one, **OBJECTIVE).sweeps
    assert past.trials == 6
    assert sorted(past.done) == [0.125, 0.25, 0.25, 1.0, 1.0, 1.0]


def test_the_share_done_is_the_trials_own_progress_where_it_reports_that():
    """A trial planned to be short is whole at its end."""
    table = frame()
    table["progress"] = table["training_iteration"] / 2
    table = table[(table["trial_id"] != "0.1") | (table["training_iteration"] == 1)]
    table.loc[table["trial_id"] == "0.1", "progress"] = 1.0
    (past,) = History.of(Sweep.from_frame(table, **OBJECTIVE)).sweeps
    assert set(past.done) == {1.0}


def test_each_sweep_is_judged_by_the_metric_at_hand_or_by_its_own(tmp_path):
    """Where it reported the metric by that; else by what its journal or description says."""
    table = frame()
    table["accuracy"] = -((np.log10(table["config/lr"]) + 5) ** 2)  # another winner
    both = Sweep.from_frame(table, name="both", metric="accuracy", mode="max")
    assert best_of(History.of(both)) == 1e-5
    assert best_of(History.of(both, metric="loss", mode="min")) == 1e-3
    assert best_of(History.of(both, metric="eval_loss", mode="min")) == 1e-5


def test_what_is_of_no_use_is_left_out_with_a_line(tmp_path):
    """A start is never prevented by it."""
    (tmp_path / "empty").mkdir()
    experiment(tmp_path / "runs" / "silent")
    (tmp_path / "runs" / "broken.csv").write_text("a,b\n1\n")
    (tmp_path / "runs" / "notes.txt").write_text("not a sweep")
    flat = Sweep.from_frame(frame().assign(loss=1.0), name="flat", **OBJECTIVE)
    history = History.of([tmp_path / "empty", tmp_path / "runs", flat])
    assert history.sweeps == ()
    said = " | ".join(history.said)
    assert "empty is no Ray Tune experiment" in said
    assert "nothing is learnt from it" in said
    assert "sweep 'silent' does not say what it optimises; pass metric= (one of" in said
    assert "broken.csv: row 0 has 1 cells" in said
    assert "flat: all its trials do equally well" in said
    assert "notes" not in said
    prior = history.prior([{"lr": 1.0}, {"lr": 2.0}])
    assert prior.trust == 0
    assert prior.said == history.said


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("{}/rnus", ValueError, "there is nothing at .*rnus. Did you mean 'runs'"),
        ("{}/none/at/all", ValueError, "there is nothing at"),
        ("{}/notes.txt", ValueError, "notes.txt is neither a Parquet nor a CSV file"),
        ("{}/broken.csv", ValueError, "history: .*broken.csv: row 0 has 1 cells"),
        ("nowhere://bucket/x", ValueError, "nowhere://bucket/x cannot be read"),
        (["lora", 3], TypeError, "history takes a Ray experiment's folder.*; got 3"),
    ],
)
def test_what_can_only_be_a_mistake_is_an_error(tmp_path, source, error, message):
    """A typo in a path must not pass as a history that knows nothing."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "broken.csv").write_text("a,b\n1\n")
    given = source.format(tmp_path) if isinstance(source, str) else source
    with pytest.raises(error, match=message):
        History.of(given)


def test_an_unknown_mode_is_an_error():
    """As everywhere."""
    with pytest.raises(ValueError, match="mode must be 'min' or 'max', got 'down'"):
        History.of("lora", metric="loss", mode="down")


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    """A folder from elsewhere may hold links to anything."""
    outside = experiment(tmp_path / "private" / "one")
    folder = tmp_path / "given"
    folder.mkdir()
    os.symlink(outside, folder / "linked")
    history = History.of(folder, **OBJECTIVE)
    assert history.sweeps == ()
