"""Runs of TensorBoard out of their event files."""

import struct
from pathlib import Path

import pytest
from tensorboardX import SummaryWriter
from tensorboardX.crc32c import crc32c
from tensorboardX.proto import event_pb2

from tune_stoppers import Sweep
from tune_stoppers.recorded import tensorboard_log

OBJECTIVE = {"metric": "eval/loss", "mode": "min"}


def write(
    folder: Path, values: dict[str, dict[int, float]], hparams=None, start: float = 1e9
) -> None:
    """A run as a writer of TensorBoard leaves it; a step takes a second."""
    with SummaryWriter(str(folder)) as writer:
        if hparams is not None:
            writer.add_hparams(hparams, {"hparam/best": 1.0}, name="1795809271.63")
        for tag, by_step in values.items():
            for step, value in by_step.items():
                writer.add_scalar(tag, value, step, walltime=start + step)


def events(path: Path, *made: event_pb2.Event) -> Path:
    """An event file of these events."""
    data = b""
    for event in made:
        message = event.SerializeToString()
        head = struct.pack("<Q", len(message))
        masked = crc32c(head)
        masked = (((masked >> 15) | (masked << 17)) + 0xA282EAD8) & 0xFFFFFFFF
        data += head + struct.pack("<I", masked) + message + b"sums"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def scalar(tag: str, step: int, value: float, time: float = 0.0) -> event_pb2.Event:
    event = event_pb2.Event(wall_time=time, step=step)
    event.summary.value.add(tag=tag, simple_value=value)
    return event


def test_a_folder_of_runs(tmp_path):
    """A run for each folder, its hyperparameters from what `add_hparams` wrote below it."""
    for number in (1, 2):
        values = {"train/loss": {1: 3.0, 2: 2.0, 3: 1.5}, "eval/loss": {2: 1.0 / number}}
        write(tmp_path / "runs" / f"trial-{number}", values, {"lr": number / 4, "optim": "adamw"})
    sweep = Sweep.from_tensorboard(tmp_path, **OBJECTIVE)
    assert sweep.trial_ids == ["runs/trial-1", "runs/trial-2"]
    assert sweep.configs["runs/trial-2"] == {"lr": 0.5, "optim": "adamw"}
    assert sweep.metrics == ("train/loss", "eval/loss")
    assert [row.get("eval/loss") for row in sweep.curves[1].rows()] == [None, 0.5, None]
    assert sweep.reading.startswith("4 event files: time by its step, seconds by its wall time.")
    (one,) = Sweep.from_tensorboard(tmp_path / "runs" / "trial-1").curves
    assert one.trial_id == "trial-1"
    (file,) = (tmp_path / "runs" / "trial-1").glob("*tfevents*")
    assert Sweep.from_tensorboard(file).trial_ids == ["trial-1"]


def test_what_torch_writes_is_read(tmp_path):
    """With TensorBoard's own writer, and a NaN."""
    reason = "TensorBoard is not installed: pip install tensorboard"
    pytest.importorskip("tensorboard", reason=reason)
    from torch.utils.tensorboard import SummaryWriter as Torchs

    with Torchs(str(tmp_path)) as writer:
        for step in range(3):
            writer.add_scalar("eval/loss", [1.0, float("nan"), 0.5][step], step)
    (curve,) = Sweep.from_tensorboard(tmp_path, **OBJECTIVE).curves
    assert repr(curve.metrics["eval/loss"].tolist()) == "[1.0, nan, 0.5]"


def test_the_parts_of_a_keras_run_are_one_run(tmp_path):
    """`train` and `validation` before the metric; scalars are tensors there."""
    for part in ("train", "validation"):
        made = []
        for step, value in enumerate((2.0, 1.0)):
            event = event_pb2.Event(wall_time=float(step), step=step)
            tensor = event.summary.value.add(tag="epoch_loss").tensor
            tensor.dtype = 1
            if part == "train":
                tensor.float_val.append(value)
            else:
                tensor.tensor_content = struct.pack("<f", value / 2)
            odd = event.summary.value.add(tag="picture").tensor
            odd.dtype, odd.tensor_content = 1, b"odd"
            made.append(event)
        events(tmp_path / "a" / part / "events.out.tfevents.1", *made)
    sweep = Sweep.from_tensorboard(tmp_path, metric="validation/epoch_loss", mode="min")
    assert sweep.trial_ids == ["a"]
    assert sweep.metrics == ("train/epoch_loss", "validation/epoch_loss")
    assert sweep.curves[0].metrics["validation/epoch_loss"].tolist() == [1.0, 0.5]


def test_a_keras_run_with_hyperparameters_is_one_run(tmp_path):
    """Its HParams callback writes into the folder above `train` and `validation`."""
    for part, value in (("train", 2.0), ("validation", 1.0)):
        write(tmp_path / "run-0" / part, {"epoch_loss": {0: value, 1: value / 2}})
    write(tmp_path / "run-0", {}, {"lr": 0.5})
    sweep = Sweep.from_tensorboard(tmp_path, metric="validation/epoch_loss", mode="min")
    assert sweep.configs == {"run-0": {"lr": 0.5}}
    assert sweep.curves[0].metrics["validation/epoch_loss"].tolist() == [1.0, 0.5]


def test_curves_that_were_drawn_together_are_of_one_run(tmp_path):
    """`add_scalars` has a folder for each: "loss_train" by PyTorch, "loss/train" by tensorboardX,
    both with the tag "loss"; a folder that is a run of its own stays one."""
    for number, shape in enumerate(("{}_{}", "{}/{}")):
        run = tmp_path / f"trial-{number}"
        write(run, {"acc": {1: 0.5}}, {"lr": 0.5})
        for key in ("train", "val"):
            write(run / shape.format("loss", key), {"loss": {1: 1.0 + number}})
    write(tmp_path / "trial-0" / "again", {"loss": {1: 9.0}})
    sweep = Sweep.from_tensorboard(tmp_path, metric="loss/val", mode="min")
    assert sweep.configs == {"trial-0": {"lr": 0.5}, "trial-1": {"lr": 0.5}}
    assert sweep.metrics == ("acc", "loss/train", "loss/val")
    own = Sweep.from_tensorboard(tmp_path / "trial-0" / "again", metric="loss", mode="min")
    assert own.trial_ids == ["again"]


def test_a_run_that_was_resumed(tmp_path):
    """Two files: what it did again counts once, and the time between them is none."""
    for number, (steps, start) in enumerate([((1, 2, 3, 5), 0.0), ((2, 3, 4), 1000.0)]):
        made = [scalar("loss", step, step + 10.0 * number, start + step) for step in steps]
        events(tmp_path / f"events.out.tfevents.{number}", *made)
    (curve,) = Sweep.from_tensorboard(tmp_path).curves
    assert curve.metrics["loss"].tolist() == [1.0, 12.0, 13.0, 14.0]
    assert curve.seconds.tolist() == [0.0, 4.0, 5.0, 6.0]


def test_a_file_that_was_cut_off_counts_up_to_there(tmp_path):
    """Wherever that was, and it is said."""
    path = events(tmp_path / "x.tfevents", *(scalar("loss", step, 1.0) for step in range(20)))
    whole = path.read_bytes()
    for size in range(len(whole) - 60, len(whole), 7):
        path.write_bytes(whole[:size])
        sweep = Sweep.from_tensorboard(path)
        assert 17 <= sweep.reports < 20
        assert "1 of them ends within a record, and count" in sweep.reading
    path.write_bytes(whole[:-9] + b"\xff" * 5 + whole[-4:])
    assert Sweep.from_tensorboard(path).reports == 19


HOSTILE = {
    "empty": b"",
    "text": b"hello, this is no event file",
    "a length beyond its end": struct.pack("<QI", 2**60, 0) + b"x" * 50,
    "short": b"\0" * 5,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_event_file_is_one_error(name, tmp_path):
    """That names the file."""
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(ValueError, match=r"is no event file of TensorBoard|is empty; it needs"):
        Sweep.from_tensorboard(tmp_path)


def test_hyperparameters_that_are_none(tmp_path):
    """Garbage where they should be is left out."""
    event = event_pb2.Event(step=1)
    value = event.summary.value.add(tag=tensorboard_log.SESSION)
    value.metadata.plugin_data.content = b"\xff\xff\xff"
    events(tmp_path / "x.tfevents", event, scalar("loss", 1, 1.0, float("nan")))
    (curve,) = Sweep.from_tensorboard(tmp_path).curves
    assert (curve.config, curve.seconds) == ({}, None)


def test_a_folder_without_event_files(tmp_path):
    """Says so."""
    with pytest.raises(ValueError, match="holds no event files of TensorBoard"):
        Sweep.from_tensorboard(tmp_path)
