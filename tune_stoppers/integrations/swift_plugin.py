"""A plug-in of ms-swift: early stopping by a line in the environment.

::

    export TUNE_STOPPERS='RuleCallback(Patience(3) | Divergence(), "eval_loss", "min")'
    swift sft ... --callbacks tune_stoppers \\
        --external_plugins "$(python -m tune_stoppers.integrations.swift_plugin)"

ms-swift makes the callbacks that `swift.callbacks.callbacks_map` names, from its own arguments,
which have no place for a rule: so it is in the environment, as a line or as the path of a YAML
file. Written against ms-swift 4.6.0, read and not run.
"""

from typing import Any

from tune_stoppers.integrations.no_code import VARIABLE, from_environment
from tune_stoppers.training.hf import RuleCallback

NAME = "tune_stoppers"


def early_stopping(args: Any, trainer: Any) -> RuleCallback:
    """What ms-swift calls to make the callback; `ValueError` if there is nothing to make it of."""
    callback = from_environment()
    if callback is None:
        raise ValueError(
            f"--callbacks {NAME} needs the environment variable {VARIABLE}, a line or the path of "
            "a YAML file: export "
            f'{VARIABLE}=\'RuleCallback(Patience(3), "eval_loss", "min")\'.'
        )
    return callback


def register() -> None:
    """Tell ms-swift of the callback."""
    from swift.callbacks import callbacks_map

    callbacks_map[NAME] = early_stopping


if __name__ == "__main__":
    print(__file__)  # what --external_plugins takes
else:
    register()
