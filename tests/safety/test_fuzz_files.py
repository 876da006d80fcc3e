"""Whatever a file of an experiment says, its readers give an answer or their documented error."""

import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.safety.hostile import answer, anything, hard, mutated, short_and_long, words
from tests.stand_ins.watched import journal_of, watched, write_results
from tune_stoppers import Sweep, best_states, explain
from tune_stoppers.cli import main
from tune_stoppers.core import Rule, SweepRule
from tune_stoppers.journal.layout import read_requests, read_state, state_text
from tune_stoppers.journal.lines import parse_lines
from tune_stoppers.journal.recorder import Recorder
from tune_stoppers.journal.spec import from_spec, in_words, to_spec
from tune_stoppers.report import experiment_story
from tune_stoppers.report.data.explain import Explained, verify
from tune_stoppers.report.html.page import page
from tune_stoppers.rules import AnyOf, Divergence, Patience
from tune_stoppers.rules.sweep.bound_asha import BoundASHA
from tune_stoppers.rules.sweep.rollback import Rollback

LOCAL = pafs.LocalFileSystem()
RULES = [AnyOf(Patience(2), Divergence()), BoundASHA(max_t=20), Rollback()]


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """Notes on what is left out are wanted, but not by the thousand."""
    logging.getLogger("tune_stoppers").setLevel(logging.ERROR)
    yield
    logging.getLogger("tune_stoppers").setLevel(logging.NOTSET)


def fuzz(examples: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], object]) -> None:
    hard(examples)(given(strategy)(lambda drawn: (check(drawn), None)[1]))()


def torn(texts: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    """These texts as bytes; some cut short, some with a byte changed."""
    return st.builds(
        lambda text, cut, at, byte: _damage(text.encode("utf-8", "surrogatepass"), cut, at, byte),
        texts,
        st.none() | st.integers(0, 400),
        st.none() | st.integers(0, 400),
        st.integers(0, 255),
    )


def _damage(text: bytes, cut: int | None, at: int | None, byte: int) -> bytes:
    text = text[:cut]
    if at is None or at >= len(text):
        return text
    return text[:at] + bytes([byte]) + text[at + 1 :]


json_texts = st.one_of(st.builds(json.dumps, anything), words, st.just("[" * 5000))


@short_and_long(150)
def test_a_state_file_is_read_or_refused(tmp_path: Path, examples: int) -> None:
    """`ValueError` with the file's name, whatever the bytes, the checksum right or wrong."""
    path = tmp_path / "state-000001.json"
    bodies = st.fixed_dictionaries({"lines": anything, "state": anything})
    texts = st.one_of(json_texts, st.builds(state_text, bodies | st.dictionaries(words, anything)))

    def check(data: bytes) -> None:
        path.write_bytes(data)
        body = answer(lambda: read_state(LOCAL, str(path)), ValueError, told=str(path))
        assert body is None or isinstance(body["lines"], int)
        Recorder(LOCAL, str(tmp_path)).read()

    fuzz(examples, torn(texts), check)


@short_and_long(150)
def test_requests_are_texts_or_nothing(tmp_path: Path, examples: int) -> None:
    """What says nothing sensible is left out."""

    def check(data: bytes) -> None:
        (tmp_path / "a.json").write_bytes(data)
        assert all(isinstance(why, str) for why in read_requests(LOCAL, str(tmp_path)).values())

    fuzz(examples, torn(json_texts | st.builds(lambda v: json.dumps({"why": v}), anything)), check)


@short_and_long(200)
def test_lines_are_objects_or_left_out(examples: int) -> None:
    """Of any text; what is left can be written again."""

    def check(data: bytes) -> None:
        for line in parse_lines(data.decode("utf-8", "replace"), "here"):
            assert isinstance(line, dict)
            json.dumps(line, ensure_ascii=False).encode()

    fuzz(examples, torn(st.lists(json_texts, max_size=4).map("\n".join)), check)


def read_in_every_way(folder: Path, metric: str = "loss") -> None:
    """Every reader of an experiment; `ValueError` is how they refuse."""
    for read in (
        lambda: best_states(folder, metric, "min"),
        lambda: explain(folder),
        lambda: page(experiment_story(folder, metric, "min")).encode(),
        lambda: Sweep.from_ray(folder, metric=metric, mode="min").frame,
    ):
        answer(read, ValueError)


@short_and_long(40)
def test_results_are_read_or_refused(examples: int) -> None:
    """Rows of `result.json` and of `params.json` with anything in them."""
    with tempfile.TemporaryDirectory() as name:
        folder = write_results(Path(name) / "sweep") / "train_falling_1"
        (folder / "checkpoint_000001").mkdir()
        rows = [json.loads(row) for row in (folder / "result.json").read_text().splitlines()]
        more = {"checkpoint_dir_name": "checkpoint_000001", "checkpoint_path": str(folder)}
        more |= {"stop_reason": "X: y", "time_total_s": 3.0, "time_this_iter_s": 1.0, "step": 4}
        more |= {"pid": 1, "hostname": "n", "time_since_restore": 1.0, "progress": 0.5}
        more |= {"iterations_since_restore": 1, "would_stop_reason": "no"}

        def check(drawn: tuple[dict[str, Any], Any]) -> None:
            row, config = drawn
            texts = [json.dumps(each) + "\n" for each in (*rows, row)]
            (folder / "result.json").write_text("".join(texts))
            (folder / "params.json").write_text(json.dumps(config))
            read_in_every_way(folder.parent)

        fuzz(examples, st.tuples(mutated(rows[-1] | more), anything), check)


@short_and_long(40)
def test_journals_are_read_or_refused(capsys: pytest.CaptureFixture[str], examples: int) -> None:
    """Their lines with anything in them, by every reader and by the command."""
    with tempfile.TemporaryDirectory() as name:
        folder = watched(Path(name) / "sweep")
        (path,) = folder.glob("tune_stoppers/*/journal-*")
        lines = journal_of(AnyOf(Patience(2), Divergence()), "PatienceStopper")
        for place in folder.glob("train_*"):
            (place / "checkpoint_000001").mkdir()
        extra = {"event": "saved again", "trials": ["flat"], "since": 1, "step": 2.0}
        extra |= {"checkpoint": "checkpoint_000001", "clocks": {"time_total_s": 3.0}}
        extra |= {"metrics": {"a": 1.0}, "dry_run": True, "ends_sweep": True, "config": "x"}
        drawn = st.lists(
            st.one_of(
                mutated(lines[0]),
                mutated(lines[-1]),
                mutated(lines[-1] | extra),
                mutated({"time": 1.0, "trial": "flat"} | extra),
            ),
            min_size=1,
            max_size=3,
        )

        def check(odd: list[dict[str, Any]]) -> None:
            texts = [json.dumps(line) + "\n" for line in (odd[0], *lines, *odd[1:])]
            path.write_text("".join(texts))
            read_in_every_way(folder)
            for arguments in ([], ["flat"], ["--verify"], ["falling", "--json"]):
                assert main(["explain", str(folder), *arguments]) in (0, 1, 2)
            for run in Explained.at(folder).runs:
                assert verify(run).run is run
            capsys.readouterr()

        fuzz(examples, drawn, check)


@short_and_long(300)
def test_a_rule_is_built_or_refused(examples: int) -> None:
    """A spec with anything in it gives a rule, or `ValueError`; and words, always."""
    specs = st.one_of([mutated(to_spec(rule)) for rule in RULES])
    tags = st.sampled_from(["$float", "$pairs", "$foreign", "class"])
    tagged = st.dictionaries(tags, anything | specs, max_size=2)

    def check(spec: Any) -> None:
        rule = answer(lambda: from_spec(spec), ValueError)
        assert rule is None or isinstance(rule, (Rule, SweepRule))
        assert isinstance(in_words(spec), str)

    def nested(inner: Any) -> dict[str, Any]:
        return {"class": "AnyOf", "children": [inner, inner], "x": inner}

    fuzz(examples, st.one_of(specs, anything, tagged, tagged.map(nested)), check)
