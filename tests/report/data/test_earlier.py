"""What earlier sweeps expected, as the journal has it: in `explain` and in the report."""

import json
import math
from pathlib import Path

import pytest

from tests.stand_ins.watched import BEGIN, watched
from tests.tune.schedulers.test_auto import HORIZON, curves
from tune_stoppers import AutoScheduler, BoundASHAScheduler, FreezeThawScheduler, replay
from tune_stoppers.cli import main
from tune_stoppers.journal.lines import event_line, read_journal
from tune_stoppers.report import experiment_story
from tune_stoppers.report.data.earlier import earlier_of
from tune_stoppers.report.html.page import page

EXPECTED = {"flat": 0.9, "falling": -0.4, "deep": -1.1, "broken": 0.2}


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """An experiment whose scheduler had a history."""
    folder = watched(tmp_path / "sweep")
    lines = []
    for number, (trial, expected) in enumerate(EXPECTED.items()):
        numbers: dict[str, object] = {"why": "earlier sweeps expect it", "expected": expected}
        if not number:
            numbers["history"] = ["last <month>: 60 trials; 1 of the 1 hyperparameters: lr."]
        if number == 3:
            numbers["came_true"] = {"after": 4, "of": {"last <month>": 0.75}}
        lines.append(event_line("Auto", trial, "started", numbers=numbers) | {"time": BEGIN})
    (journal,) = folder.glob("tune_stoppers/*/journal-*.jsonl")
    with journal.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return folder


@pytest.mark.parametrize(
    "scheduler",
    [
        AutoScheduler(HORIZON, history=curves(30, seed=7)),
        FreezeThawScheduler(HORIZON, history=curves(30, seed=7)),
        BoundASHAScheduler(HORIZON, order="model", history=curves(30, seed=7)),
    ],
    ids=lambda scheduler: scheduler.name,
)
def test_schedulers_write_down_what_was_expected(scheduler: object, tmp_path: Path) -> None:
    """Of every trial that starts; what was read once; and again and again what came true."""
    sweep = curves(24, seed=6)
    result = replay(sweep, scheduler, workers=4, folder=tmp_path)  # type: ignore[arg-type]
    result.cluster._scheduler._memory.flush()  # type: ignore[attr-defined]
    lines = [line for file in tmp_path.rglob("journal-*.jsonl") for line in read_journal(file)]
    starts = [line for line in lines if line.get("event") == "started"]
    begun = set(result.journal[result.journal["action"] == "start"]["trial_id"])
    assert {line["trial"] for line in starts if "expected" in line["numbers"]} == begun
    assert sum("history" in line["numbers"] for line in starts) == 1
    assert sum("came_true" in line["numbers"] for line in starts) >= 2
    assert "sd better than the typical trial, most of all" in starts[0]["numbers"]["why"]
    earlier = earlier_of(lines)
    assert earlier is not None
    assert earlier.said == ("made: 30 trials; 1 of the 1 hyperparameters that vary here: lr.",)
    assert earlier.came_true["made"] > 0.5
    losses = {curve.trial_id: float(curve.metrics["loss"].min()) for curve in sweep.curves}
    assert earlier.agreement(losses) > 0.7


def test_explain_tells_it(told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The experiment's part above, the trial's among its events; and for machines."""
    assert main(["explain", str(told)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "history: last <month>: 60 trials; 1 of the 1 hyperparameters: lr." in out
    assert "came true by the time 4 trials had reported (0: nothing, 1: all): 0.75 of last" in out
    assert main(["explain", str(told), "deep"]) == 0
    assert "earlier sweeps expect it" in capsys.readouterr().out
    assert main(["explain", str(told), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["earlier_sweeps"]
    assert found["expected"] == EXPECTED
    assert found["came_true"] == {"last <month>": 0.75}


def test_the_report_has_a_picture_of_it(told: Path) -> None:
    """A mark for each trial, escaped like everything; none without a history."""
    text = page(experiment_story(told, "loss", "min"))
    card = text[text.index("What earlier sweeps expected") :].partition("</section>")[0]
    assert card.count("<use") == 4
    assert "last &lt;month&gt;" in card
    assert "<dd>0.75</dd>" in card
    assert "best loss: 1.00" in card  # all four in the order expected
    plain = watched(told.parent / "plain")
    assert "What earlier sweeps expected" not in page(experiment_story(plain, "loss", "min"))


def test_few_trials_or_a_line_that_is_damaged_are_no_error() -> None:
    """Nothing is said then."""

    def start(trial: str, numbers: object) -> dict[str, object]:
        return {"event": "started", "trial": trial, "numbers": numbers}

    assert earlier_of([start("a", {"why": "no history"}), {"event": "paused"}]) is None
    broken = {"expected": "much", "history": 3, "came_true": {"of": [], "after": "x"}}
    assert earlier_of([start("a", broken), start("b", 5)]) is None
    torn = {"expected": 0.5, "came_true": {"of": {"one": "x", "two": 0.5}, "after": None}}
    earlier = earlier_of([start("a", torn), start("b", {"expected": math.inf})])
    assert earlier is not None
    assert (earlier.expected, earlier.came_true, earlier.after) == ({"a": 0.5}, {"two": 0.5}, 0)
    assert math.isnan(earlier.agreement({"a": 1.0}))
    many = earlier_of([start(str(k), {"expected": k}) for k in range(6)])
    assert many is not None
    assert many.agreement({str(k): -k for k in range(6)}) == pytest.approx(-1)
    assert math.isnan(many.agreement({str(k): 1.0 for k in range(6)}))
