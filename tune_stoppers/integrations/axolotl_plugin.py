"""A plug-in of axolotl: early stopping from its YAML.

::

    plugins:
      - tune_stoppers.integrations.axolotl_plugin.EarlyStoppingPlugin
    tune_stoppers:
      rule: Patience(3) | Divergence()
      metric: eval_loss
      mode: min

Written against `axolotl.integrations.base.BasePlugin`. The plug-in manager and the configuration of
axolotl 0.19.0 take it; no training was run in axolotl itself.
"""

from typing import Any

from axolotl.integrations.base import BasePlugin
from pydantic import BaseModel

from tune_stoppers.integrations.no_code import KEY, callback_from, from_environment


class EarlyStoppingArgs(BaseModel):
    """The key that axolotl's configuration gets: a line, the path of a file, or a mapping."""

    tune_stoppers: dict[str, Any] | str | None = None


class EarlyStoppingPlugin(BasePlugin):
    """Gives axolotl's Trainer the callback that the configuration describes."""

    def get_input_args(self) -> str:
        """Where the schema of the key is."""
        return f"{__name__}.{EarlyStoppingArgs.__name__}"

    def add_callbacks_pre_trainer(self, cfg: Any, model: Any) -> list[Any]:
        """The callback; none where neither the configuration nor the environment has one."""
        given = cfg.get(KEY)
        callback = callback_from(given) if given else from_environment()
        return [] if callback is None else [callback]
