"""Checks of parameters: one clear error where a rule is broken."""

import math


def require(condition: bool, message: str) -> None:
    """Raise `ValueError(message)` unless `condition` holds."""
    if not condition:
        raise ValueError(message)


def require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise `ValueError` unless `value` is one of `choices`."""
    require(value in choices, f"{name} must be one of {', '.join(choices)}, got {value!r}.")


def require_number(
    name: str,
    value: object,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    integer: bool = False,
) -> None:
    """Raise `TypeError` unless `value` is a finite number, `ValueError` outside the bounds."""
    kinds: tuple[type, ...] = (int,) if integer else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool):
        kind = "an integer" if integer else "a number"
        raise TypeError(f"{name} must be {kind}, got {value!r}.")
    assert isinstance(value, (int, float))
    require(_is_finite(value), f"{name} must be finite, got {value!r}.")
    require(at_least is None or value >= at_least, f"{name} must be >= {at_least}, got {value!r}.")
    require(at_most is None or value <= at_most, f"{name} must be <= {at_most}, got {value!r}.")
    require(above is None or value > above, f"{name} must be > {above}, got {value!r}.")
    require(below is None or value < below, f"{name} must be < {below}, got {value!r}.")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False
