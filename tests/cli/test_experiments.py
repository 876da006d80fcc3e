"""`tune-stoppers explain`, `best` and `stop`: what they print, and one line for a mistake."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stand_ins import folders
from tests.stand_ins.watched import BEGIN, BIRTH, journal_of, watched, write_journal, write_results
from tune_stoppers.cli import main
from tune_stoppers.journal.lines import event_line
from tune_stoppers.rules import Patience

ROOT = Path(__file__).parents[2]
RUN = f"{BIRTH}-PatienceStopper-0123abcd"

ENDINGS = """\
sweep: 6 trials
watched by PatienceStopper: Patience(patience=2)
1 of 6 trials failed.

ended by         trials  which
PatienceStopper       1  flat
failed                1  broken
no end recorded       3  deep, falling, running
never reported        1  51e27
"""
VERIFIED = """
PatienceStopper: 14 decisions checked, all the same
"""
FLAT = """\
trial flat: stopped by PatienceStopper at step 3 with value 1
why: PatienceStopper: 2 of 2 evaluations without improvement, value 1, best 1 at step 1
status: TERMINATED after 3 reports
config: lr=0.5

time    step  value  decision  by               why
+1.0 s     1      1  CONTINUE  PatienceStopper  improved to 1
+2.0 s     2      1  CONTINUE  PatienceStopper  1 of 2 evaluations without improvement, value 1, best 1 at step 1
+3.0 s     3      1  STOP      PatienceStopper  2 of 2 evaluations without improvement, value 1, best 1 at step 1
"""  # noqa: E501
NO_JOURNAL = """\
sweep: 6 trials
1 of 6 trials failed.
There is no journal: none of our stoppers and schedulers watched this experiment. Decisions, pauses, retries and what was compared are not known. Endings are those that the results tell.

ended by                trials  which
stopped, cause unknown       1  flat
failed                       1  broken
no end recorded              3  deep, falling, running
never reported               1  51e27
"""  # noqa: E501
COURSE = """\
trial running: no end recorded at step 3 with value 1
why: running, paused, interrupted, or returned: its end was not recorded
status: UNKNOWN after 1 report
config: lr=0.5

time    step  value  decision        by               why
+1.0 s     1      1  CONTINUE        PatienceStopper  improved to 1
+6.0 s     2    nan  PAUSE           PatienceStopper  others go first
+8.0 s     1      1  CONTINUE        PatienceStopper  the journal is thinned here: no reason kept
+9.0 s     3      1  STOP (dry run)  PatienceStopper  no

time    step  event     why
+7.0 s        rollback  to=1, factor=0.5
+8.0 s     1  rewind
"""
BEST = """\
best: trial deep, loss 0.1 at step 4
kept: trial falling, loss 0.5 at step 2: {folder}/train_falling_1/checkpoint_000001
1 of 6 trials failed.

trial     loss  at step  kept  at step  status
deep       0.1        4     –        –  UNKNOWN
falling  0.125        4   0.5        2  UNKNOWN
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return watched(tmp_path / "sweep")


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(list(map(str, arguments)))
    out, err = capsys.readouterr()
    return status, "".join(line.rstrip() + "\n" for line in out.splitlines()), err


def test_the_endings_of_an_experiment(capsys: pytest.CaptureFixture[str], sweep: Path) -> None:
    """By cause, with who watched; and that every decision comes out again."""
    assert told(capsys, "explain", sweep) == (0, ENDINGS, "")
    assert told(capsys, "explain", sweep, "--verify") == (0, ENDINGS + VERIFIED, "")


def test_one_trial_in_words(capsys: pytest.CaptureFixture[str], sweep: Path) -> None:
    """Its end, and its last decisions with their numbers; the id may be cut short."""
    (sweep / "train_flat_0" / "params.json").write_text('{"lr": 0.5}')
    assert told(capsys, "explain", sweep, "fl") == (0, FLAT, "")


def test_an_experiment_of_rays_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What it cannot know, and what the results tell."""
    write_results(tmp_path / "sweep")
    assert told(capsys, "explain", tmp_path / "sweep") == (0, NO_JOURNAL, "")
    status, out, _ = told(capsys, "explain", tmp_path / "sweep", "--verify")
    assert (status, out) == (1, NO_JOURNAL + "\nthere is nothing to verify: no journal\n")


def test_events_are_told_beside_the_decisions(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With what they say or the numbers that came with them."""
    write_results(tmp_path)
    lines = journal_of(Patience(2), "PatienceStopper")
    lines[0] |= {"spec": {"class": "Mine"}}
    line = {"trial": "running", "owner": "PatienceStopper", "step": 2, "value": 1.0}
    pause = {"time": BEGIN + 6, "action": "PAUSE", "reason": "others go first", "value": "nan"}
    back = {"time": BEGIN + 8, "action": "CONTINUE", "event": "rewind", "step": 1}
    dry = {"time": BEGIN + 9, "action": "STOP", "reason": "no", "dry_run": True, "step": 3}
    events = [
        {"time": BEGIN + 7, "trial": "running", "event": "rollback"}
        | {"numbers": {"to": 1, "factor": 0.5}},
        {"time": BEGIN + 7.5, "trial": "running", "event": "config", "config": "abc"},
    ]
    write_journal(tmp_path, RUN, [*lines, line | pause, *events, line | back, line | dry])
    status, out, _ = told(capsys, "explain", tmp_path, "running")
    assert (status, out) == (0, COURSE)


def test_what_differs_is_status_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """With the decision then and the one now, and how many lines are missing."""
    write_results(tmp_path)
    path = write_journal(tmp_path, RUN, journal_of(Patience(2), "PatienceStopper"))
    path.write_text(path.read_text().replace('"STOP"', '"CONTINUE"') + "{torn")
    status, out, _ = told(capsys, "explain", tmp_path, "--verify")
    assert status == 1
    same = "2 of 2 evaluations without improvement, value 1, best 1 at step 1"
    assert out.endswith(
        "PatienceStopper: 14 decisions checked, 1 differs\n"
        f"  trial flat step 3: was CONTINUE ({same}), now STOP ({same})\n"
    )


def test_where_nothing_could_be_verified_is_status_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A rule of a user's own, or a journal without a decision: nobody has checked anything."""
    write_results(tmp_path)
    lines = journal_of(Patience(2), "PatienceStopper")
    for odd, told_why in (
        ([lines[0] | {"spec": {"class": "my.Rule"}}, *lines[1:]], "cannot be run again: my.Rule"),
        ([event_line("PatienceStopper", "", "begins"), *lines[1:]], "does not say which rule"),
        (lines[:1], "PatienceStopper: 0 decisions checked\n"),
    ):
        write_journal(tmp_path, RUN, odd)
        status, out, _ = told(capsys, "explain", tmp_path, "--verify")
        assert told_why in out
        assert out.endswith("nothing could be verified: no decision was checked\n")
        assert status == 1
    mine = f"{BIRTH}-Mine-89abcdef"
    write_journal(tmp_path, mine, lines)
    assert told(capsys, "explain", tmp_path, "--verify")[0] == 0


def test_what_is_cut_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """With the option that shows it."""
    curves = {"long": [1.0 / step for step in range(1, 9)]}
    write_results(tmp_path, curves)
    write_journal(tmp_path, RUN, journal_of(Patience(2), "PatienceStopper", curves))
    _, out, _ = told(capsys, "explain", tmp_path, "long")
    assert out.count("CONTINUE") == 5
    assert out.endswith("3 earlier decisions not shown: --all shows them.\n")
    _, out, _ = told(capsys, "explain", tmp_path, "long", "--all")
    assert out.count("CONTINUE") == 8
    assert "not shown" not in out


def test_each_unit_of_time_has_a_column(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Of two that watch a trial and count differently; its step is the first one's."""
    curves = {"both": [1.0, 0.5]}
    write_results(tmp_path, curves)
    lines = journal_of(Patience(2), "PatienceStopper", curves)
    write_journal(tmp_path, RUN, lines)
    other = [line | {"owner": "SlopeStopper"} for line in lines]
    other[0] |= {"time_attr": "tokens"}
    other[1:] = [
        line | {"step": 1000 * line["step"], "time": line["time"] + 0.5} for line in other[1:]
    ]
    write_journal(tmp_path, f"{BIRTH}-SlopeStopper-89abcdef", other)
    _, out, _ = told(capsys, "explain", tmp_path, "both")
    assert out.startswith("trial both: no end recorded at training_iteration 2 with value 0.5\n")
    header, *rows = [line.split() for line in out.splitlines()[-5:]]
    assert header[:5] == ["time", "training_iteration", "tokens", "value", "decision"]
    cut = out.splitlines()[-4:]
    place = out.splitlines()[-5].index("tokens")
    assert [line[place : place + 6].strip() for line in cut] == ["", "1000", "", "2000"]
    assert len(rows) == 4


def test_for_machines(capsys: pytest.CaptureFixture[str], sweep: Path) -> None:
    """`--json` holds the same, and whole lines of the journal for one trial."""
    found = json.loads(told(capsys, "explain", sweep, "--json", "--verify")[1])
    assert found["endings"]["PatienceStopper"] == 1
    assert [trial["trial_id"] for trial in found["trials"]][:2] == ["51e27", "broken"]
    assert found["verified"] == [
        {"owner": "PatienceStopper", "checked": 14, "unsure": 0, "differing": [], "why_not": ""}
    ]
    one = json.loads(told(capsys, "explain", sweep, "flat", "--json")[1])
    assert one["trial"]["cause"] == "PatienceStopper"
    assert one["decisions"][-1]["numbers"]["best"] == 1.0


def test_the_best_states(capsys: pytest.CaptureFixture[str], sweep: Path) -> None:
    """Metric and mode are the journal's; the best trial, and the best state that was kept."""
    folder = sweep / "train_falling_1"
    (folder / "checkpoint_000001").mkdir()
    rows = [json.loads(row) for row in (folder / "result.json").read_text().splitlines()]
    rows[1]["checkpoint_dir_name"] = "checkpoint_000001"
    (folder / "result.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = BEST.format(folder=sweep)
    assert told(capsys, "best", sweep, "--top", "2") == (0, expected, "")
    found = json.loads(told(capsys, "best", sweep, "--json")[1])
    assert (found["metric"], found["mode"]) == ("loss", "min")
    assert found["trials"][0]["trial_id"] == "deep"
    options = ("--metric", "loss", "--mode", "max", "--top", "1")
    assert told(capsys, "best", sweep, *options)[1].startswith("best: trial broken, loss 1 at")


def test_best_needs_to_know_of_what(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without a journal the metric and the mode are to be given."""
    write_results(tmp_path)
    status, out, err = told(capsys, "best", tmp_path)
    assert (status, out) == (2, "")
    assert "give --metric NAME --mode min or max" in err
    assert told(capsys, "best", tmp_path, "--metric", "loss", "--mode", "min")[0] == 0


def test_a_request_to_stop_is_left_for_the_sweep(
    capsys: pytest.CaptureFixture[str], sweep: Path
) -> None:
    """A small file that our stoppers and schedulers look for."""
    status, out, err = told(capsys, "stop", sweep, "run", "--why", "bored")
    assert (status, err) == (0, "")
    assert out == "Trial running will be stopped at its next report.\n"
    (request,) = (sweep / "tune_stoppers" / "requests").iterdir()
    assert request.name == "running.json"
    assert json.loads(request.read_text())["why"] == "bored"


MISTAKES = {
    "an empty folder": (("explain", "EMPTY"), "is no Ray Tune experiment"),
    "a file": (("explain", "FILE"), "is not a folder"),
    "nowhere": (("explain", "nowhere"), "is not a folder"),
    "nonsense": (("explain", "s3x://a/b"), "s3x"),
    "an unknown trial": (("explain", "SWEEP", "flatt"), "Did you mean 'flat'"),
    "no best of nothing": (("best", "EMPTY"), "the experiment does not say"),
    "a wrong mode": (("best", "SWEEP", "--mode", "up"), "mode must be one of min, max, got 'up'"),
    "an unknown metric": (("best", "SWEEP", "--metric", "los", "--mode", "min"), "'loss'"),
    "stop nobody": (("stop", "SWEEP", "x"), "No trial 'x'. There are: 51e27, broken"),
    "stop several": (("stop", "SWEEP", "f"), "Several trials begin with 'f': falling, flat."),
    "stop one that has ended": (("stop", "SWEEP", "flat"), "Trial flat has already ended."),
    "stop one that has failed": (("stop", "SWEEP", "broken"), "Trial broken has already ended."),
    "nobody would act": (("stop", "PLAIN", "running"), "Nobody would act on it"),
    "a long story": (("stop", "SWEEP", "running", "--why", "x" * 1001), "1000 are kept"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], name: str, sweep: Path, tmp_path: Path
) -> None:
    """On standard error, without a traceback; nothing is left in the experiment."""
    arguments, message = MISTAKES[name]
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("nonsense")
    write_results(tmp_path / "plain")
    places = {"SWEEP": sweep, "EMPTY": tmp_path / "empty", "FILE": tmp_path / "file"}
    places |= {"PLAIN": tmp_path / "plain"}
    status, out, err = told(capsys, *(places.get(part, part) for part in arguments))
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not list(tmp_path.rglob("requests"))


def test_an_id_that_leads_elsewhere_is_refused(
    capsys: pytest.CaptureFixture[str], sweep: Path
) -> None:
    """Ids come out of files, and name a file: it stays in the experiment's folder."""
    path = sweep / "train_running_4" / "result.json"
    path.write_text(path.read_text().replace('"running"', '"../../running"'))
    status, _, err = told(capsys, "stop", sweep, "../../running")
    assert status == 2
    assert "is no id that Ray gives a trial" in err
    assert not list(sweep.parent.rglob("running.*"))


def test_a_terminal_gets_a_framed_table(sweep: Path) -> None:
    """And nothing of the kind goes into a pipe."""
    ours, theirs = pty.openpty()
    run = [sys.executable, "-m", "tune_stoppers", "explain", str(sweep)]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(run, stdout=theirs, stderr=theirs, cwd=ROOT, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:
        pass  # the end of a terminal
    os.close(ours)
    assert process.wait() == 0
    assert "───" in shown.decode()
    assert "PatienceStopper" in shown.decode()


def test_what_was_taken_and_saved(capsys, tmp_path):
    """In a line, where the reports say what they took; for machines too."""
    folder = str(folders.sweep(tmp_path / "mine"))
    assert main(["explain", folder]) == 0
    said = (
        "37% saved; spent 12 s, 12 reports; start-up 0.0 s of it (0%); saved 7.0 s; saved in "
        "training_iteration 7 of 19 (37%); at stake 19 s, had nothing been stopped; took 7.0 s"
    )
    assert said in capsys.readouterr().out.splitlines()
    assert main(["explain", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["compute"]["saved_s"] == 7.0
