"""LLaMA-Factory with early stopping: its own YAML, and the key `tune_stoppers` in it.

::

    python -m tune_stoppers.integrations.llama_factory_cli train.yaml learning_rate=1e-5
    torchrun --nproc_per_node 2 -m tune_stoppers.integrations.llama_factory_cli train.yaml

LLaMA-Factory's command line takes no callbacks; `llamafactory.train.tuner.run_exp` does, and this
calls it. Written against LLaMA-Factory 0.9.5, read and not run.
"""

import sys
from collections.abc import Sequence
from typing import Any

from tune_stoppers.integrations.no_code import KEY, VARIABLE, read_config, taken_out

USAGE = "usage: python -m tune_stoppers.integrations.llama_factory_cli CONFIG.yaml [key=value ...]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the configuration says, with the callback that it describes."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        raise SystemExit(USAGE)
    config = read_config(given[0]) | dict(map(_override, given[1:]))
    callback = taken_out(config)
    if callback is None:
        raise ValueError(f"{given[0]} has no key {KEY}, and the environment no {VARIABLE}.")
    from llamafactory.train.tuner import run_exp

    run_exp(args=config, callbacks=[callback])


def _override(text: str) -> tuple[str, Any]:
    """`key=value`, with the value read as YAML."""
    import yaml  # comes with transformers

    name, sign, value = text.partition("=")
    if not sign:
        raise ValueError(f"{text!r} is no key=value. {USAGE}")
    return name, yaml.safe_load(value)


if __name__ == "__main__":
    main()
