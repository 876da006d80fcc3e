"""What the journals know of checkpoints: of a restored trial Ray can lose the results that tell.

The newest line with a checkpoint's name says what is in its folder: after a kill Ray may give a
name again, and the trial writes over the folder.
"""

import math
from collections.abc import Container, Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

from tune_stoppers.experiment.configs import config_in
from tune_stoppers.experiment.journals import Run
from tune_stoppers.journal.lines import AGAIN, FORGOT, Line
from tune_stoppers.metrics import lookup, number, recorded
from tune_stoppers.result_keys import CHECKPOINT_NAME


class Saved(NamedTuple):
    """A report that came with a checkpoint, as far as a journal tells it."""

    time: float  # when it was judged, in seconds since the epoch
    row: dict[str, Any]  # like one of `result.json`

    def replaces(self, row: Mapping[str, Any] | None, metric: str, time_attr: str) -> bool:
        """Whether this is news beside `row`, what the results have of a checkpoint of that name.

        So if there is none, or if it is of another report, before this one.
        """
        if row is None:
            return True
        if all(recorded(lookup(row, key)) == self.row[key] for key in (metric, time_attr)):
            return False
        reported = number(row.get("timestamp"))  # whole seconds, before it was judged
        return reported is not None and self.time > reported + 1


def saved_in(
    runs: Iterable[Run], there: Mapping[str, Container[str]], metric: str, time_attr: str
) -> dict[str, dict[str, Saved]]:
    """Reports with that metric that came with a checkpoint, by trial and the checkpoint's name.

    `there`: the names of each trial's checkpoints that still exist; others are left out.

    Of the runs that count in `time_attr`; one that judges something else, and does not know the
    metric, can still say that a name is another report's now.
    """
    found: dict[str, dict[str, Saved]] = {}
    configs: dict[str, dict[str, Any]] = {}  # of each trial, by then
    for time, knows, line in sorted(_told(runs, there, metric, time_attr), key=itemgetter(0)):
        if line.get("event") == FORGOT:
            for gone in line["trials"]:
                found.pop(str(gone), None)
            continue
        if (config := config_in(line)) is not None:
            configs[line["trial"]] = config
            continue
        name, step = line["checkpoint"], number(line["step"])
        of_trial = found.setdefault(line["trial"], {})
        if knows:
            value = number(line.get("value"))
            row = _numbers(line, "metrics") | _numbers(line, "clocks")
            row |= {time_attr: step, metric: math.nan if value is None else value}
            row |= {"config": configs[line["trial"]]} if line["trial"] in configs else {}
            of_trial[name] = Saved(time, row | {CHECKPOINT_NAME: name})
        elif name in of_trial and of_trial[name].row[time_attr] != step:
            del of_trial[name]
    return found


def _told(
    runs: Iterable[Run], there: Mapping[str, Container[str]], metric: str, time_attr: str
) -> Iterator[tuple[float, bool, Line]]:
    """The lines that matter, each with its time and whether its value is of the metric."""
    for run in runs:
        counts = _said(run, "time_attr") == time_attr
        knows = _said(run, "metric") == metric
        for line in run.lines:
            named = _checkpoint_of(line)
            told = line.get("event") == FORGOT or (named and named in there.get(line["trial"], ()))
            if (counts and told) or config_in(line) is not None:
                yield float(line["time"]), knows, line


def _said(run: Run, key: str) -> Any:
    """What the run says of itself as it begins."""
    return next((line[key] for line in run.lines if line.get(key)), None)


def _checkpoint_of(line: Line) -> str | None:
    """The checkpoint that came with the report that the line is about, if it says which."""
    name = line.get("checkpoint")
    if not isinstance(name, str) or not ("action" in line or line.get("event") == AGAIN):
        return None  # a class trainable's has no name there
    step = number(line.get("step"))
    return name if step is not None and math.isfinite(step) else None


def _numbers(line: Line, key: str) -> dict[str, Any]:
    known = line.get(key)
    numbers = known.items() if isinstance(known, dict) else ()
    return {name: value for name, value in numbers if number(value) is not None}
