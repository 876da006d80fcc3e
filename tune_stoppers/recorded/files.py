"""Files of recorded sweeps, Parquet and CSV, as data frames that tell empty cells from NaN.

Where a file tells the two apart, a frame does so too: its column holds objects, None where a cell
is empty.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tune_stoppers.journal.lines import parsed
from tune_stoppers.recorded.exported import as_objects, names_trials

DESCRIPTION_KEY = b"sweep"
KINDS: dict[str, Any] = {  # of the description
    "name": str,
    "primary": str,
    "mode": str,
    "metrics": dict,
    "target": (int, float),
    "surrogate": bool,
    "nulls": bool,
}
EMPTY = frozenset({"", "null", "none", "na", "n/a", "<na>"})  # texts, in lower case
SEPARATORS = ",;\t"


def is_parquet(path: str | os.PathLike[str]) -> bool:
    """Whether the file begins as one."""
    with open(path, "rb") as file:
        return file.read(4) == b"PAR1"


def is_csv(path: str | os.PathLike[str]) -> bool:
    """Whether the file is called one: .csv, .tsv, also compressed with gzip."""
    return os.fspath(path).lower().removesuffix(".gz").endswith((".csv", ".tsv"))


def parquet_table(path: str | os.PathLike[str]) -> pa.Table:
    """A file's table; `ValueError` or `OSError` where Arrow cannot read it."""
    try:
        return pq.read_table(path)
    except pa.ArrowNotImplementedError as error:  # what a damaged file may ask for
        raise ValueError(f"{os.fspath(path)!r} cannot be read: {error}") from error


def frame_of(table: pa.Table) -> pd.DataFrame:
    """The table as a frame, nulls of numbers as None.

    Not those of a column of floats that pandas wrote: it writes null for NaN too.
    """
    frame: pd.DataFrame = table.to_pandas()
    by_pandas = _floats_of_pandas(table.schema)
    for name in table.column_names:
        column = table[name] if table.column_names.count(name) == 1 else None
        if column is None or not column.null_count or name in by_pandas or name not in frame:
            continue
        kind = column.type
        if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
            empty = column.is_null().to_numpy()
            cells = zip(frame[name].tolist(), empty, strict=True)
            frame[name] = as_objects(None if gone else cell for cell, gone in cells)
    return frame


def described(schema: pa.Schema, path: str | os.PathLike[str]) -> dict[str, Any]:
    """What the source of a sweep says of it; ValueError if that is no description."""
    text = (schema.metadata or {}).get(DESCRIPTION_KEY, b"{}")
    try:
        said = parsed(text.decode())
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: its description is no JSON: {error}") from error
    if not isinstance(said, dict):
        raise ValueError(f"{os.fspath(path)}: its description is no JSON object.")
    for key, kinds in KINDS.items():
        if not isinstance(said.get(key), (kinds, NoneType)):
            raise ValueError(f"{os.fspath(path)}: {key!r} of its description: {said[key]!r}")
    return said


def config_array(cells: list[Any]) -> pa.Array:
    """A column of one type; where a hyperparameter has values of several, all become text."""
    try:
        return pa.array(cells, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if cell is None else str(cell) for cell in cells])


def csv_frame(path: str | os.PathLike[str], trial: str | None = None) -> pd.DataFrame:
    """A CSV file, also one with ";" or tabs, or compressed with gzip.

    A column of numbers becomes one of objects: None where the cell is empty (or null, None, NA),
    NaN where it says so. The column of the trials, `trial` or one that is called so, stays text:
    the run "3e10" is no number. Raises ValueError where it is no table, or has no rows.
    """
    path = Path(path).expanduser()
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        try:
            header = file.readline()
            separator = max(SEPARATORS, key=header.count)
            names = next(csv.reader([header], delimiter=separator), [])
            rows = list(csv.reader(file, delimiter=separator))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path} is no CSV file: {error}") from error
    rows = [row for row in rows if row]
    if not names or not rows:
        raise ValueError(f"{path} has no rows.")
    for number, row in enumerate(rows):
        if len(row) != len(names):
            raise ValueError(
                f"{path}: row {number} has {len(row)} cells, and there are {len(names)} columns."
            )
    columns = zip(names, zip(*rows, strict=True), strict=True)
    cells = [
        pd.Series(
            _texts(cells) if name == trial or names_trials(name) else _cells(cells), name=name
        )
        for name, cells in columns
    ]
    return pd.concat(cells, axis=1)


def _texts(texts: tuple[str, ...]) -> Any:
    """Only what is empty is so: a run may be called "none", and a schedule be "None"."""
    return as_objects(text if text.strip() else None for text in texts)


def _cells(texts: tuple[str, ...]) -> Any:
    """Numbers where every cell is one or empty, whole ones as integers; else the texts."""
    empty = [text.strip().lower() in EMPTY for text in texts]
    numbers: list[Any] = []
    for text, gone in zip(texts, empty, strict=True):
        number = None if gone else number_in(text)
        if number is None and not gone:
            return _texts(texts)
        numbers.append(number)
    if any(empty) or any(number != number for number in numbers):
        return as_objects(numbers)
    return np.array(numbers)


def number_in(text: str) -> int | float | None:
    """The number that a text is, whole ones as integers; None where it is none."""
    if "_" in text:
        return None  # Python reads 1_000
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def _floats_of_pandas(schema: pa.Schema) -> frozenset[str]:
    """The columns that were floats of numpy's in the frame that pandas wrote."""
    text = (schema.metadata or {}).get(b"pandas", b"{}")
    try:
        columns = json.loads(text).get("columns", ())
        return frozenset(
            str(column["name"]) for column in columns if column["numpy_type"].startswith("float")
        )
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        return frozenset()
