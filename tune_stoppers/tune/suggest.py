"""Configurations to begin a sweep with, by what earlier sweeps say of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ray.tune.search.sample import Domain, Function
from ray.tune.search.variant_generator import generate_variants

from tune_stoppers.core import require_number
from tune_stoppers.history import History
from tune_stoppers.history.sources import Source

logger = logging.getLogger("tune_stoppers")

CANDIDATES = 500  # configurations drawn from the space
MOST_DRAWS = 10 * CANDIDATES  # of a small space most repeat one another


def suggest(
    history: Source | Sequence[Source] | History,
    space: Mapping[str, Any],
    n: int,
    *,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """The `n` most promising and diverse configurations of a search space.

    ::

        points = suggest("~/ray_results/last_month", param_space, 8)
        tune.TuneConfig(search_alg=BasicVariantGenerator(points_to_evaluate=points), …)

    Of 500 configurations drawn at random from the space, those `n` of which the best is expected
    to do best, the most promising first: near another one that was chosen little is left to be
    gained. Deterministic.

    Args:
        history: what `History.of` takes, or what it gave.
        space: Ray's `param_space`: distributions, grids, constants, nested ones too.
        n: how many; fewer come of a space with fewer.
        seed: of the configurations drawn.

    Returns:
        What the space leaves open, as it is nested there; not what follows from other values
        (`tune.sample_from`), which Ray computes. `OptunaSearch` and others whose space is
        flat want `ray.tune.utils.flatten_dict` of each.

    Where the history knows nothing of the space, configurations come at random, with a warning.
    `ValueError` if the space leaves nothing open; errors of `History.of`.
    """
    require_number("suggest n", n, at_least=1, integer=True)
    require_number("suggest seed", seed, at_least=0, integer=True)
    known = History.of(history)
    drawn = list(_drawn(space, seed))
    if not drawn:
        raise ValueError(
            "suggest needs a space with something to choose, as tune.loguniform(1e-5, 1e-2); got "
            f"only constants: {', '.join(map(str, space)) or 'none'}."
        )
    configs = [config for config, _ in drawn]
    chosen, said = known.choose(configs, n)
    for sentence in said:
        logger.info("suggest: %s", sentence)
    if chosen is None:
        told = " ".join(said) or "It is empty."
        logger.warning("suggest: the history knows nothing of this space. %s", told)
        chosen = list(range(min(n, len(drawn))))
    return [drawn[place][1] for place in chosen]


def _drawn(space: Mapping[str, Any], seed: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Different configurations, each whole and with only what the space leaves open."""
    rng = np.random.default_rng(seed)
    seen: set[str] = set()
    draws = 0
    while draws < MOST_DRAWS and len(seen) < CANDIDATES:
        for resolved, spec in generate_variants({"config": dict(space)}, random_state=rng):
            draws += 1
            free = {path[1:]: v for path, v in resolved.items() if not _follows(space, path[1:])}
            key = repr(sorted((path, repr(value)) for path, value in free.items()))
            if key in seen or not free:
                continue
            seen.add(key)
            yield spec["config"], _nested(free)
            if len(seen) == CANDIDATES:
                return
        if not seen:
            return


def _follows(space: Any, path: tuple[Any, ...]) -> bool:
    """Whether Ray computes what is there itself, and takes no value for it: `tune.sample_from`."""
    for part in path:
        space = space[part]
    return isinstance(space, Function) or not isinstance(space, (Domain, Mapping))


def _nested(values: Mapping[tuple[Any, ...], Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in values.items():
        inner = nested
        for part in path[:-1]:
            inner = inner.setdefault(part, {})
        inner[path[-1]] = value
    return nested
