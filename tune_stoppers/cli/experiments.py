"""`explain`, `report`, `best` and `stop`: about the folder of an experiment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tune_stoppers.cli.shell import Generation, Json, UsageError, app, mistakes, working

EXPERIMENT = "The folder of a Ray Tune experiment, or its URI."
TRIAL = "A trial's id, its name in Ray's tables, or how its id begins or ends."
Experiment = Annotated[str, typer.Argument(help=EXPERIMENT)]
Metric = Annotated[str | None, typer.Option(help="Default: what the journal says.")]
Mode = Annotated[str | None, typer.Option(help="min or max. Default: as metric.")]
TimeAttr = Annotated[
    str | None, typer.Option(help="What counts as the step. Default: what the journal counts.")
]


@app.command()
def explain(
    experiment: Experiment,
    trial: Annotated[str | None, typer.Argument(help=f"{TRIAL} Default: all.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every decision on the trial, not only the last.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Run the rules again: do they decide the same?")
    ] = False,
    generation: Generation = 0,
    as_json: Json = False,
) -> int:
    """Why did it stop? The endings of all trials by cause, or one trial's decisions in words."""
    from tune_stoppers.report.data import explain as reading
    from tune_stoppers.report.terminal import explained
    from tune_stoppers.report.terminal.tables import clean, console, show

    with working("reading results and journals …"), mistakes("explain"):
        told = reading.Explained.at(experiment, generation=generation)
        one = None if trial is None else told.trial(trial)
    checked: list[reading.Verified] = []
    if verify:
        with working("running the rules again …"):
            checked = [reading.verify(run) for run in told.runs]
    proven = any(one.proves for one in checked)
    failed = verify and (not proven or any(one.failed for one in checked))
    if as_json:
        typer.echo(json.dumps(clean(explained.facts(told, one, checked)), indent=2))
        return int(failed)
    out = console()
    for line in explained.summary(told) if one is None else explained.headline(told, one):
        out.print(line, soft_wrap=not out.is_terminal)
    for table in explained.tables(told, one, None if every else explained.DECISIONS):
        if table.rows:
            out.print()
            show(table.header, table.rows, words=explained.WORDS, console=out)
        if table.note:
            out.print(table.note, soft_wrap=not out.is_terminal)
    if verify:
        out.print()
    for line in [text for check in checked for text in explained.verdict(check)]:
        out.print(line, soft_wrap=not out.is_terminal)
    if verify and not checked:
        out.print("there is nothing to verify: no journal")
    elif verify and not proven:
        out.print("nothing could be verified: no decision was checked")
    return int(failed)


@app.command()
def report(
    experiment: Experiment,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = Path("report.html"),
    metric: Metric = None,
    mode: Mode = None,
    time_attr: TimeAttr = None,
    generation: Generation = 0,
    as_json: Json = False,
) -> None:
    """A page that tells what was swept, what was found, and why every trial ended."""
    from tune_stoppers.report import compute, experiment_story, write_page
    from tune_stoppers.report.terminal.tables import clean

    if mode not in (None, "min", "max"):
        raise UsageError(f"--mode: min or max, got {mode!r}.")
    wanted: Any = mode
    with working("reading and drawing …"), mistakes("report"):
        story = experiment_story(
            experiment, metric, wanted, time_attr=time_attr, generation=generation
        )
        path = write_page(story, output)
    if not as_json:
        typer.echo(f"Report: {path}")
        return
    best = story.best
    facts = {
        "report": str(path),
        "metric": story.metric,
        "mode": story.mode,
        "trials": len(story.trials),
        "best": None if best is None else {"trial_id": best.trial_id, "value": best.best_value},
        **compute.facts(story.totals),
        "importance": {p.name: story.strength(p) for p in story.swept},
        "endings": {cause: len(trials) for cause, trials in story.causes.items()},
        "notes": list(story.notes),
    }
    typer.echo(json.dumps(clean(facts), indent=2))


@app.command()
def best(
    experiment: Experiment,
    metric: Metric = None,
    mode: Mode = None,
    time_attr: TimeAttr = None,
    generation: Generation = 0,
    top: Annotated[int, typer.Option(min=1, help="Trials listed.")] = 10,
    as_json: Json = False,
) -> None:
    """Each trial's best state: its value, and the path of the checkpoint to resume from."""
    from tune_stoppers.report.terminal.best import best_of
    from tune_stoppers.report.terminal.tables import clean, console, show

    with working("reading results …"), mistakes("best"):
        found = best_of(experiment, metric, mode, time_attr, generation)
    if as_json:
        typer.echo(json.dumps(clean(found.facts), indent=2))
        return
    out = console()
    for line in found.headline:
        out.print(line, soft_wrap=not out.is_terminal)
    out.print()
    header, rows = found.table(top)
    show(header, rows, words=("status",), console=out)


@app.command()
def stop(
    experiment: Experiment,
    trial: Annotated[str, typer.Argument(help=TRIAL)],
    why: Annotated[str, typer.Option(help="For the journal and the results.")] = "",
) -> None:
    """Stop a trial of a running sweep at its next report."""
    from tune_stoppers.experiment.stop_request import ask_to_stop

    with mistakes("stop"):
        trial_id = ask_to_stop(experiment, trial, why)
    typer.echo(f"Trial {trial_id} will be stopped at its next report.")
