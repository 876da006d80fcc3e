"""The on-disk format: it gives back what was written, and refuses what is not whole."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tune_stoppers import load_state, save_state
from tune_stoppers.training.state_files import (
    Snapshot,
    StateFileError,
    decode,
    encode,
    read_state,
    write_state,
)

FILES = {"weights.safetensors", "training.safetensors", "state.json", "manifest.json"}


@pytest.fixture
def state(tmp_path):
    """A whole state of a linear layer."""
    folder = tmp_path / "state"
    save_state(folder, nn.Linear(3, 2))
    return folder


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# -- giving back -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        2**70,
        0.1,
        math.inf,
        -math.inf,
        "text",
        [1, [2.5, None]],
        (1, ("a", [])),
        {"a": {"b": 1}},
        {0: "int key", "0": "its string", None: 1, (1, 2): 3},
        {"$tensor": "a key that looks like a tag"},
        {"$dict": [1], "other": 2},
    ],
    ids=repr,
)
def test_plain_values_come_back_equal_and_of_their_type(value):
    """Numbers, strings and containers survive strict JSON, with the types of keys and tuples."""
    text = json.dumps(encode(value, "extra", {}), allow_nan=False)
    assert repr(decode(json.loads(text), {})) == repr(value)


def test_nan_comes_back():
    """NaN survives strict JSON."""
    assert math.isnan(decode(json.loads(json.dumps(encode(math.nan, "", {}))), {}))


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]
)
def test_extra_tensors_come_back_bit_for_bit(tmp_path, dtype):
    """Tensors in `extra` keep dtype, shape and bits; so do views that share memory."""
    whole = (torch.arange(12) % 5).reshape(3, 4).to(dtype)
    extra = {"whole": whole, "same": whole, "row": whole[1], "turned": whole.T, "one": whole[0, 1]}
    save_state(tmp_path / "state", nn.Linear(1, 1), **extra)
    back = load_state(tmp_path / "state", nn.Linear(1, 1))
    assert back.keys() == extra.keys()
    for name, tensor in extra.items():
        assert back[name].dtype == dtype and torch.equal(back[name], tensor)


def test_paths_that_look_alike_stay_apart(tmp_path):
    """A dot in a key does not make two tensors one."""
    extra = {"a.b": torch.tensor(1), "a": {"b": torch.tensor(2)}}
    save_state(tmp_path / "state", nn.Linear(1, 1), **extra)
    assert load_state(tmp_path / "state", nn.Linear(1, 1)) == extra


def test_arrays_come_back_as_arrays(tmp_path):
    """numpy arrays of numbers survive with their dtype, numpy scalars as numbers."""
    extra = {"seeds": np.arange(4, dtype=np.uint32), "loss": np.float64(0.1)}
    save_state(tmp_path / "state", nn.Linear(1, 1), **extra)
    back = load_state(tmp_path / "state", nn.Linear(1, 1))
    assert back["seeds"].dtype == np.uint32 and back["seeds"].tolist() == [0, 1, 2, 3]
    assert back["loss"] == 0.1


def test_what_cannot_be_kept_is_named_and_nothing_is_written(tmp_path):
    """An object of another kind is an error with its path, before anything is on the disk."""
    with pytest.raises(TypeError, match=r"extra\.deep\.0: .* got object"):
        save_state(tmp_path / "state", nn.Linear(1, 1), deep=[object()])
    assert list(tmp_path.iterdir()) == []


# -- the folder --------------------------------------------------------------------------------


def test_a_state_is_four_files_and_weights_that_safetensors_reads(state):
    """The weights file is an ordinary safetensors file with the model's own names."""
    assert {path.name for path in state.iterdir()} == FILES
    assert set(load_file(state / "weights.safetensors")) == {"weight", "bias"}


def test_every_file_is_as_readable_as_any_other(state):
    """On shared storage a colleague can read all four files or none."""
    assert len({path.stat().st_mode for path in state.iterdir()}) == 1


def test_an_empty_folder_may_be_filled_and_a_full_one_not(tmp_path, state):
    """A state never overwrites anything: the folder must be new or empty."""
    (tmp_path / "empty").mkdir()
    save_state(tmp_path / "empty", nn.Linear(3, 2))
    before = (state / "manifest.json").read_bytes()
    with pytest.raises(FileExistsError, match="is not empty"):
        save_state(state, nn.Linear(3, 2))
    assert (state / "manifest.json").read_bytes() == before


def test_snapshots_are_equal_after_the_disk(tmp_path):
    """What `read_state` returns is what `write_state` was given."""
    snapshot = Snapshot(
        weights={"a": torch.arange(3.0)},
        tied={"b": "a"},
        module_extra={"c._extra_state": {"scale": 2.0}},
        trainable_only=True,
        optimizer={"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]},
        rng={"python": (3, (1, 2), None)},
    )
    write_state(snapshot, tmp_path / "state")
    assert repr(read_state(tmp_path / "state")) == repr(snapshot)


# -- refusing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_file_is_named(state, name):
    """A state that lacks one of its files is refused, naming the file."""
    (state / name).unlink()
    with pytest.raises(StateFileError, match=f"{name}: .*not there"):
        read_state(state)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_torn_file_is_named(state, name):
    """A file cut in half is refused, naming the file."""
    content = (state / name).read_bytes()
    (state / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(StateFileError, match=f"{name}: torn"):
        read_state(state)


@pytest.mark.parametrize("name", sorted(FILES - {"manifest.json"}))
def test_one_changed_byte_is_found(state, name):
    """A file of the right size but other content is refused, naming the file."""
    content = bytearray((state / name).read_bytes())
    content[-2] ^= 1
    (state / name).write_bytes(content)
    with pytest.raises(StateFileError, match=f"{name}: its SHA-256"):
        read_state(state)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"format": "something else"}, "not a training state: format is 'something else'"),
        ({"version": 2}, "format version 2, newer than 1, .* update tune_stoppers"),
        ({"version": "1"}, "version must be a positive int, got '1'"),
        ({"files": None}, "lists no files"),
    ],
)
def test_a_foreign_or_newer_manifest_is_refused(state, changes, why):
    """The manifest's format and version are checked before anything else is read."""
    edit_json(state / "manifest.json", **changes)
    with pytest.raises(StateFileError, match=rf"manifest\.json: .*{why}"):
        load_state(state, nn.Linear(3, 2))


def test_a_folder_that_is_no_state_is_refused(tmp_path):
    """An empty or absent folder holds no state, and the error says where it looked."""
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(StateFileError, match=r"manifest\.json: not there"):
            read_state(folder)


def test_a_state_error_is_a_value_error():
    """Callers may catch what they know."""
    assert issubclass(StateFileError, ValueError)
