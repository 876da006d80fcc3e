"""Whatever is typed, or stands in a table, is understood or refused as documented."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.safety.hostile import answer, anything, hard, scalars, short_and_long, words
from tests.stand_ins.watched import watched
from tune_stoppers import PatienceStopper, Sweep
from tune_stoppers.backtest.named import build
from tune_stoppers.cli import main
from tune_stoppers.expressions import ExpressionError, parse


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Notes on what is left out are wanted, but not by the thousand."""
    logging.getLogger("tune_stoppers").setLevel(logging.ERROR)
    yield
    logging.getLogger("tune_stoppers").setLevel(logging.NOTSET)


NAMES = [
    "PatienceStopper",
    "DivergenceStopper",
    "BoundASHAScheduler",
    "ASHAScheduler",
    "x",
    "print",
]
KEYWORDS = ["patience", "min_delta", "metric", "mode", "max_t", "grace_period", "factor", "y", "*"]
literals = st.one_of(
    st.builds(repr, anything),
    st.sampled_from(["1e999", "-1", "9" * 5000, "{[]: 1}", "f'{1}'", "x.y", "()", "1+1j", "**{}"]),
)
calls = st.builds(
    lambda name, given: f"{name}({', '.join(f'{k}={v}' for k, v in given)})",
    st.sampled_from(NAMES),
    st.lists(st.tuples(st.sampled_from(KEYWORDS), literals), max_size=2),
)
expressions = st.one_of(
    st.lists(calls, min_size=1, max_size=3).map(" | ".join),
    st.lists(calls, min_size=2, max_size=3).map(" & ".join),
    st.lists(
        st.sampled_from([*NAMES, "(", ")", "|", "&", "=", "'", ",", "3", "\n", "\\", "\x00"])
    ).map(" ".join),
    st.sampled_from(
        ["(" * 300, "-" * 5000 + "1", "x(" * 90, "[" * 9000, "A|" * 3000 + "A", "\ud800"]
    ),
    words,
)


def known(metric: str = "loss", *, patience: Any = 1) -> Any:
    return PatienceStopper(metric, "min", patience=3)


@short_and_long(300)
def test_an_expression_is_understood_or_refused(examples: int) -> None:
    """By `ExpressionError`, of whatever text; a constructor's own errors come through."""

    @hard(examples)
    @given(text=expressions)
    def check(text: str) -> None:
        try:
            names = {"PatienceStopper": known, "x": known}
            answer(lambda: parse(text, names), ExpressionError, at_most=1000)
        except (TypeError, ValueError) as error:  # the constructor's
            if not re.search("needs|argument", str(error)):
                raise

    check()


@pytest.fixture(scope="module")
def recorded() -> Sweep:
    losses = [1 / step for step in range(1, 6)]
    frame = pd.DataFrame(
        {"trial_id": ["a"] * 5, "training_iteration": range(1, 6), "loss": losses, "config/lr": 0.1}
    )
    return Sweep.from_frame(frame, metric="loss", mode="min")


@short_and_long(150)
def test_a_rule_by_name_is_built_or_refused(recorded: Sweep, examples: int) -> None:
    """Every stopper and scheduler, with anything for its keywords: `ValueError` or `TypeError`."""

    @hard(examples)
    @example(text="ASHAScheduler(max_t=1e999)", kind="scheduler")
    @example(text=f"BoundASHAScheduler({10**400})", kind="scheduler")
    @example(text=f"PatienceStopper(patience={10**400})", kind="stopper")
    @given(text=expressions, kind=st.sampled_from(["stopper", "scheduler"]))
    def check(text: str, kind: Any) -> None:
        answer(lambda: build(text, recorded, kind), ValueError, TypeError)

    check()


def whole(value: Any) -> Any:
    """Without half a surrogate pair: neither a table nor a captured stream holds one."""
    return value.replace("\ud800", "?") if isinstance(value, str) else value


def column(rows: int) -> st.SearchStrategy[list[Any]]:
    huge = st.sampled_from([2**53 - 1, 2**62, 2**63, -(2**64)])
    kinds = [st.integers(-2, 9), st.floats(), words, scalars, huge]
    cells = [kind.map(whole) for kind in kinds]
    return st.one_of([st.lists(kind, min_size=rows, max_size=rows) for kind in cells])


@st.composite
def tables(draw: Any) -> dict[str, list[Any]]:
    """A table whose columns are right, odd, or not there."""
    rows = draw(st.integers(0, 4))
    sound = {"trial_id": ["a", "a", "b", "b"][:rows], "training_iteration": [1, 2, 1, 2][:rows]}
    sound |= {"loss": [1.0, 0.5, float("nan"), 1.0][:rows]}
    odd = draw(st.dictionaries(st.sampled_from([*sound, "step", "time_total_s"]), column(rows)))
    config = draw(st.dictionaries(st.sampled_from(["config/lr", "config/", ""]), column(rows)))
    gone = draw(st.sets(st.sampled_from(sorted(sound)), max_size=1))
    return {k: v for k, v in (sound | odd | config).items() if k not in gone or k in odd}


@short_and_long(150)
def test_a_table_is_read_or_refused(tmp_path: Path, examples: int) -> None:
    """A frame, and the same as Parquet with any description: `ValueError`, or curves in order."""

    @hard(examples)
    @given(cells=tables(), described=st.one_of(st.none(), anything, st.just("[" * 10**5)))
    def check(cells: dict[str, list[Any]], described: Any) -> None:
        frame = pd.DataFrame({name: pd.Series(cells[name], dtype=object) for name in cells})
        checked(lambda: Sweep.from_frame(frame))
        checked(lambda: Sweep.from_frame(frame.infer_objects(), nan="missing"))
        try:
            table = pa.table({name: pa.array(cells[name], from_pandas=True) for name in cells})
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            return  # Arrow cannot hold it
        if described is not None:
            text = described if isinstance(described, str) else json.dumps(described)
            metadata = {b"sweep": text.encode("utf-8", "surrogatepass")}
            table = table.replace_schema_metadata(metadata)
        pq.write_table(table, tmp_path / "table.parquet")
        checked(lambda: Sweep.from_parquet(tmp_path / "table.parquet"))

    check()


def checked(read: Any) -> None:
    sweep = answer(read, ValueError)
    if sweep is None:
        return
    assert all((np.diff(curve.iterations) > 0).all() for curve in sweep)
    assert len(sweep.frame) == sweep.reports


@short_and_long(60)
def test_a_damaged_parquet_file_is_refused(tmp_path: Path, recorded: Sweep, examples: int) -> None:
    """`ValueError` or `OSError`: cut short, or with some bytes changed."""
    path = tmp_path / "sound.parquet"
    recorded.to_parquet(path)
    sound = path.read_bytes()
    places = st.lists(st.tuples(st.integers(0, len(sound) - 1), st.integers(0, 255)), max_size=3)

    @hard(examples)
    @given(cut=st.none() | st.integers(0, len(sound)), changed=places)
    def check(cut: int | None, changed: list[tuple[int, int]]) -> None:
        data = bytearray(sound)
        for at, byte in changed:
            data[at] = byte
        path.write_bytes(data[:cut])
        answer(lambda: Sweep.from_parquet(path), ValueError, OSError)

    check()


COMMANDS = ["explain", "report", "best", "stop", "replay", "advise", "--help", "nonsense"]
OPTIONS = ["--metric", "--mode", "--json", "--verify", "--top", "--why", "--stop", "--scheduler"]
OPTIONS += ["--workers", "--seed", "--cost", "--time-attr", "--dataset-size", "--task", "--rules"]
VALUES = ["loss", "min", "max", "-1", "0", "3", "1e9", "flat", "", "../..", "x" * 3000, "SWEEP"]
VALUES += [
    "TABLE",
    "PatienceStopper(3)",
    "BoundASHAScheduler",
    "s3x://a",
    "file:///",
    "classification",
]


@short_and_long(60)
def test_a_command_line_is_done_or_refused(
    tmp_path: Path, recorded: Sweep, capsys: pytest.CaptureFixture[str], examples: int
) -> None:
    """Status 0, 1 or 2, and one line for a mistake, whatever the arguments."""
    folder, table = watched(tmp_path / "sweep"), tmp_path / "table.parquet"
    recorded.to_parquet(table)
    places = {"SWEEP": str(folder), "TABLE": str(table)}
    parts = st.sampled_from([*OPTIONS, *VALUES]) | words.map(whole)

    @hard(examples)
    @given(command=st.sampled_from(COMMANDS), more=st.lists(parts, max_size=4), sound=st.booleans())
    def check(command: str, more: list[str], sound: bool) -> None:
        arguments = [command, *(["SWEEP"] if sound else []), *more]
        output = ["--output", str(tmp_path / "page.html")] if command == "report" else []
        found = [places.get(part, part) for part in arguments] + output
        status = main(found)
        told = capsys.readouterr().err
        assert status in (0, 1, 2)
        if status == 2:
            assert told.startswith("error: ")
            assert told.count("\n") == 1

    check()
