"""What a sweep found: trials, compute spent and saved, and the best state measured again."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.finetune import Data, Task, build_model, evaluate
from experiments.model import sample
from tune_stoppers import BestState, best_state, best_states
from tune_stoppers.experiment.folder import ExperimentError
from tune_stoppers.report import Story, compute, experiment_story, write_page
from tune_stoppers.report.data.totals import Cost

AGREE = 1e-3  # nats: how well the restored state must reproduce its recorded loss
SAMPLE_TOKENS = 24


def summarise(results: Any, task: Task, data: Data) -> int:
    """Print and write what the sweep found; 1 if the best state does not reproduce, else 0."""
    story = story_of(results, task)
    trials = trial_table(results, task, story)
    print("\n== Trials ==")
    print(readable(trials))
    summary: dict[str, Any] = {}
    if story is not None:
        print("\n== Compute ==", *compute_lines(story), sep="\n")
        summary["compute"] = compute_of(story)
    failed = trials["best_value"].isna().all()
    status = 1
    if failed:
        print("No trial reported a finite value: there is no best state to restore.")
    else:
        summary["best"], status = measure_again(results, task, data)
    folder = write(results, trials, summary)
    print(f"\nResults: {folder}")
    if story is not None and "://" not in folder:
        page = write_page(story, Path(folder) / "report.html")
        print(f"Report: {page}")
    return status


def story_of(results: Any, task: Task) -> Story | None:
    """What there is to tell; None where no trial reported."""
    try:
        return experiment_story(results, task.metric, task.mode, time_attr="step")
    except ExperimentError:
        return None


def trial_table(results: Any, task: Task, story: Story | None) -> pd.DataFrame:
    """`best_states` with each trial's steps, seconds, start-up and seconds for a full run."""
    trials = best_states(results, task.metric, task.mode, time_attr="step")
    last = {
        row["trial_id"]: row
        for row in (result.metrics or {} for result in results)
        if "trial_id" in row
    }
    trials["steps"] = [last.get(t, {}).get("step", 0) for t in trials["trial_id"]]
    told = {} if story is None else {trial.trial_id: trial for trial in story.trials}
    costs = [told.get(trial_id, Cost()) for trial_id in trials["trial_id"]]
    trials["seconds"] = [cost.spent for cost in costs]
    trials["startup_seconds"] = [cost.startup for cost in costs]
    trials["full_seconds"] = [cost.spent + cost.saved for cost in costs]
    trials["reason"] = [
        last.get(trial, {}).get("stop_reason") or _ending(status, steps >= task.max_steps)
        for trial, status, steps in zip(
            trials["trial_id"], trials["status"], trials["steps"], strict=True
        )
    ]
    return trials.sort_values("best_value", ignore_index=True)


def _ending(status: str, complete: bool) -> str:
    if status == "ERROR":
        return "failed"
    return "finished" if complete else "stopped by the scheduler"


def compute_of(story: Story) -> dict[str, Any]:
    """What was spent and saved, and what full runs of all trials would have taken."""
    facts = compute.facts(story.totals)
    return facts | {"horizon_s": facts["spent_s"] + facts["saved_s"], "stopped": facts["cut_short"]}


def compute_lines(story: Story) -> list[str]:
    """The same in words."""
    totals = story.totals
    rows = compute.told(totals, story.reports, story.time_attr)
    rows.append(("Took", compute.clock(totals)))
    head = f"{compute.headline(totals, story.share)} by stopping {totals.cut_short} of "
    head += f"{len(story.trials)} trials early"
    return [head, *(f"{name + ':':15} {text}" for name, text in rows), story.basis]


def readable(trials: pd.DataFrame) -> str:
    """The table as text, without the columns that only machines need."""
    columns = ["trial_id", *(c for c in map(str, trials) if c.startswith("config/"))]
    columns += ["steps", "reports", "best_value", "best_step", "reason"]
    shown = trials[columns].rename(columns=lambda c: c.removeprefix("config/"))
    shown["trial_id"] = shown["trial_id"].str[-5:]
    return shown.to_string(index=False, float_format=lambda x: f"{x:.4g}", max_colwidth=70)


def measure_again(results: Any, task: Task, data: Data) -> tuple[dict[str, Any], int]:
    """Restore the best state into a freshly loaded model and evaluate it there."""
    best: BestState = best_state(results, task.metric, task.mode, time_attr="step")
    model, tokenizer = build_model(task, best.config)
    before = sample(model, tokenizer, data.example.prompt, SAMPLE_TOKENS)
    best.restore(model)
    measured = {
        "recorded": float(best.metrics["eval_loss"]),
        "restored": evaluate(task, best.config, model, data.evaluation),
    }
    agree = abs(measured["restored"] - measured["recorded"]) <= AGREE
    unseen = evaluate(task, best.config, model, data.heldout)
    after = sample(model, tokenizer, data.example.prompt, SAMPLE_TOKENS)
    print(f"\n== Best: trial {best.trial_id}, step {best.step:g} ==")
    print(f"config: {best.config}")
    print(f"checkpoint: {best.checkpoint}")
    print(
        f"eval loss, {len(data.evaluation)} pairs: recorded {measured['recorded']:.6f}, restored "
        f"into a fresh model {measured['restored']:.6f}: "
        f"{'they agree' if agree else 'THEY DIFFER'}"
    )
    print(f"held-out loss, {len(data.heldout)} pairs that no trial saw: {unseen:.4f}")
    print(f"\nA held-out pair: {data.example.prompt!r}")
    print(f"written: {data.example.completion!r}\nbefore:  {before!r}\nafter:   {after!r}")
    found = {
        "trial_id": best.trial_id,
        "step": best.step,
        "config": best.config,
        "checkpoint": best.checkpoint,
        **measured,
        "agree": agree,
        "heldout_loss": unseen,
        "heldout_pairs": len(data.heldout),
        "sample": {**vars(data.example), "before": before, "after": after},
    }
    return found, 0 if agree else 1


def write(results: Any, trials: pd.DataFrame, summary: dict[str, Any]) -> str:
    """Write the tables beside the experiment; the folder's path."""
    folder = f"{results.experiment_path}/tune_stoppers"
    filesystem = results.filesystem
    filesystem.create_dir(folder, recursive=True)
    reports = [json.dumps(row, default=str) for row in _reports(results)]
    files = {
        "trials.csv": trials.to_csv(index=False).encode(),
        "trials.parquet": trials.to_parquet(index=False),
        "reports.jsonl": "".join(f"{line}\n" for line in reports).encode(),
        "summary.json": json.dumps(summary, indent=2, default=str).encode(),
    }
    for name, content in files.items():
        with filesystem.open_output_stream(f"{folder}/{name}") as stream:
            stream.write(content)
    return folder


def _reports(results: Any) -> list[dict[str, Any]]:
    frames = [result.metrics_dataframe for result in results]
    return [row for frame in frames if frame is not None for row in frame.to_dict("records")]
