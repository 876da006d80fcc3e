"""The command line: what it prints, its exit status, and one line for a user's mistake."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tune_stoppers
from tests.stand_ins.watched import watched
from tune_stoppers.backtest.compare import example_path
from tune_stoppers.backtest.replay import replay
from tune_stoppers.cli import main
from tune_stoppers.recorded.sweep import Sweep


def recorded(**options) -> Sweep:
    dice = np.random.default_rng(3)
    shape = dice.random((24, 1)) + dice.random((24, 1)) / np.arange(1, 10)
    rows = [
        {"trial_id": f"t{i}", "training_iteration": t, "loss": value, "config/lr": 0.1 * i}
        for i, values in enumerate(shape.tolist())
        for t, value in enumerate(values, start=1)
    ]
    return Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min", **options)


@pytest.fixture
def parquet(tmp_path) -> str:
    path = tmp_path / "sweep.parquet"
    recorded(name="mine").to_parquet(path)
    return str(path)


@pytest.fixture
def experiment(tmp_path) -> str:
    """A Ray experiment folder as Ray leaves it: no journal of ours, no word on the objective."""
    folder = tmp_path / "experiment"
    for curve in recorded():
        trial = folder / curve.trial_id
        trial.mkdir(parents=True)
        (trial / "params.json").write_text(json.dumps(curve.config))
        rows = [{"trial_id": curve.trial_id} | row for row in curve.rows()]
        (trial / "result.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def told(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main(list(arguments))
    out, err = capsys.readouterr()
    return status, out, err


def facts(text: str) -> dict[str, str]:
    """The rows of the plain table of `replay`."""
    rows = (line.partition("  ") for line in text.splitlines() if line.strip())
    return {name.strip(): value.strip() for name, _, value in rows}


def test_replay_tells_what_a_rule_would_have_saved(capsys, parquet):
    """Plain text, no colours nor frames; the numbers are those of `replay`."""
    status, out, err = told(capsys, "replay", parquet, "--stop", "MaximumIterationStopper(3)")
    assert (status, err) == (0, "")
    assert out.isascii()
    rows = facts(out)
    assert rows["sweep"] == "mine"
    assert rows["objective"] == "loss (min)"
    assert rows["savings"] == "67% of the compute"
    assert rows["reports"] == "72 of 216"
    assert rows["ended by"] == "stopper 24"
    assert rows["recorded in full"] == "24 of 24 trials, to iteration 9"


def test_replay_for_machines(capsys, parquet):
    """`--json`: the same facts, a row per trial, null for what is not known."""
    options = ("--scheduler", "ASHAScheduler(reduction_factor=2)", "--workers", "4", "--seed", "2")
    status, out, _ = told(capsys, "replay", parquet, *options, "--json")
    found = json.loads(out)
    from ray.tune.schedulers import ASHAScheduler

    alone = replay(recorded(), ASHAScheduler(max_t=9, reduction_factor=2), workers=4, seed=2)
    assert status == 0
    assert (found["savings"], found["regret"]) == (alone.savings, alone.regret)
    assert [row["trial_id"] for row in found["trials"]] == alone.trials["trial_id"].tolist()
    assert found["time_to_target"] is None


def test_rules_combine_and_get_the_sweeps_objective(capsys, parquet):
    """Ours and Ray's, by name alone or with arguments; metric, mode and max_t are filled in."""
    for options in (
        ("--stop", "PatienceStopper(patience=2) | DivergenceStopper()"),
        ("--stop", "TrialPlateauStopper(num_results=3) | MaximumIterationStopper(5)"),
        ("--scheduler", "BoundASHAScheduler", "--stop", "ThresholdStopper(threshold=0.5)"),
        ("--scheduler", "HyperBandScheduler"),
        ("--scheduler", "MedianStoppingRule(time_attr='training_iteration', grace_period=2)"),
        ("--scheduler", "FIFOScheduler"),
    ):
        assert told(capsys, "replay", parquet, *options)[0] == 0, options


def test_a_ray_folder_needs_metric_and_mode(capsys, experiment):
    """It does not say what it optimised; the message names the options and the metrics."""
    status, out, err = told(capsys, "replay", experiment)
    assert (status, out) == (2, "")
    assert "--metric NAME" in err
    assert "loss" in err
    options = ("--metric", "loss", "--mode", "min")
    status, out, _ = told(capsys, "replay", experiment, *options, "--scheduler", "ASHAScheduler")
    assert status == 0
    assert facts(out)["sweep"] == "experiment"
    quick = ("--orderings", "1", "--processes", "1")
    assert told(capsys, "compare", experiment, *options, *quick)[0] == 0


RULES = """
[rules]
"patience 2" = "PatienceStopper(patience=2)"
asha = "ASHAScheduler(reduction_factor=2)"
both = {stop = "MaximumIterationStopper(4)", scheduler = "BoundASHAScheduler"}
"""


def test_compare_recommends_one_of_the_rules_given(capsys, parquet, tmp_path):
    """A plain sentence that begins with a rule, a table of 100 columns, and what it means."""
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    quick = ("--orderings", "2", "--processes", "1", "--workers", "4")
    status, out, err = told(capsys, "compare", parquet, "--rules", str(path), *quick)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    names = ["patience 2", "asha", "both", "no stopping"]
    assert any(lines[0].startswith(f"{name} served best: it saves ") for name in names)
    assert lines[2].strip() == "sweeps (1 sweep, regret)"
    assert sorted(names) == sorted(line.split("  ")[0] for line in lines[4:8])
    assert lines[9].startswith("area: ")
    assert "win/tie/loss" not in lines[9]  # no such column in 100


def test_compare_tries_what_the_readme_recommends_in_100_columns(capsys, parquet):
    """Beside Ray's ASHA, where no rules are given."""
    status, out, _ = told(capsys, "compare", parquet, "--orderings", "1", "--processes", "1")
    table = out.split("\n\n")[1].splitlines()
    assert status == 0
    assert {"AutoScheduler", "ASHA, eta 3, grace 1"} <= {line.split("  ")[0] for line in table}
    assert max(map(len, table)) <= 100


def test_compare_for_machines(capsys, parquet):
    """`--json` holds the sentence, the table and every run; the default rules are used."""
    quick = ("--orderings", "1", "--processes", "1", "--budget", "2")
    status, out, _ = told(capsys, "compare", parquet, *quick, "--json")
    found = json.loads(out)
    assert status == 0
    assert found["recommendation"].endswith(".")
    rules = {row["rule"] for row in found["runs"]}
    assert {"no stopping", "BoundASHAScheduler", "PatienceStopper(patience=3)"} < rules
    assert len(found["table"]) == 2 * len(found["runs"])  # the family, and overall


def test_several_sweeps_each_with_their_own_max_t(capsys, parquet, tmp_path):
    """A surrogate is called so."""
    other = tmp_path / "other.parquet"
    recorded(name="predicted", surrogate=True).to_parquet(other)
    quick = ("--orderings", "1", "--processes", "1")
    status, out, _ = told(capsys, "compare", parquet, str(other), *quick)
    assert status == 0
    assert "sweeps (2 sweeps, regret, surrogate" in out
    assert "SURROGATE" in told(capsys, "replay", str(other))[1]


@pytest.mark.skipif(not example_path().exists(), reason="the example is not recorded yet")
def test_the_example_works_at_once(capsys, tmp_path):
    """On a fresh machine, without any file of the user's; here with rules that are quick."""
    path = tmp_path / "rules.toml"
    path.write_text("[rules]\nasha = 'ASHAScheduler'\n")
    quick = ("--orderings", "1", "--rules", str(path))
    status, out, _ = told(capsys, "compare", "--example", *quick)
    assert status == 0
    assert "served best" in out


def test_the_example_is_replayed(capsys):
    """As `compare` has it."""
    status, out, _ = told(capsys, "replay", "--example", "--stop", "PatienceStopper")
    assert status == 0
    assert "eval_loss (min)" in facts(out)["objective"]


def test_the_version_is_told(capsys):
    """The one that the package names."""
    assert told(capsys, "--version")[:2] == (0, f"tune_stoppers {tune_stoppers.__version__}\n")


HISTORY = "Name,_step,train,eval,lr\n" + "".join(
    f"{run},{step},{1 / (step + 1)},{2 / (step + 1) if step % 3 == 2 else ''},{lr}\n"
    for run, lr in (("a", 0.1), ("b", 0.2))
    for step in range(9)
)


def test_an_exported_history_is_replayed_and_compared(capsys, tmp_path):
    """As exported: a rule waits for evaluations, and what was taken for what is said."""
    path = tmp_path / "history.csv"
    path.write_text(HISTORY)
    of_eval = (str(path), "--metric", "eval", "--mode", "min")
    status, out, _ = told(capsys, "replay", *of_eval, "--stop", "PatienceStopper(patience=2)")
    assert (status, facts(out)["reports"]) == (0, "18 of 18")
    said = "eval: 6 of 18 rows have a value, 12 have none, 0 diverged (NaN or infinite)."
    assert facts(out)["read"].startswith(
        "As a CSV file. Trials by 'Name', time by '_step'. Hyperparameters: lr."
    )
    assert facts(out)["read"].endswith(said)
    quick = ("--orderings", "1", "--processes", "1")
    status, out, _ = told(capsys, "compare", *of_eval, *quick)
    assert status == 0
    assert said in out
    assert said in json.loads(told(capsys, "replay", *of_eval, "--json")[1])["reading"]
    path.write_text(HISTORY.replace("Name", "who").replace("_step", "when"))
    columns = ("--trial", "who", "--time", "when", "--nan", "value")
    assert told(capsys, "replay", *of_eval, *columns)[0] == 0
    assert "--trial" in told(capsys, "replay", *of_eval)[2]


def test_the_objective_of_an_experiment_is_its_journals(capsys, tmp_path):
    """And it is said."""
    status, out, _ = told(capsys, "replay", str(watched(tmp_path / "sweep")))
    assert (status, facts(out)["objective"]) == (0, "loss (min)")
    said = "As a Ray Tune experiment. Metric loss (min), as the experiment's journal says."
    assert facts(out)["read"] == said


def test_a_stop_dict_is_understood(capsys, parquet):
    """Alone and with stoppers, as in Ray; a function is no text."""
    dict_alone = told(capsys, "replay", parquet, "--stop", "{'training_iteration': 3}")
    assert facts(dict_alone[1])["reports"] == "72 of 216"
    both = "PatienceStopper(patience=50) | {'training_iteration': 3}"
    assert told(capsys, "replay", parquet, "--stop", both)[1] == dict_alone[1]
    status, _, err = told(capsys, "replay", parquet, "--stop", "lambda t, r: True")
    assert status == 2
    assert "is a function, and a text is never run" in err


MISTAKES = {
    "no sweep to replay": (("replay",), "name one sweep, or --example"),
    "a sweep and the example": (("replay", "SWEEP", "--example"), "name one sweep, or --example"),
    "nan": (("replay", "SWEEP", "--nan", "hole"), "nan must be 'auto', 'value' or 'missing'"),
    "columns": (("replay", "EMPTY", "--time", "step"), "are for tables"),
    "limit": (("replay", "SWEEP", "--stop", "{'loss': 'x'}"), "the limit of 'loss'"),
    "no command": ((), "Missing command"),
    "unknown command": (("repaly", "x"), "repaly"),
    "unknown option": (("replay", "SWEEP", "--stopp", "x"), "--stopp"),
    "no file": (("replay", "nowhere.parquet"), "there is no nowhere.parquet"),
    "nonsense": (("replay", "NONSENSE"), "is nothing that can be read here"),
    "no sweep": (("compare",), "name at least one sweep, or --example"),
    "empty folder": (("replay", "EMPTY"), "no Ray Tune experiment"),
    "metric": (("replay", "SWEEP", "--metric", "los"), "did you mean 'loss'"),
    "mode": (("replay", "SWEEP", "--metric", "loss", "--mode", "up"), "'min' or 'max'"),
    "cost": (("replay", "SWEEP", "--cost", "money"), "reports or seconds, got 'money'"),
    "seconds": (("replay", "SWEEP", "--cost", "seconds"), "use cost='reports'"),
    "workers": (("replay", "SWEEP", "--workers", "0"), "--workers"),
    "stopper": (("replay", "SWEEP", "--stop", "PatientStopper"), "mean 'PatienceStopper'? Known:"),
    "code": (("replay", "SWEEP", "--stop", "exit(1)"), "Unknown name 'exit'"),
    "keyword": (("replay", "SWEEP", "--stop", "PatienceStopper(patince=1)"), "'patience'"),
    "value": (("replay", "SWEEP", "--stop", "PatienceStopper(patience=0)"), "patience"),
    "ray's": (("replay", "SWEEP", "--scheduler", "ASHAScheduler(grace_period=99)"), "grace_period"),
    "clock": (("replay", "SWEEP", "--stop", "TimeoutStopper(60)"), "wall clock"),
    "rules": (("compare", "SWEEP", "--rules", "NONSENSE"), "--rules"),
    "no rules": (("compare", "SWEEP", "--rules", "TOML"), "needs a table [rules]"),
    "budget": (("compare", "SWEEP", "--budget", "-1"), "budget must be positive"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(capsys, name, parquet, tmp_path):
    """On standard error, without a traceback, naming what is wrong."""
    arguments, message = MISTAKES[name]
    (tmp_path / "nonsense").write_text("not = [a table\n")
    (tmp_path / "other.toml").write_text("rule = 1\n")
    (tmp_path / "empty").mkdir()
    places = {"SWEEP": parquet, "NONSENSE": str(tmp_path / "nonsense")}
    places |= {"EMPTY": str(tmp_path / "empty"), "TOML": str(tmp_path / "other.toml")}
    status, out, err = told(capsys, *(places.get(part, part) for part in arguments))
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_rules_that_no_sweep_can_use_are_told_before_anything_runs(capsys, parquet, tmp_path):
    """With the rule's name in the file."""
    path = tmp_path / "rules.toml"
    path.write_text('[rules]\ngood = "PatienceStopper"\nbad = "PatienceStopper(patience=-1)"\n')
    status, _, err = told(capsys, "compare", parquet, "--rules", str(path))
    assert status == 2
    assert "--rules: bad: " in err


def test_help_is_quick_and_plain():
    """It imports neither Ray, torch nor pandas, and draws no frames into a pipe."""
    code = (
        "import sys; from tune_stoppers.cli import main; status = main(['--help']); "
        "print(status, [name for name in ('ray', 'torch', 'pandas') if name in sys.modules])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout.isascii()
    assert "replay" in process.stdout
    assert "compare" in process.stdout
    assert process.stdout.splitlines()[-1] == "0 []"


def test_it_runs_as_a_module(parquet):
    """`python -m tune_stoppers`, with the exit status of the command."""
    run = [sys.executable, "-m", "tune_stoppers", "replay", parquet]
    root = Path(__file__).parents[2]
    good = subprocess.run(run, capture_output=True, text=True, cwd=root)
    assert (good.returncode, good.stderr) == (0, "")
    bad = subprocess.run([*run, "--stop", "No"], capture_output=True, text=True, cwd=root)
    assert bad.returncode == 2
    assert bad.stderr.startswith("error: --stop: Unknown name 'No'.")


def test_a_history_reaches_those_that_can_use_it(capsys, parquet, tmp_path):
    """What was read, who was left as it is, and that the replayed sweep itself is left out."""
    other = recorded(name="other")
    for curve in other:
        curve.metrics["loss"][:] *= 2
    other.to_parquet(tmp_path / "other.parquet")
    asked = ("--history", str(tmp_path / "other.parquet"), "--history", parquet)
    status, out, err = told(capsys, "replay", parquet, "--scheduler", "FreezeThawScheduler", *asked)
    assert (status, err) == (0, "")
    assert "history: other (24 trials), mine (24 trials)." in out
    assert "mine is left out of the history: it is the sweep that is replayed." in out
    assert "left as they are" not in out
    _, out, _ = told(capsys, "replay", parquet, "--scheduler", "ASHAScheduler", *asked, "--json")
    assert "history: used by nobody here; left as they are: ASHAScheduler." in out
    _, out, _ = told(capsys, "replay", parquet, *asked)
    assert "left as they are: no scheduler." in out


def test_compare_shows_what_a_history_is_worth(capsys, parquet, tmp_path):
    """Each rule that takes one with it and without."""
    quick = ("--orderings", "1", "--processes", "1", "--history", "lora")
    status, out, err = told(capsys, "compare", parquet, *quick, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    rules = {row["rule"] for row in found["table"]}
    assert {"AutoScheduler", "AutoScheduler + history", "BoundASHAScheduler"} <= rules
    assert "BoundASHAScheduler + history" not in rules
    assert any("left as they are: ASHA, eta 3, grace 1, " in note for note in found["notes"])
    rules_file = tmp_path / "rules.toml"
    rules_file.write_text(
        "[rules]\nordered = \"BoundASHAScheduler(order='model')\"\n", encoding="utf-8"
    )
    status, out, _ = told(capsys, "compare", parquet, *quick, "--rules", str(rules_file))
    assert status == 0
    assert "ordered + history" in out
    assert "AutoScheduler" not in out


def test_a_history_that_is_not_there_is_one_line(capsys, parquet):
    """It names the option and the path."""
    for command in ("replay", "compare"):
        status, out, err = told(capsys, command, parquet, "--history", "/nowhere/at/all")
        assert (status, out) == (2, "")
        assert err.startswith("error: --history: there is nothing at /nowhere/at/all.")
        assert err.count("\n") == 1


def test_sweeps_of_one_name_are_called_by_their_paths(capsys, tmp_path):
    """As the histories of two projects, or two folders `wandb`."""
    paths = []
    for project in ("a", "b"):
        (tmp_path / project).mkdir()
        paths.append(str(tmp_path / project / "history.csv"))
        recorded().frame.to_csv(paths[-1], index=False)
    quick = ("--orderings", "1", "--processes", "1", "--metric", "loss", "--mode", "min")
    status, out, err = told(capsys, "compare", *paths, *quick, "--json")
    assert (status, err) == (0, "")
    assert list(json.loads(out)["reading"]) == paths


def test_machines_are_told_all_digits(capsys, tmp_path):
    """A learning rate of 1e-12 is not 0."""
    frame = recorded().frame
    frame["config/lr"] = 1.23456789e-12
    frame.to_csv(tmp_path / "h.csv", index=False)
    asked = ("--metric", "loss", "--mode", "min", "--json")
    out = json.loads(told(capsys, "replay", str(tmp_path / "h.csv"), *asked)[1])
    assert out["trials"][0]["config/lr"] == 1.23456789e-12
