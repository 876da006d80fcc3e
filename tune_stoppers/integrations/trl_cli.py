"""TRL's command line with early stopping: its own YAML, and the key `tune_stoppers` in it.

::

    python -m tune_stoppers.integrations.trl_cli sft --config sft.yaml
    accelerate launch -m tune_stoppers.integrations.trl_cli grpo --config grpo.yaml

TRL's command line takes no callbacks. This runs its own scripts (`trl.scripts.sft`, …) in this
process, with one more of the callbacks that every Trainer has by default.
"""

import importlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import transformers.trainer

from tune_stoppers.integrations.no_code import KEY, VARIABLE, read_config, taken_out
from tune_stoppers.training.hf import RuleCallback

SCRIPTS = ("sft", "dpo", "grpo", "kto", "reward", "rloo")
USAGE = (
    f"usage: python -m tune_stoppers.integrations.trl_cli {{{','.join(SCRIPTS)}}} "
    "--config CONFIG.yaml [--key value ...]"
)


def main(arguments: Sequence[str] | None = None) -> RuleCallback:
    """Run the script as the configuration says, with the callback that it describes."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] not in SCRIPTS:
        raise SystemExit(USAGE)
    name, *rest = given
    at = rest.index("--config") + 1 if "--config" in rest[:-1] else None
    config = {} if at is None else read_config(rest[at])
    callback = taken_out(config)
    if callback is None:
        raise ValueError(f"the --config has no key {KEY}, and the environment no {VARIABLE}.")
    script = importlib.import_module(f"trl.scripts.{name}")
    with tempfile.TemporaryDirectory() as folder:
        if at is not None:
            rest[at] = _without_key(config, Path(folder))
        parser = script.make_parser()
        parsed = parser.parse_args_and_config(rest, fail_with_unknown_args=False)  # as TRL does
    with given_to_every_trainer(callback):
        script.main(*parsed)
    return callback


@contextmanager
def given_to_every_trainer(callback: RuleCallback) -> Iterator[None]:
    """Trainers made within have the callback, after those that every Trainer has."""
    transformers.trainer.DEFAULT_CALLBACKS.append(callback)
    try:
        yield
    finally:
        transformers.trainer.DEFAULT_CALLBACKS.remove(callback)


def _without_key(config: dict[str, object], folder: Path) -> str:
    """A file for TRL's own parser, to which our key would be unknown."""
    import yaml  # comes with transformers

    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return str(path)


if __name__ == "__main__":
    main()
