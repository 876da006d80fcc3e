"""Rules as `ray.tune.Stopper`."""

from typing import Any

from tune_stoppers.moved import refusal


def __getattr__(name: str) -> Any:
    if name.endswith("Stopper") or name in ("AnyOf", "AllOf"):  # version 0.1 had them here
        raise refusal(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
