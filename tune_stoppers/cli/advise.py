"""`advise`: what to begin with."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tune_stoppers.cli.shell import Json, app, mistakes


@app.command()
def advise(
    dataset_size: Annotated[int, typer.Option(help="Training examples.")],
    task: Annotated[
        str,
        typer.Option(help="sft, dpo, grpo, rloo, classification, generation, qa, summarization."),
    ],
    complexity: Annotated[str, typer.Option(help="Of the model: small, medium, large.")] = "medium",
    model: Annotated[str, typer.Option(help="transformer or rnn.")] = "transformer",
    as_json: Json = False,
) -> None:
    """Suggest a starting metric, mode and patience for a task."""
    from rich.console import Console
    from rich.text import Text

    from tune_stoppers.advice import recommend_metric, recommend_parameters

    with mistakes("advise"):
        first = recommend_parameters(dataset_size, complexity)
    watched = recommend_metric(task, model)
    patience, min_delta = first["patience"], first["min_delta"]
    why = [watched.why, first["why"]]
    numbers = f"{patience=}, {min_delta=}"
    if task in (
        "grpo",
        "rloo",
    ):  # judged by every training log: long patience, on a smoothed reward
        patience, min_delta = 20, 0.0
        numbers = f'{patience=}, smoothing={{"ema": 0.9}}'
        why[1] = "patience counts training logs here, not evaluations, of the smoothed reward"
    call = f'PatienceStopper("{watched.metric}", "{watched.mode}", {numbers})'
    facts = {
        "metric": watched.metric,
        "mode": watched.mode,
        "patience": patience,
        "min_delta": min_delta,
        "call": call,
        "why": why,
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    out = Console(highlight=False)
    for name, value in facts.items():
        for line in value if isinstance(value, list) else [str(value)]:
            out.print(Text.assemble((f"{name:<11}", "bold"), line), soft_wrap=not out.is_terminal)
