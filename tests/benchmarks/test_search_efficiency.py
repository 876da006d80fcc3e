"""The benchmark runs from end to end on tiny sweeps, and its parts are right."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import how_far, search_efficiency, search_left_out, search_settings
from benchmarks.contestants import (
    ASHAS,
    ORACLE,
    OTHERS,
    OURS,
    SECOND,
    THAW,
    TUNED,
    KeepFewScheduler,
    best_ashas,
)
from benchmarks.recorded import load
from benchmarks.results import insert
from tune_stoppers.backtest.compare import compare
from tune_stoppers.backtest.replay import replay
from tune_stoppers.recorded.sweep import Sweep


def write(folder, name: str, trials: int = 160, length: int = 6, **options) -> None:
    dice = np.random.default_rng(len(name))
    shape = dice.random((trials, 1)) + dice.random((trials, 1)) / np.arange(1, length + 1)
    rows = [
        {
            "trial_id": f"t{i}",
            "training_iteration": t,
            "step": float(t),
            "loss": value,
            "other": 0.0,
            "config/total_model_steps": length - i % 2,
        }
        for i, values in enumerate(shape.tolist())
        for t, value in enumerate(values[: length - i % 2], start=1)
    ]
    sweep = Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min", name=name, **options)
    sweep.to_parquet(folder / f"{name}.parquet")


@pytest.fixture
def curves(tmp_path):
    folder = tmp_path / "curves"
    folder.mkdir()
    write(folder, "taskset_a")
    write(folder, "taskset_bb")
    write(folder, "opda_deberta_base_mnli")
    write(folder, "algoperf_a", target=0.3)
    write(folder, "yahpo_lcbench_1", surrogate=True)
    write(folder, "peft_a", trials=12)
    return folder


def test_sweeps_are_prepared_as_the_text_says(curves):
    """Small pools are only shown, progress stands in for steps, only the objective is kept."""
    sweeps, families, shown = load(curves, quick=False)
    named = {sweep.name: sweep for sweep in sweeps}
    assert shown == {"peft_a", "own"}  # ours comes with the package
    assert families["taskset_bb"] == "taskset"
    assert named["taskset_a"].metrics == ("loss",)
    assert named["opda_deberta_base_mnli"].metrics == ("loss", "progress")
    ends = {curve.metrics["progress"][-1] for curve in named["opda_deberta_base_mnli"]}
    assert ends == {1.0}
    assert len(load(curves, quick=True)[0]) == 6


@pytest.mark.stress
def test_a_quick_run_writes_every_table(curves, tmp_path, capsys):
    """Families and overall, each rule, the other settings; the file's other sections stay."""
    out = tmp_path / "RESULTS.md"
    out.write_text("# Benchmarks\n\nbefore\n")
    given = [str(curves), "--quick", "--processes", "1", "--out", str(out)]
    assert search_efficiency.main(given) == 0
    text = out.read_text()
    assert text.startswith("# Benchmarks\n\nbefore\n\n<!-- search_efficiency -->\n")
    for title in ("taskset (1 sweep, regret)", "algoperf (1 sweep, time to target)", "overall"):
        assert f"## {title}" in text
    assert "surrogate, not recorded runs" in text
    assert "Shown, not scored: own, peft_a." in text
    for rule in (OURS, TUNED, SECOND, *ASHAS, *OTHERS):
        assert text.count(f"| {rule} |") >= 6
    assert "main table after" in capsys.readouterr().err


@pytest.mark.stress
def test_other_settings_and_settings_chosen_elsewhere(curves, capsys):
    """A quick run of each prints its tables, with every rule in each."""
    assert search_settings.main([str(curves), "--quick", "--processes", "1"]) == 0
    text = capsys.readouterr().out
    for setting in ("resume cost 2 reports", "## 1 worker,", "## 32 workers,", "improves"):
        assert setting in text
    assert text.count(f"| own | {THAW} |") == len(search_settings.SETTINGS)
    assert search_left_out.main([str(curves), "--quick", "--processes", "1"]) == 0
    text = capsys.readouterr().out
    for variant in search_left_out.VARIANTS:
        assert f"| {variant} |" in text


@pytest.mark.stress
def test_how_far_an_order_could_go(curves, capsys):
    """The oracle beside the best-tuned ASHA: a row a family, and with one worker and with 32."""
    assert how_far.main([str(curves), "--quick", "--processes", "1"]) == 0
    text = capsys.readouterr().out
    for title in ("## 8 workers, all sweeps", "## 1 worker,", "## 32 workers,"):
        assert title in text
    assert "| algoperf (1 sweep, time to target) |" in text
    assert text.count(f"| overall | {ORACLE} |") == 2


def test_a_family_has_no_say_in_what_is_chosen_for_it():
    """The variant that is best on the others is chosen, however good another is here."""
    here, there, *_ = search_left_out.VARIANTS
    rows = {
        (family, variant): {"score": 2.0}
        for family in ("a", "b", "c")
        for variant in search_left_out.VARIANTS
    }
    rows["a", here] = {"score": 0.1}
    rows["b", there] = rows["c", there] = {"score": 1.0}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(table.index, names=["family", "rule"])
    assert search_left_out.chosen_without(table, ["a", "b", "c"]) == {
        "a": there,
        "b": here,
        "c": here,
    }


def test_a_section_replaces_its_last_version(tmp_path):
    """And nothing else."""
    path = tmp_path / "RESULTS.md"
    insert(path, "search_efficiency", "old")
    path.write_text(path.read_text() + "after\n")
    insert(path, "search_efficiency", "new")
    insert(path, "search_efficiency", "new")
    assert path.read_text() == (
        "<!-- search_efficiency -->\nnew\n<!-- /search_efficiency -->\nafter\n"
    )


def test_keeping_few_after_one_report():
    """Of 40 growing first values only the first trial and nobody after it; of falling ones all."""
    for sign, kept in ((1, 1), (-1, 40)):
        rows = [
            {"trial_id": f"t{i:02d}", "training_iteration": t, "loss": float(sign * i)}
            for i in range(40)
            for t in (1, 2)
        ]
        sweep = Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min")
        result = replay(sweep, KeepFewScheduler(), workers=1, order="recorded")
        assert (result.trials["reports"] == 2).sum() == kept
    middle = [{"trial_id": f"t{i:02d}", "training_iteration": t, "loss": v}
              for i, v in enumerate([0.0] + [2.0] * 19 + [1.0]) for t in (1, 2)]  # fmt: skip
    sweep = Sweep.from_frame(pd.DataFrame(middle), metric="loss", mode="min")
    result = replay(sweep, KeepFewScheduler(), workers=1, order="recorded")
    assert result.trials["reports"].tolist() == [2] + [1] * 19 + [2]  # the 21st is second of 21


def test_the_best_ashas_are_chosen_by_family(curves):
    """By their mean scores on the tuning orders."""
    sweeps, families, _ = load(curves, quick=True)
    options = {"cost": "seconds", "whole": False, "processes": 1, "orderings": 2, "seed": 1000}
    tuning = compare(sweeps[:1], ASHAS, families=families, **options)
    first, second = best_ashas(tuning)["taskset"]
    scores = tuning.table().loc["taskset"]["score"].drop("no stopping")
    assert scores[first] == scores.min()
    assert scores[second] == scores.drop(first).min()


def test_no_curves_is_a_users_mistake(tmp_path, capsys):
    """A folder that is not there, in one line."""
    assert search_efficiency.main([str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith("error: there is no folder")
