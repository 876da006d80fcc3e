"""Weights & Biases, by way of Ray's `WandbLoggerCallback`."""

import sys

from tune_stoppers.result_keys import STOP_REASON, WOULD_STOP_REASON
from tune_stoppers.tune.trackers.outcome import STOP_STATUS

RAYS = "ray.air.integrations.wandb"  # loaded where the driver has a `WandbLoggerCallback`


def put_words_into_config() -> bool:
    """Have Ray's callback keep the words of a result, which it drops, in the run's config.

    The run lives in a process of Ray's callback, which takes numbers alone as metrics, and the
    keys of `AUTO_CONFIG_KEYS` as configuration, whatever their type. False if the driver has no
    such callback. Call it before the first trial starts.
    """
    module = sys.modules.get(RAYS)
    if module is None:
        return False
    keys = module.WandbLoggerCallback.AUTO_CONFIG_KEYS
    keys.extend(key for key in (STOP_STATUS, STOP_REASON, WOULD_STOP_REASON) if key not in keys)
    return True
