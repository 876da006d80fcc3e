"""Under which configuration a report was made: a rollback, or Ray's PBT, changes a trial's own."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tune_stoppers.journal.lines import CONFIG, FORGOT, TRIAL, Line
from tune_stoppers.metrics import flat_keys, lookup, number

Config = dict[str, Any]
Configs = tuple[tuple[float, Config], ...]  # each since when, in seconds since the epoch

LONGEST = 2**16  # characters of a configuration that a journal keeps


def as_data(config: Mapping[str, Any]) -> Config | None:
    """`config` as Ray writes it to `params.json`; None if it is none, or too large for a line."""
    try:
        text = json.dumps(config, default=_plain)
    except (TypeError, ValueError, RecursionError):
        return None
    data = json.loads(text) if len(text) <= LONGEST else None
    return data if isinstance(data, dict) else None


def _plain(value: Any) -> Any:
    known = number(value)  # of numpy, say
    return str(value) if known is None else known


def journalled_configs(lines: Iterable[Line]) -> dict[str, Configs]:
    """The configurations that the journals saw each trial take up; `lines` are oldest first."""
    found: dict[str, Configs] = {}
    for line in lines:
        if line.get("event") == FORGOT:
            for gone in line["trials"]:
                found.pop(str(gone), None)
        elif (config := config_in(line)) is not None:
            known = found.get(line["trial"], ())
            since = number(line.get("reported"))  # by a stopper, which sees it in a report
            found[line["trial"]] = (*known, (line["time"] if since is None else since, config))
    return found


def config_in(line: Line) -> Config | None:
    """The configuration that a trial takes up by this line, if it says which."""
    values = line.get("values") if line.get("event") in (TRIAL, CONFIG) else None
    return values if isinstance(values, dict) else None


def flat(config: Mapping[str, Any]) -> Config:
    """`config` with the keys of its columns: "optimizer/lr"."""
    return {key: lookup(config, key) for key in flat_keys(config)}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The keys, flat, whose values are not the same in both."""
    here, there = flat(one), flat(other)
    return [key for key in here | there if not _same(here.get(key), there.get(key))]


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or (one != one and other != other)  # NaN is like NaN
