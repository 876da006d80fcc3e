"""`replay` and `compare`: what rules would have made of recorded sweeps."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from tune_stoppers.cli.rules_file import read_rules
from tune_stoppers.cli.shell import Generation, Json, UsageError, app, mistakes

if TYPE_CHECKING:
    from tune_stoppers.history import History as Knowledge
    from tune_stoppers.recorded.sweep import Sweep

SWEEP = (
    "A Parquet or CSV file, the folder of a Ray Tune experiment, of W&B, MLflow or TensorBoard "
    "runs, or the storage of an Optuna study: what it is is found out, and said."
)
Example = Annotated[
    bool, typer.Option("--example", help="The recorded sweep that comes with the package.")
]
Nan = Annotated[
    str,
    typer.Option(
        help="What a NaN is: value (diverged), missing (an empty cell), auto (by the rows)."
    ),
]
Trial = Annotated[str | None, typer.Option(help="The column of a table that names the trial.")]
Time = Annotated[str | None, typer.Option(help="The column that counts a trial's reports.")]
Seconds = Annotated[str | None, typer.Option(help="The column of seconds since the trial began.")]
Metric = Annotated[str | None, typer.Option(help="Default: what the sweep says.")]
Mode = Annotated[str | None, typer.Option(help="min or max. Default: what the sweep says.")]
History = Annotated[
    list[str] | None,
    typer.Option(
        "--history",
        help="Earlier sweeps to begin with, for rules that can: an experiment's folder, a folder "
        "of those, a file, lora. Repeat it for several.",
    ),
]
Study = Annotated[
    str | None,
    typer.Option(help="The study (Optuna) or experiment (MLflow), where a storage holds several."),
]
Workers = Annotated[int, typer.Option(min=1, help="Trials that run at a time.")]


class Reading(NamedTuple):
    """How a record is to be read."""

    metric: str | None
    mode: str | None
    nan: Any  # the readers check it
    trial: str | None
    time: str | None
    seconds: str | None
    study: str | None = None


@app.command()
def replay(
    sweep: Annotated[str | None, typer.Argument(help=SWEEP)] = None,
    stop: Annotated[
        str | None,
        typer.Option(help="'PatienceStopper(patience=3) | {'training_iteration': 100}'."),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="A scheduler: BoundASHAScheduler, 'ASHAScheduler(…)'.")
    ] = None,
    example: Example = False,
    metric: Metric = None,
    mode: Mode = None,
    nan: Nan = "auto",
    trial: Trial = None,
    time: Time = None,
    seconds: Seconds = None,
    study: Study = None,
    generation: Generation = 0,
    history: History = None,
    workers: Workers = 8,
    seed: Annotated[int, typer.Option(help="Of the order of the trials.")] = 0,
    cost: Annotated[
        str, typer.Option(help="What a report takes: reports (1 each) or seconds, as recorded.")
    ] = "reports",
    report: Annotated[
        Path | None, typer.Option(help="Also write the report, an HTML page, here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What a stopper and a scheduler would have made of a recorded sweep, in virtual time.

    Metric, mode and max_t of a rule are filled in from the sweep where they are left out.
    """
    from tune_stoppers.backtest.compare import example_path
    from tune_stoppers.backtest.named import build
    from tune_stoppers.backtest.replay import replay as run
    from tune_stoppers.report.terminal.replays import replayed
    from tune_stoppers.report.terminal.tables import clean, console, show
    from tune_stoppers.tune.horizon_watch import told_later

    if (sweep is None) != example:
        raise UsageError("replay: name one sweep, or --example.")
    reading = Reading(metric, mode, nan, trial, time, seconds, study)
    source = str(example_path()) if sweep is None else sweep
    recorded, kind = _load(source, reading, generation)
    unit: Literal["reports", "seconds"] = "seconds" if cost == "seconds" else "reports"
    if cost != unit:
        raise UsageError(f"--cost: reports or seconds, got {cost!r}.")
    with mistakes("--stop"):
        stopping = None if stop is None else build(stop, recorded, "stopper")
    with mistakes("--scheduler"):
        scheduling = None if scheduler is None else build(scheduler, recorded, "scheduler")
    known = _history(history, metric, mode)
    said = [] if known is None else _taken(scheduling, known, scheduler or "no scheduler")
    with mistakes("replay"), told_later():
        result = run(
            recorded,
            scheduling,
            stopping,
            workers=workers,
            seed=seed,
            cost=unit,
            on_stall="end",
        )
    if report is not None:
        from tune_stoppers.report import replay_story, write_page

        rule = ", ".join(part for part in (scheduler, stop) if part) or "no stopping"
        rungs = getattr(getattr(scheduling, "rule", None), "rungs", ())
        with mistakes("--report"):
            write_page(replay_story(result, rule=rule, rungs=rungs), report)
    if not as_json:
        out = console()
        show(["", ""], replayed(result, kind), console=out)
        for note in (*said, *result.notes):
            out.print(f"\n{note}", soft_wrap=not out.is_terminal, markup=False)
        return
    facts = {
        "sweep": recorded.name,
        "kind": kind,
        "surrogate": recorded.surrogate,
        "reading": result.reading,
        "metric": result.metric,
        "mode": result.mode,
        "stop": stop,
        "scheduler": scheduler,
        "workers": workers,
        "seed": seed,
        "cost": unit,
        "savings": result.savings,
        "reports": result.reports,
        "time": result.seconds,
        "best": result.best,
        "best_recorded": result.best_recorded,
        "regret": result.regret,
        "best_stopped": result.best_stopped,
        "time_to_target": result.time_to_target,
        "stalled": result.stalled,
        "notes": [*said, *result.notes],
        "trials": result.trials.to_dict("records"),
    }
    typer.echo(json.dumps(clean(facts), indent=2))


@app.command()
def compare(
    sweeps: Annotated[list[str] | None, typer.Argument(help=SWEEP)] = None,
    rules: Annotated[
        Path | None,
        typer.Option(
            help="TOML: under [rules], NAME = 'EXPRESSION' or {stop = '…', scheduler = '…'}. "
            "Default: no stopping, ASHA, median, PatienceStopper(3), BoundASHAScheduler, "
            "AutoScheduler."
        ),
    ] = None,
    example: Example = False,
    metric: Metric = None,
    mode: Mode = None,
    nan: Nan = "auto",
    trial: Trial = None,
    time: Time = None,
    seconds: Seconds = None,
    study: Study = None,
    history: History = None,
    workers: Workers = 8,
    orderings: Annotated[int, typer.Option(min=1, help="Random orders of the trials.")] = 5,
    budget: Annotated[
        float, typer.Option(help="Time to be judged on, in full trainings per worker.")
    ] = 4.0,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Default: one per available core.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Which rule, with which setting, would have served you best: its savings and its risk.

    With --history, each rule that can begin with earlier sweeps is compared with itself without.
    """
    from tune_stoppers.backtest.compare import compare as run
    from tune_stoppers.backtest.compare import example_path
    from tune_stoppers.backtest.named import WITH_HISTORY, default_rules, with_history
    from tune_stoppers.report.terminal.replays import OVERALL, compared, legend, title_of
    from tune_stoppers.report.terminal.tables import clean, console, show
    from tune_stoppers.tune.horizon_watch import told_later

    paths = [*(sweeps or []), *([str(example_path())] if example else [])]
    if not paths:
        raise UsageError("name at least one sweep, or --example.")
    reading = Reading(metric, mode, nan, trial, time, seconds, study)
    loaded = [_load(path, reading) for path in paths]
    recorded = [sweep for sweep, _ in loaded]
    _tell_apart(recorded, paths)
    with mistakes("--rules"):
        chosen = default_rules() if rules is None else read_rules(rules, recorded)
    known = _history(history, metric, mode)
    said = []
    if known is not None:
        given = [*chosen]
        chosen = with_history(chosen, recorded[0], known)
        said = _told(known, [n for n in given if f"{n}{WITH_HISTORY}" not in chosen], given)
    with mistakes("compare"), told_later():
        found = run(
            recorded,
            chosen,
            workers=workers,
            orderings=orderings,
            budget=budget,
            processes=processes,
        )
    table = found.table()
    if as_json:
        facts = {
            "recommendation": found.recommendation(),
            "notes": [*said, *found.notes],
            "baseline": found.baseline,
            "workers": workers,
            "budget": budget,
            "kind": {sweep.name: kind for sweep, kind in loaded},
            "reading": {sweep.name: sweep.reading for sweep in recorded},
            "table": table.reset_index().to_dict("records"),
            "runs": found.runs.to_dict("records"),
        }
        typer.echo(json.dumps(clean(facts), indent=2))
        return
    out = console()
    out.print(found.recommendation(), soft_wrap=not out.is_terminal)
    out.print()
    families = list(dict.fromkeys(table.index.get_level_values("family")))
    for family in families if len(families) > 2 else families[:1]:  # one family is the whole
        header, rows = compared(table, family, brief=not out.is_terminal or out.width < 160)
        show(header, rows, title=title_of(table, family), console=out)
        out.print()
    overall = f"; {OVERALL}" if len(families) > 2 else ""
    out.print(f"{legend(header)}{overall}.", soft_wrap=not out.is_terminal)
    out.print()
    for sweep, kind in loaded:
        read = f"{sweep.name}: read as {kind}. {sweep.reading}".rstrip()
        out.print(read, markup=False, soft_wrap=not out.is_terminal)
    for note in (*said, *found.notes):
        out.print(f"\n{note}", soft_wrap=not out.is_terminal, markup=False)


def _load(path: str, reading: Reading, generation: int = 0) -> tuple[Sweep, str]:
    """A recorded sweep whose objective is known, and what kind of record it was taken for."""
    from tune_stoppers.recorded.found import KNOWN, kind_at

    with mistakes(path):
        found = "://" in path or Path(path).expanduser().exists()
    if not found:
        raise UsageError(f"there is no {path}; give {KNOWN}.")
    with mistakes(path):
        kind = kind_at(path)
        read = kind.sweep(**reading._asdict(), generation=generation)
        return _with_objective(read, reading.metric, reading.mode), kind.what


def _tell_apart(sweeps: list[Sweep], paths: list[str]) -> None:
    """Sweeps that share a name, as two folders `wandb` do, are called by their paths."""
    count = Counter(sweep.name for sweep in sweeps)
    for sweep, path in zip(sweeps, paths, strict=True):
        if count[sweep.name] > 1:
            sweep.name = path


def _history(paths: list[str] | None, metric: str | None, mode: str | None) -> Knowledge | None:
    """What `--history` names; None without it."""
    if not paths:
        return None
    from tune_stoppers.history import History as Knowledge

    try:
        return Knowledge.of(paths, metric=metric, mode=mode)
    except (ValueError, TypeError, OSError) as error:
        raise UsageError("--history: " + str(error).removeprefix("history: ")) from error


def _taken(scheduler: Any, history: Knowledge, name: str) -> list[str]:
    """Give it the history, and what is to be said of that."""
    from tune_stoppers.backtest.histories import take

    return _told(history, [] if take(scheduler, history) else [name], [name])


def _told(history: Knowledge, without: list[str], names: list[str]) -> list[str]:
    """What was read, and who is left as it is."""
    sweeps = ", ".join(f"{sweep.name} ({sweep.trials} trials)" for sweep in history.sweeps)
    said = [f"history: {sweeps or 'nothing was learnt'}.", *history.said]
    if without:
        who = "nobody here" if len(without) == len(names) else "the others"
        said.append(f"history: used by {who}; left as they are: {', '.join(without)}.")
    return said


def _with_objective(sweep: Sweep, metric: str | None, mode: str | None) -> Sweep:
    """`sweep`, once it is known what it optimises."""
    try:
        sweep.metric, sweep.mode = sweep.objective(metric, mode)
    except ValueError as error:
        raise UsageError(
            f"{error} On the command line: --metric NAME --mode min or max."
        ) from error
    return sweep
