"""Runs of Weights & Biases out of the files that they leave, with and without the library."""

import math
import os
import random
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from tune_stoppers import Sweep
from tune_stoppers.recorded import wandb_log

REAL = (
    Path(__file__).parent / "wandb_0_31"
)  # two runs of wandb 0.31, without what tells of a machine
OBJECTIVE = {"metric": "eval/loss", "mode": "min"}


def written(path: Path, *records: dict, size: int = 10**6) -> Path:
    """A log as W&B writes it; a record longer than a block is in several chunks."""
    kinds = wandb_log._messages()
    data = bytearray(wandb_log.HEADER.pack(wandb_log.IDENT, wandb_log.MAGIC, 0))
    for record in records:
        rest, first = kinds["Record"](**record).SerializeToString(), True
        while rest or first:
            left = wandb_log.BLOCK - len(data) % wandb_log.BLOCK
            if left < wandb_log.CHUNK.size:
                data += bytes(left)
                continue
            part, rest = rest[: left - wandb_log.CHUNK.size], rest[left - wandb_log.CHUNK.size :]
            kind = {(True, False): 1, (True, True): 2, (False, True): 3, (False, False): 4}
            code = kind[first, bool(rest)]
            data += struct.pack(
                "<IHB", zlib.crc32(part, zlib.crc32(bytes([code]))), len(part), code
            )
            data += part
            first = False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data[:size])
    return path


def run(run_id: str, **config) -> dict:
    update = [{"key": key, "value_json": value} for key, value in config.items()]
    return {"run": {"run_id": run_id, "config": {"update": update}}}


def row(step: int, **values: str) -> dict:
    values = {"_step": str(step), "_runtime": str(10.0 * step)} | values
    items = [{"key": key, "value_json": value} for key, value in values.items()]
    return {"history": {"item": items, "step": {"num": step}}}


def test_what_the_library_wrote_is_read():
    """Of wandb 0.31: names, hyperparameters, steps, seconds, nested values, and a NaN."""
    sweep = Sweep.from_wandb(REAL, **OBJECTIVE)
    assert sweep.trial_ids == ["trial-0", "trial-1"]
    assert sweep.configs["trial-1"] == {"lr": 0.3, "model/width": 8}
    assert sweep.metrics == ("eval/loss", "nested.acc", "n", "train/loss")
    curve = sweep.curves[1]
    assert curve.iterations.tolist() == [1, 2, 3, 4, 5]
    assert curve.metrics["train/loss"].tolist() == [3.0 / step for step in range(1, 6)]
    assert curve.missing["eval/loss"].tolist() == [False, True, False, True, False]
    assert math.isnan(curve.metrics["eval/loss"][4])
    assert curve.seconds[0] == 0.595664451
    assert sweep.reading == (
        "2 .wandb files: time by '_step'. eval/loss: 5 of 10 rows have a value, "
        "4 have none, 1 diverged (NaN or infinite)."
    )
    assert Sweep.from_wandb(REAL, nan="missing", **OBJECTIVE).curves[1].missing["eval/loss"][4]
    one = Sweep.from_wandb(REAL / "run-nyqvt90n.wandb", name="mine", target=0.1, **OBJECTIVE)
    assert (len(one), one.name, one.target) == (1, "mine", 0.1)


def test_what_the_library_writes_is_read(tmp_path):
    """Whatever version of it is installed, in its offline mode."""
    pytest.importorskip("wandb", reason="wandb is not installed: pip install wandb")
    code = (
        "import wandb\n"
        "quiet = wandb.Settings(disable_git=True, x_disable_stats=True, console='off')\n"
        "run = wandb.init(project='p', name='t', config={'lr': 0.5}, dir='.', settings=quiet)\n"
        "for step in range(3): run.log({'eval/loss': 1.0 / (step + 1), 'text': 'x'})\n"
        "run.config.update({'late': 1})\n"
        "run.finish()\n"
    )
    offline = os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=offline, check=True)
    sweep = Sweep.from_wandb(tmp_path, **OBJECTIVE)
    assert sweep.curves[0].metrics["eval/loss"].tolist() == [1.0, 0.5, 1 / 3]
    assert sweep.configs == {"t": {"lr": 0.5, "late": 1}}


def test_older_files_and_odd_values(tmp_path):
    """Values as JSON: words for numbers that it lacks, text, pictures, lists; a step of its own."""
    odd = {"a": '"Infinity"', "b": "NaN", "c": '"text"', "d": '{"_type": "image"}', "e": "[1, 2]"}
    odd |= {"f": '{"in": {"deep": 2}}', "g": "true", "h": "nonsense", "_step": "null"}
    written(tmp_path / "run-1.wandb", run("x", lr="0.1", _wandb="{}"), row(3, **odd))
    (curve,) = Sweep.from_wandb(tmp_path).curves
    assert curve.iterations.tolist() == [3]
    values = {name: column.tolist()[0] for name, column in curve.metrics.items()}
    assert math.isnan(values.pop("b"))
    assert values == {"a": math.inf, "f.in.deep": 2.0, "g": 1.0}
    assert curve.config == {"lr": 0.1}


def test_a_resumed_run_is_one_run(tmp_path):
    """Its files follow one another by their time; what it did again counts once."""
    first = [row(step, loss=str(step)) for step in range(1, 8)]
    again = [row(step, loss=str(10 * step)) for step in range(3, 6)]
    written(tmp_path / "run-20260102-x" / "run-x.wandb", run("x", b="2"), *again)
    written(tmp_path / "run-20260101-x" / "run-x.wandb", run("x", a="1", b="1"), *first)
    sweep = Sweep.from_wandb(tmp_path, metric="loss", mode="min")
    assert sweep.curves[0].metrics["loss"].tolist() == [1, 2, 30, 40, 50]
    assert sweep.configs == {"x": {"a": 1, "b": 2}}


def test_records_of_any_length(tmp_path):
    """A record longer than a block, one that ends right before a block does, and what follows."""
    for size in (3 * wandb_log.BLOCK, *range(32_640, 32_720, 7)):
        note = f'"{"x" * size}"'
        path = written(tmp_path / "run-1.wandb", run("x"), row(1, note=note), row(2, loss="1.5"))
        assert Sweep.from_wandb(path).curves[0].metrics["loss"].tolist() == [1.5]


def test_a_file_that_was_cut_off_counts_up_to_there(tmp_path):
    """Wherever that was, and it is said; so with a byte that changed, and with garbage in it."""
    records = [run("x"), *(row(step, loss="1.0") for step in range(1, 30))]
    whole = written(tmp_path / "run-x.wandb", *records).read_bytes()
    path = tmp_path / "run-x.wandb"
    for size in range(len(whole) - 120, len(whole), 11):
        path.write_bytes(whole[:size])
        sweep = Sweep.from_wandb(path)
        assert 26 <= sweep.reports < 29
    assert sweep.reading.startswith(
        "1 .wandb file: time by '_step'. 1 of them ends within a record"
    )
    damaged = bytearray(whole)
    damaged[damaged.index(b"1.0", len(whole) // 2)] = ord("9")  # a number still, the wrong one
    path.write_bytes(damaged)
    (curve,) = Sweep.from_wandb(path).curves
    assert 10 < len(curve) < 29
    assert set(curve.metrics["loss"].tolist()) == {1.0}


HOSTILE = {
    "empty": b"",
    "text": b"hello",
    "another magic": b":W&B" + b"\0" * 100,
    "no run": wandb_log.HEADER.pack(wandb_log.IDENT, wandb_log.MAGIC, 0),
    "a length beyond its end": wandb_log.HEADER.pack(wandb_log.IDENT, wandb_log.MAGIC, 0)
    + b"\xff" * 99,
    "noise": wandb_log.HEADER.pack(wandb_log.IDENT, wandb_log.MAGIC, 0)
    + random.Random(0).randbytes(70_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_log_is_one_error(name, tmp_path):
    """That names the file, or the folder."""
    path = tmp_path / "run-x.wandb"
    path.write_bytes(HOSTILE[name])
    for given in (path, tmp_path):
        with pytest.raises(ValueError, match=r"is no log of W&B|holds no run of W&B"):
            Sweep.from_wandb(given)


def test_a_folder_without_runs_and_a_path_that_is_not_there(tmp_path):
    """Each is said; a link out of the folder is not followed."""
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    inside.mkdir()
    shutil.copytree(REAL, outside)
    (inside / "run-x.wandb").symlink_to(outside / "run-nyqvt90n.wandb")
    with pytest.raises(ValueError, match="holds no run of W&B"):
        Sweep.from_wandb(inside, **OBJECTIVE)
    with pytest.raises(ValueError, match="there is nothing at"):
        Sweep.from_wandb(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="nan must be 'auto'"):
        Sweep.from_wandb(REAL, nan="hole")


def test_a_table_from_the_web_page_is_read_as_one(tmp_path):
    """The export of a chart."""
    path = tmp_path / "wandb_export.csv"
    path.write_text("Step,sage-1 - eval/loss,dust-2 - eval/loss\n0,1.0,2.0\n1,0.5,\n")
    sweep = Sweep.from_wandb(path, **OBJECTIVE)
    assert sweep.trial_ids == ["sage-1", "dust-2"]
