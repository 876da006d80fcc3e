"""From a history as trackers export it to the table of a sweep: which column is what."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tune_stoppers.metrics import closest
from tune_stoppers.recorded.table import CONFIG, KEYS

TRIAL, TIME, STEP, SECONDS = KEYS[0], KEYS[1], KEYS[2], KEYS[3]
# Known names, the best first; compared in lower case, blanks as "_".
NAMES = {
    TRIAL: "trial_id run_id run_uuid id trial trial_name run run_name name experiment_id",
    TIME: "training_iteration _step step global_step train/global_step trainer/global_step "
    "iteration iter epoch train/epoch",
    SECONDS: "time_total_s _runtime runtime elapsed elapsed_s seconds relative_time",
}
PARAMETER = {TRIAL: "trial", TIME: "time", SECONDS: "seconds"}  # of `Sweep.from_frame`
PREFIXES = (CONFIG, "config.", "params.", "params_", "param/", "hparams/", "hparams.")
BOOKKEEPING = re.compile(r"_(?!step$|runtime$)|Unnamed: \d+$|timestamp$|$", re.IGNORECASE)
# W&B's charts; a run's name may have " - " in it too
BESIDE = re.compile(r"(?P<trial>.+) - (?P<metric>.+?)(?P<bound>__MIN|__MAX)?$")
NAMING = ("key", "metric", "tag", "metric_name")  # a row per value: what it is of
WORDS = {"nan": math.nan, "inf": math.inf, "infinity": math.inf}  # that are numbers
SHOWN = 6  # columns named in a sentence


class Arranged(NamedTuple):
    """A table with the columns of a sweep."""

    frame: pd.DataFrame
    taken: str  # what was taken for what, a sentence; "" where all had the names of a sweep


def arranged(
    frame: pd.DataFrame,
    *,
    metric: str | None = None,
    trial: str | None = None,
    time: str | None = None,
    seconds: str | None = None,
    config: Iterable[str] = (),
) -> Arranged:
    """The table with the names of a sweep's columns; ValueError where something cannot be found.

    `metric`: what is asked for, which is no hyperparameter. The others: columns named by the user.
    """
    names = [str(name) for name in frame.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"the sweep has the column {twice[0]!r} twice; keep one.")
    frame = frame.set_axis(names, axis=1)
    asked = {TRIAL: trial, TIME: time, SECONDS: seconds}
    config = tuple(config)
    if TRIAL in names and TIME in names and not any(asked.values()) and not config:
        texts = [name for name in _others(names) if _is_text(frame[name])]
        left_out = f"Left out, as text: {_listed(texts)}." if texts else ""
        return Arranged(_numeric(frame.drop(columns=texts)), left_out)
    for name in [*filter(None, asked.values()), *config]:
        if name not in names:
            raise ValueError(f"the sweep has no column {name!r}.{closest(name, names)}")
    if trial is None and _find(frame, TRIAL) is None:
        frame = _beside(frame)
    frame = _one_row_a_time(frame, asked)
    source = {key: asked[key] or _needed(frame, key) for key in (TRIAL, TIME)}
    clock = seconds or _find(frame, SECONDS)
    if clock is not None and (seconds or _rises(frame, clock, source[TRIAL])):
        source[SECONDS] = clock
    return _renamed(frame, source, metric, config)


def _renamed(
    frame: pd.DataFrame, source: dict[str, str], metric: str | None, config: Sequence[str]
) -> Arranged:
    """The columns under a sweep's names, and a sentence that says which they were."""
    time = source[TIME]
    frame = _merged(frame, source[TRIAL], time, source.get(SECONDS))
    columns: dict[str, Any] = {TRIAL: frame[source[TRIAL]]}
    told = [f"Trials by {source[TRIAL]!r}"]
    numbers = _as_numbers(frame[time])
    if (numbers.notna() & (numbers % 1 != 0)).any():  # epochs
        _check_rising(frame, numbers, source)
        columns[TIME] = frame.groupby(source[TRIAL], sort=False, dropna=False).cumcount() + 1
        told.append(f"time: the rows of each, as {time!r} has fractions")
    else:
        columns[TIME] = frame[time]
        told.append(f"time by {time!r}")
    if SECONDS in source:
        columns[SECONDS] = _as_numbers(frame[source[SECONDS]])
        told.append(f"seconds by {source[SECONDS]!r}")
    used = set(source.values()) - ({time} if not time.startswith("_") else set())
    found, left_out = [], []
    several = frame[source[TRIAL]].duplicated().any()
    for name in frame.columns:
        column = frame[name]
        prefix = next((p for p in PREFIXES if name.startswith(p) and name != p), None)
        if name in used or name in (TRIAL, TIME, SECONDS):
            continue
        constant = _is_constant(column, frame[source[TRIAL]])
        if name in config or prefix == CONFIG or (prefix is not None and constant):
            columns[CONFIG + name.removeprefix(prefix or "")] = column
            found.append(name)
        elif BOOKKEEPING.match(name) and name != metric:
            left_out.append(name)
        elif name in (time, metric):
            columns[name] = column
        elif name == STEP and _as_numbers(column).isna().any():
            left_out.append(name)
        elif constant and (several or _is_text(column)):
            columns[CONFIG + name] = column
            found.append(name)
        elif _is_text(column):
            left_out.append(name)
        else:
            columns[name] = column
    words = ", ".join(told) + "."
    words += f" Hyperparameters: {_listed(found)}." if found else ""
    words += f" Left out: {_listed(left_out)}." if left_out else ""
    return Arranged(_numeric(pd.DataFrame(columns)), words)


def names_trials(name: str) -> bool:
    """Whether a column of that name is one that trackers name the trials in."""
    return _plain(name) in NAMES[TRIAL].split()


def _plain(name: str) -> str:
    return name.lower().replace(" ", "_")


def _as_numbers(column: pd.Series) -> pd.Series:
    """The cells as numbers, NaN where they are none; for an integer beyond floats pandas raises."""
    try:
        return pd.to_numeric(column, errors="coerce")
    except OverflowError:
        return pd.Series([_as_float(cell) for cell in column], index=column.index, dtype=float)


def _as_float(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _find(frame: pd.DataFrame, key: str) -> str | None:
    """The column that is known to hold it, or None.

    Of times one without gaps, and of trials one that has some in several rows, if there is one.
    """
    by_name = {_plain(name): name for name in reversed(frame.columns)}
    found = [by_name[name] for name in NAMES[key].split() if name in by_name]
    if key == TIME:
        whole = (n for n in found if _as_numbers(frame[n]).notna().all())
        return next(whole, found[0] if found else None)
    if key == TRIAL:
        shared = (n for n in found if frame[n].duplicated().any())  # "id" may be that of the row
        return next(shared, found[0] if found else None)
    return found[0] if found else None


def _needed(frame: pd.DataFrame, key: str) -> str:
    found = _find(frame, key)
    if found is not None:
        return found
    what = "names the trial of each row" if key == TRIAL else "counts its reports"
    raise ValueError(
        f"the sweep lacks the column {key!r} that {what}, and has none of the names that trackers "
        f"give it ({', '.join(NAMES[key].split()[1:])}). Name it: {PARAMETER[key]}='COLUMN' "
        f"(on the command line --{PARAMETER[key]}). It has: {_listed(list(frame.columns), 20)}."
        + (" Of a single run: frame.assign(trial_id='run')." if key == TRIAL else "")
    )


def _others(names: Iterable[str]) -> list[str]:
    return [name for name in names if name not in KEYS and not name.startswith(CONFIG)]


def _is_text(column: pd.Series[Any]) -> bool:
    """Whether there are cells, and none of them is a number."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        return False
    cells = [cell for cell in column if not _is_null(cell)]
    return bool(cells) and not any(_is_number(cell) for cell in cells)


def _is_null(cell: Any) -> bool:
    return (
        cell is None
        or cell is pd.NA
        or cell is pd.NaT
        or (isinstance(cell, float) and cell != cell)
    )


def _is_number(cell: Any) -> bool:
    if isinstance(cell, str):
        return _word(cell) is not None
    return isinstance(cell, (int, float, complex, np.number, np.bool_)) or hasattr(
        cell, "__float__"
    )


def _word(text: str) -> float | None:
    """ "NaN", "Infinity", "-inf": how JSON and trackers write what JSON lacks."""
    text = text.strip().lower()
    number = WORDS.get(text.lstrip("+-"))
    return -number if number is not None and text.startswith("-") else number


def _numeric(frame: pd.DataFrame) -> pd.DataFrame:
    """With numbers for the words that are numbers."""
    changed = {}
    for name in _others(frame.columns):
        column = frame[name]
        if not pd.api.types.is_numeric_dtype(column.dtype) and any(
            isinstance(cell, str) for cell in column
        ):
            changed[name] = as_objects(
                cell if not isinstance(cell, str) or _word(cell) is None else _word(cell)
                for cell in column
            )
    return frame.assign(**changed) if changed else frame


def as_objects(cells: Iterable[Any]) -> Any:
    """An array in which None and NaN stay what they are."""
    listed = list(cells)
    array = np.empty(len(listed), dtype=object)
    array[:] = listed
    return array


def _is_constant(column: pd.Series[Any], trials: pd.Series[Any]) -> bool:
    """Whether every trial has one value of it, in all its rows or in none."""
    codes = pd.factorize(trials)[0]
    values = pd.factorize(column.astype(str))[0]
    first = pd.Series(values).groupby(codes).transform("first")
    return bool((first == values).all()) and bool(column.notna().any())


def _rises(frame: pd.DataFrame, name: str, trial: str) -> bool:
    """Whether it can be a clock: that of a whole run, in each of its rows, is none."""
    seconds = _as_numbers(frame[name])
    passed = seconds.groupby(frame[trial], sort=False, dropna=False).diff()
    stands = passed.notna().any() and not (passed > 0).any()
    return bool((seconds.dropna() >= 0).any() and not (passed < 0).any() and not stands)


def _check_rising(frame: pd.DataFrame, numbers: pd.Series[Any], source: dict[str, str]) -> None:
    steps = numbers.groupby(frame[source[TRIAL]], sort=False, dropna=False).diff()
    broken = np.flatnonzero(~(steps.isna() | (steps > 0)) | numbers.isna())
    if broken.size:
        row = int(broken[0])
        who, what = frame[source[TRIAL]].iloc[row], frame[source[TIME]].iloc[row]
        raise ValueError(f"row {row} (trial {who!r}): {source[TIME]} must grow, got {what!r}.")


def _merged(frame: pd.DataFrame, trial: str, time: str, clock: str | None) -> pd.DataFrame:
    """Rows of one trial at one time as one, where no metric is in several of them.

    Trackers write a row for the training and one for the evaluation of a step.
    """
    frame = frame.reset_index(drop=True)
    keys = pd.DataFrame({"trial": frame[trial], "time": frame[time]})
    several = keys.duplicated(keep=False) & keys.notna().all(axis=1)
    if not several.any():
        return frame
    groups = keys[several].groupby(["trial", "time"], sort=False).groups
    first = {int(rows[0]): list(map(int, rows)) for rows in groups.values()}
    gone = [row for rows in first.values() for row in rows[1:]]
    clocks, columns = NAMES[SECONDS].split(), {}
    for name in frame.columns:
        cells = list(frame[name])
        for row, rows in first.items():
            found = [cells[each] for each in rows if not _is_null(cells[each])]
            differ = len({str(cell) for cell in found}) > 1
            of_time = name == clock or name.lower() in clocks
            if differ and not of_time and not BOOKKEEPING.match(name):
                return frame  # `cut` says which time is there twice
            nan = [cells[each] for each in rows if isinstance(cells[each], float)]
            cells[row] = found[-1] if found else (nan[0] if nan else cells[row])
        columns[name] = pd.Series(as_objects(cells), dtype=object)
        if frame[name].dtype != object:
            columns[name] = columns[name].astype(frame[name].dtype)
    return pd.DataFrame(columns).drop(index=gone).reset_index(drop=True)


def _beside(frame: pd.DataFrame) -> pd.DataFrame:
    """A chart's export, with a column "RUN - METRIC" per run, as one table of rows by run."""
    cut = {name: match for name in frame.columns if (match := BESIDE.match(name))}
    time = _find(frame.drop(columns=list(cut)), TIME)
    if not cut or time is None:
        return frame
    parts = []
    for trial in dict.fromkeys(match["trial"] for match in cut.values()):
        named = {
            name: match["metric"]
            for name, match in cut.items()
            if match["trial"] == trial and not match["bound"]
        }
        # its step is there once more, by run
        named = {n: m for n, m in named.items() if m.lower() not in NAMES[TIME].split()}
        part = frame[[time, *named]].rename(columns=named)
        filled = np.zeros(len(part), dtype=bool)
        for name in named.values():
            told = part[name].dtype == object  # there, a NaN is no empty cell
            cells = (not _is_null(cell) or (told and cell is not None) for cell in part[name])
            filled |= np.fromiter(cells, dtype=bool, count=len(part))
        parts.append(part[filled].assign(**{TRIAL: trial}))
    return pd.concat(parts, ignore_index=True)


def _one_row_a_time(frame: pd.DataFrame, asked: dict[str, str | None]) -> pd.DataFrame:
    """A table with a row per value (run, step, key, value) as one with a column per metric."""
    by_name = {name.lower(): name for name in frame.columns}
    naming = next((by_name[name] for name in NAMING if name in by_name), None)
    if naming is None or "value" not in by_name or not _is_text(frame[naming]):
        return frame
    trial = asked[TRIAL] or _needed(frame, TRIAL)
    time = asked[TIME] or _needed(frame, TIME)
    rows: dict[tuple[Any, Any], dict[str, Any]] = {}
    for cells in frame.to_dict("records"):
        record = {str(key): cell for key, cell in cells.items()}
        row = rows.setdefault((record[trial], record[time]), {})
        value, name = record.pop(by_name["value"]), str(record.pop(naming))
        if name in row:
            raise ValueError(
                f"trial {record[trial]!r} has {name!r} twice at {time} {record[time]!r}; keep one."
            )
        row |= {key: cell for key, cell in record.items() if key not in row} | {name: value}
    names = dict.fromkeys(name for row in rows.values() for name in row)
    wide = pd.DataFrame(
        {name: as_objects(row.get(name) for row in rows.values()) for name in names}
    )
    order = _as_numbers(wide[time]).argsort(kind="stable")
    return wide.iloc[order].reset_index(drop=True)  # it had one metric after the other


def _listed(names: Sequence[str], most: int = SHOWN) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
