"""What must hold of a sweep of `sweep_to_break`, however often its driver was killed."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from tests.faults.killing import Death, runs
from tests.faults.sweep_to_break import (
    BUDGET_STEPS,
    SCHEDULERS,
    STEP_SECONDS,
    after_step,
    cases,
    loss_of,
    weight_at,
)
from tune_stoppers import best_state, best_states
from tune_stoppers.core import Report
from tune_stoppers.core.track import Track
from tune_stoppers.experiment.journals import Run
from tune_stoppers.journal.fold import fold
from tune_stoppers.journal.lines import ENDED, FORGOT, RESTORED, Line
from tune_stoppers.journal.recorder import Recorder
from tune_stoppers.report.data.explain import verify
from tune_stoppers.report.terminal.explained import verdict
from tune_stoppers.rules import Patience
from tune_stoppers.rules.sweep.rollback import GONE, WENT_BACK

Outcome = dict[str, dict[str, Any]]  # how each trial ended, by its id


def violations(storage: Path, name: str, deaths: Iterable[Death]) -> list[str]:
    """What is wrong with the sweep `name`, which has ended after these deaths; [] if nothing."""
    outcome: Outcome = json.loads((storage / f"{name}.json").read_text())
    mine = [death for death in deaths if death.sweep == name]
    by_number = {case["number"]: case["lr"] for case in cases(name)}
    rates = {trial: by_number[end["case"]["number"]] for trial, end in outcome.items()}
    found = [
        *_lost(name, outcome),
        *_run_again(storage, name, mine),
        *_forgotten_lines(runs(storage, name), mine),
        *unsound(storage / name, name, outcome, rates),
    ]
    return [f"{name}: {text}" for text in found]


def unsound(folder: Path, name: str, outcome: Outcome, rates: dict[str, float]) -> Iterator[str]:
    """What is wrong in the folder of an experiment under `name`'s scheduler or stoppers.

    `rates`: the learning rate with which each trial began.
    """
    written = runs(folder.parent, folder.name)
    yield from _best_states(folder, outcome, written)
    for trial, end in outcome.items():
        if end["status"] != "TERMINATED":
            yield f"{trial} ended as {end['status']}"
    for run in written:
        yield from _values(run, outcome, rates)
        yield from _judged_twice(run)
        if run.owner == "PatienceStopper":
            yield from _patience(run, outcome)
        elif run.owner == "BudgetStopper":
            yield from _budget(run)
        else:
            yield from _scheduler(folder, name, run, outcome)
        if run.owner == "AutoScheduler":
            yield from _comparisons(run)


def _lost(name: str, outcome: Outcome) -> Iterator[str]:
    """No trial is lost, and none is there twice."""
    numbers = Counter(end["case"]["number"] for end in outcome.values())
    if numbers != Counter(case["number"] for case in cases(name)):
        yield f"the trials are those of the cases {dict(numbers)}"


def _run_again(storage: Path, name: str, deaths: Iterable[Death]) -> Iterator[str]:
    """Nobody who had ended, as far as Ray knew, is started again."""
    starts = (storage / f"{name}.starts").read_text().split()
    for death in deaths:
        for trial in death.terminated.intersection(starts[death.starts :]):
            yield f"{trial} had ended, and was run again"


def _forgotten_lines(written: Iterable[Run], deaths: Iterable[Death]) -> Iterator[str]:
    """What was on storage at a kill is there still, in its place."""
    now = {run.owner: list(run.lines) for run in written}
    for death in deaths:
        for owner, lines in death.lines.items():
            if now.get(owner, [])[: len(lines)] != lines:
                yield f"{len(lines)} lines of {owner} at a kill are not the first of those now"


def _values(run: Run, outcome: Outcome, first: dict[str, float]) -> Iterator[str]:
    """Each report is the step after the one that the trial went on from, at its rate then."""
    rates, weights = dict(first), dict[str, dict[float, float]]()
    resumed: set[str] = set()  # trials seen since the last restore
    lost: set[str] = set()  # trials whose best checkpoint was gone
    for line in run.lines:
        trial, event = line["trial"], line.get("event")
        if event == RESTORED:
            resumed = set()
        for gone in line["trials"] if event == FORGOT else []:
            weights.pop(gone, None)
            rates |= {gone: first[gone]} if gone in first else {}
            lost.discard(gone)
        if event == WENT_BACK:
            rates[trial] = line["numbers"]["lr"]
        if event == GONE:
            lost.add(trial)
        if trial not in outcome or "action" not in line:
            continue
        step, known = line["step"], weights.setdefault(trial, {0: 1.0})
        value, floor = line["value"], outcome[trial]["case"]["floor"]
        first_since = trial not in resumed
        resumed.add(trial)
        if first_since and not run.owner.endswith("Scheduler"):
            # the line before may have been on its way to the storage; Ray remembers the decision
            known.setdefault(step - 1, weight_at(step - 1, rates[trial]))
        if first_since and trial in lost:
            # Ray may have forgotten the rollback: it was done again from another checkpoint
            known[step] = math.sqrt(value - floor)
            continue
        if step - 1 not in known:
            yield f"{trial} was judged at step {step:g}, and never at the step before"
            continue
        known[step] = after_step(known[step - 1], rates[trial])
        if value is not None and not _is_loss(value, known[step], floor):  # a budget sees none
            yield f"{trial} has {value} at step {step:g}, expected {loss_of(known[step], floor)}"
    for trial, end in outcome.items():
        if end["case"]["lr"] != rates[trial]:
            yield f"{trial} ends with the rate {end['case']['lr']}, its last was {rates[trial]}"


def _is_loss(value: float, weight: float, floor: float) -> bool:
    return math.isclose(value, loss_of(weight, floor), rel_tol=1e-9)


def _judged_twice(run: Run) -> Iterator[str]:
    """No step is judged twice, but by a stopper, whom Ray restores, or after going back."""
    if not run.owner.endswith("Scheduler"):
        return
    seen: set[tuple[str, float]] = set()
    for line in run.lines:
        event = line.get("event")
        gone = line["trials"] if event == FORGOT else [line["trial"]] if event == WENT_BACK else []
        seen = {what for what in seen if what[0] not in gone}
        if "action" not in line:
            continue
        what = line["trial"], line["step"]
        if what in seen:
            yield f"{what[0]} was judged twice at step {what[1]:g}"
        seen.add(what)


def _scheduler(folder: Path, name: str, run: Run, outcome: Outcome) -> Iterator[str]:
    """A fresh rule makes of the journal the same decisions, and the record that is on storage."""
    rule = SCHEDULERS[name]().rule
    record = rule.init()
    for line, decision in fold(rule, record, run.lines, 1):
        said = decision.action.value, decision.say()
        if (line["action"], line["reason"]) != said:
            yield f"{line['trial']} at step {line['step']}: {line['reason']}; again: {said[1]}"
    place = f"{folder}/tune_stoppers/{run.birth}-{run.owner}-{run.uid}"
    kept = Recorder(pafs.LocalFileSystem(), place).read()
    loaded = rule.init() if kept.state is None else rule.load(kept.state["record"])
    for _ in fold(rule, loaded, kept.lines, 1):
        pass
    if _sorted(rule.dump(loaded)) != _sorted(rule.dump(record)):
        yield "the state and the lines after it are not what all the lines make"
    if hasattr(rule, "rungs"):
        yield from _rungs(rule, record, run, outcome)


def _comparisons(run: Run) -> Iterator[str]:
    """Each trial that was chosen is the one that its journal makes worth most, made again."""
    verified = verify(run)
    if verified.failed or not verified.compared or not verified.compared.checked:
        yield f"its comparisons, made again: {verdict(verified)}"


def _sorted(dumped: Any) -> str:
    return json.dumps(dumped, sort_keys=True)


def _rungs(rule: Any, record: Any, run: Run, outcome: Outcome) -> Iterator[str]:
    """Each rung has every trial that came so far, once, with the value it had there."""
    reached: dict[str, float] = {}
    for line in run.lines:
        if "action" in line or line.get("event") == ENDED:
            reached[line["trial"]] = max(line["step"], reached.get(line["trial"], 0))
        for gone in line["trials"] if line.get("event") == FORGOT else []:
            reached.pop(gone, None)
    for trial in reached.keys() - outcome.keys():
        yield f"{trial} is in the record, and not among Ray's trials"
    for time, rung in zip(rule.rungs, record.rungs, strict=True):
        due = {trial for trial, step in reached.items() if step >= time}
        if due != rung.of_trial.keys() or sorted(rung.of_trial.values()) != rung.losses:
            yield f"rung {time:g} has {sorted(rung.of_trial)}, due are {sorted(due)}"
        for trial in due & rung.of_trial.keys() & outcome.keys():
            case = outcome[trial]["case"]
            if not _is_loss(rung.of_trial[trial], weight_at(time, case["lr"]), case["floor"]):
                yield f"rung {time:g} has {rung.of_trial[trial]} of {trial}"


def _patience(run: Run, outcome: Outcome) -> Iterator[str]:
    """Each decision is that of a fresh rule that saw the trial's curve up to there, once."""
    for line in run.lines:
        trial = line["trial"]
        if "action" not in line or trial not in outcome:
            continue
        case, track = outcome[trial]["case"], Track(Patience(4, 0.01))
        for step in range(1, int(line["step"]) + 1):
            loss = loss_of(weight_at(step, case["lr"]), case["floor"])
            decision = track.update(Report(trial, step, loss)).decision
        if (line["action"], line["reason"]) != (decision.action.value, decision.say()):
            yield f"{trial} at step {line['step']}: {line['reason']}; again: {decision.say()}"


def _budget(run: Run) -> Iterator[str]:
    """Each report of a life costs its time, none less than its step does, and none is free."""
    spent: dict[str, float] = {}
    for line in run.lines:
        if "action" not in line:
            spent = {} if line.get("event") != ENDED else spent  # as of Ray's snapshot
            continue
        trial, total = line["trial"], line["numbers"]["trial_seconds"]
        if trial in spent and total != spent[trial] + STEP_SECONDS:
            yield f"{trial} has spent {total} s at step {line['step']:g}, before {spent[trial]} s"
        if total < line["step"] * STEP_SECONDS:
            yield f"{trial} has spent only {total} s at step {line['step']:g}"
        if (total >= BUDGET_STEPS * STEP_SECONDS) != (line["action"] == "STOP"):
            yield f"{trial} has spent {total} s: {line['action']}"
        spent[trial] = total


def _best_states(folder: Path, outcome: Outcome, written: Iterable[Run]) -> Iterator[str]:
    """Every trial has one row and, if it ever saved, its best state lies there and loads.

    So do trials that Ray's snapshot lacked when the sweep was restored: their states are real.
    """
    frame = best_states(folder, "loss", "min")
    forgotten = {
        gone
        for run in written
        for line in run.lines
        if line.get("event") == FORGOT
        for gone in line["trials"]
    } - outcome.keys()
    rows = frame[(frame["status"] != "ERROR") & ~frame["trial_id"].isin(forgotten)]
    of = sorted(rows["trial_id"])  # restarted ones leave a folder
    if of != sorted(outcome):
        yield f"best states are of {of}, trials are {sorted(outcome)}"
    saved = _saved(line for run in written for line in run.lines)
    for row in frame.to_dict("records"):
        trial = row["trial_id"]
        if row["status"] != "TERMINATED" and trial in outcome:
            yield f"{trial} is {row['status']} among the best states"
        if trial not in saved or trial not in outcome:
            continue
        if row["checkpoint"] is None:
            yield f"{trial} has no best state; it had saved {saved[trial]}"
            continue
        state = best_state(folder, "loss", "min", trial_id=trial)
        step, weight = state.load()["state"].tolist()
        told = (step, loss_of(weight, outcome[trial]["case"]["floor"]))
        if told != (state.step, state.value):
            yield f"{trial}'s best state is of step and loss {told}, not {state}"
        there = {path.name for path in Path(state.checkpoint).parent.iterdir()}
        known = (loss for name, loss in saved[trial].items() if name in there)
        best = min(known, default=state.value)
        if state.value > best:
            yield f"{trial}'s best state has {state.value}; it had saved {best}"


def _saved(lines: Iterable[Line]) -> dict[str, dict[str, float]]:
    """What was last saved under each name, by trial: its loss, as Ray or we were told of it."""
    saved: dict[str, dict[str, float]] = {}
    for line in lines:
        for gone in line["trials"] if line.get("event") == FORGOT else []:
            saved.pop(gone, None)
        if line.get("checkpoint") and line["value"] is not None:  # a budget sees none
            saved.setdefault(line["trial"], {})[line["checkpoint"]] = line["value"]
    return saved
