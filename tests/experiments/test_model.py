"""The model of the sweeps: prepared once and whole, loaded or refused in one line, measured."""

import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    default_data_collator,
)

from experiments import model as subject
from experiments.docpairs import Pair, encode
from experiments.model import (
    MODEL_FOLDER,
    ModelError,
    add_lora,
    is_whole,
    load,
    main,
    prepare,
    sample,
)


def _tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({f"w{i}": i for i in range(32)}, unk_token="w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="w0", eos_token="w1")


def _llama(**changes: Any) -> LlamaForCausalLM:
    """A real Llama with random weights, small enough to run in milliseconds."""
    size = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**size, **heads, "pad_token_id": 0, **changes}))


def _rows(*lengths: int) -> list[dict[str, list[int]]]:
    """Rows with a one-word prompt and completions of these lengths, at most 10 words."""
    words = [" ".join(f"w{2 + (7 * n + i) % 30}" for i in range(n)) for n in lengths]
    return encode([Pair("w5", text) for text in words], _tokenizer(), 12)


@pytest.fixture(scope="module")
def real() -> tuple[Any, Any]:
    """SmolLM2 from the shared cache; the first run on a machine converts it there."""
    return load(prepare())


# --- prepare ----------------------------------------------------------------------------------


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Conversions that take no time, each listed: what is tested is all that is around them."""
    made: list[Path] = []

    def convert(folder: Path) -> None:
        made.append(folder)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(bytes(1000))

    monkeypatch.setattr(subject, "convert", convert)
    return made


def test_the_model_is_converted_once(tmp_path: Path, conversions: list[Path]) -> None:
    """A second call finds the first one's folder, and nothing unfinished lies beside it."""
    folder = prepare(tmp_path / "not" / "there" / "yet")
    assert prepare(folder.parent) == folder
    assert len(conversions) == 1
    assert is_whole(folder)
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [MODEL_FOLDER]


@pytest.mark.parametrize("damage", ["truncated", "missing", "no manifest", "torn manifest"])
def test_a_torn_folder_is_made_again(tmp_path: Path, conversions: list[Path], damage: str) -> None:
    """A folder that lacks a file, or part of one, is never taken for the model."""
    folder = prepare(tmp_path)
    if damage == "truncated":
        (folder / "model.safetensors").write_bytes(bytes(999))
    elif damage == "missing":
        (folder / "config.json").unlink()
    elif damage == "no manifest":
        (folder / "conversion.json").unlink()
    else:
        (folder / "conversion.json").write_text('{"bytes": {"con')
    assert not is_whole(folder)
    assert is_whole(prepare(tmp_path))
    assert len(conversions) == 2


def test_an_interrupted_conversion_leaves_no_model(
    tmp_path: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill half-way there is no folder of that name, and the next call makes it."""
    whole = subject.convert

    def killed(folder: Path) -> None:
        whole(folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(subject, "convert", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path)
    assert not (tmp_path / MODEL_FOLDER).exists()
    monkeypatch.setattr(subject, "convert", whole)
    assert is_whole(prepare(tmp_path))


def test_many_at_once_convert_once(tmp_path: Path, conversions: list[Path]) -> None:
    """One converts while the others wait, and all get the same folder."""
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(prepare, [tmp_path] * 8))
    assert folders == {tmp_path / MODEL_FOLDER}
    assert len(conversions) == 1


def test_the_cache_is_where_the_user_says(
    tmp_path: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TUNE_STOPPERS_CACHE comes before XDG_CACHE_HOME, and that before ~/.cache."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("TUNE_STOPPERS_CACHE", raising=False)
    assert prepare().parent == tmp_path / "home/.cache/tune_stoppers"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert prepare().parent == tmp_path / "xdg/tune_stoppers"
    monkeypatch.setenv("TUNE_STOPPERS_CACHE", str(tmp_path / "own"))
    assert prepare().parent == tmp_path / "own"


def test_a_cache_that_cannot_be_written_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command names the folder and what to set, and ends with status 2."""
    (tmp_path / "file").write_text("in the way")
    assert main(["--cache", str(tmp_path / "file")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: cannot write the model to {tmp_path / 'file'}: ")
    assert "set TUNE_STOPPERS_CACHE" in error
    assert error.count("\n") == 1


def test_the_command_prints_one_line(
    tmp_path: Path, conversions: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Folder, seconds and size."""
    assert main(["--cache", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(rf"model ready in \d\.\d s: {tmp_path / MODEL_FOLDER} \(\d+ MB\)\n", out)
    assert err == ""


def test_the_real_conversion_carries_its_licence() -> None:
    """Licence text and notice of change lie beside the weights."""
    folder = prepare()
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert "expanded to bfloat16" in (folder / "NOTICE").read_text()
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())


# --- load -------------------------------------------------------------------------------------


def test_a_saved_model_is_loaded_in_the_type_asked_for(tmp_path: Path) -> None:
    """Any folder of save_pretrained will do."""
    saved = _llama()
    saved.save_pretrained(tmp_path)
    _tokenizer().save_pretrained(tmp_path)
    loaded, tokenizer = load(tmp_path, torch.float32)
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded.lm_head.weight, saved.lm_head.weight)
    assert tokenizer("w3 w4")["input_ids"] == [3, 4]
    assert load(tmp_path)[0].dtype == torch.bfloat16


def test_a_missing_folder_is_one_clear_line(tmp_path: Path) -> None:
    """A path that cannot be a hub name is not looked for on the network."""
    with pytest.raises(ModelError, match=rf"no folder {tmp_path}/absent: name a saved model"):
        load(tmp_path / "absent")


def test_a_hub_name_without_a_hub_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is neither a folder nor to be had from the hub is named, without a long wait."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="no folder nobody/nothing, nor can the hub") as error:
        load("nobody/nothing")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_model_folder_is_one_clear_line(tmp_path: Path, damage: str) -> None:
    """A file cut short is an error that names the folder, whichever file it is."""
    _llama().save_pretrained(tmp_path)
    _tokenizer().save_pretrained(tmp_path)
    path = tmp_path / damage
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ModelError, match=f"cannot load the model {tmp_path}") as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_model_is_one_clear_line(tmp_path: Path) -> None:
    """An empty folder is not a model."""
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load(tmp_path)


# --- LoRA -------------------------------------------------------------------------------------


def _trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def test_adapters_alone_train_and_are_f32_on_a_bf16_base() -> None:
    """A step of training changes the adapters and no weight of the base."""
    model = add_lora(_llama().to(torch.bfloat16), rank=4)
    adapters = _trained(model)
    assert adapters
    assert all("lora_" in name for name in adapters)
    assert {p.dtype for p in adapters.values()} == {torch.float32}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    rows = {key: torch.tensor([row[key] for row in _rows(6, 8)]) for key in _rows(6)[0]}
    optimizer = torch.optim.AdamW(adapters.values(), lr=1e-2)
    model(**rows).loss.backward()
    optimizer.step()

    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert changed <= adapters.keys()
    assert {p.dtype for n, p in model.named_parameters() if n not in adapters} == {torch.bfloat16}


def test_query_and_value_are_adapted() -> None:
    """Rank 4 on the two projections of each of two layers: 2 x 2 x (16 x 4 + 4 x 16) numbers."""
    adapters = _trained(add_lora(_llama(), rank=4))
    assert all("q_proj" in name or "v_proj" in name for name in adapters)
    assert sum(p.numel() for p in adapters.values()) == 2 * 2 * (16 * 4 + 4 * 16)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")
def test_a_model_with_other_names_is_adapted_on_every_linear_layer() -> None:
    """GPT-2 has no q_proj; its layers are adapted all the same."""
    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2))
    assert any("c_attn" in name for name in _trained(add_lora(model, rank=2)))


def test_adapters_depend_on_the_seed_only() -> None:
    """The same seed gives the same adapters, and the global random state is left alone."""
    bases = [_llama() for _ in range(3)]
    first = _trained(add_lora(bases[0], rank=4, seed=7))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = _trained(add_lora(bases[1], rank=4, seed=7))
    other = _trained(add_lora(bases[2], rank=4, seed=8))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


# --- sample ---------------------------------------------------------------------------------


def test_sampling_is_greedy_and_leaves_out_the_prompt() -> None:
    """The same prompt gets the same continuation, of at most the length asked for."""
    model, tokenizer = _llama().train(), _tokenizer()
    answer = sample(model, tokenizer, "w3 w4", max_new_tokens=5)
    assert answer == sample(model, tokenizer, "w3 w4", max_new_tokens=5)
    assert 1 <= len(answer.split()) <= 5
    assert model.training


# --- the real model ---------------------------------------------------------------------------


def test_the_real_model_knows_the_capital_of_france(real: tuple[Any, Any]) -> None:
    """The converted weights are a language model's."""
    assert sample(*real, "The capital of France is", max_new_tokens=3).startswith(" Paris")


def test_the_real_model_predicts_docstrings_far_better_than_chance(real: tuple[Any, Any]) -> None:
    """Before any training it is far below log(vocabulary) on docstrings."""
    model, tokenizer = real
    pairs = [
        Pair('def dirname(p):\n    """', "Return the directory component of a pathname."),
        Pair('class Queue:\n    def empty(self):\n        """', "Return True if it is empty."),
    ]
    batch = default_data_collator(encode(pairs, tokenizer, 32))
    with torch.no_grad():
        loss = model(**batch).loss.item()
    assert loss < 0.5 * math.log(len(tokenizer))


def test_bf16_is_used_where_the_machine_computes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPUs that expand each product take tens of times as long: there everything is f32."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for slower, fast in ((1.2, True), (40.0, False)):
        took = {torch.float32: 1e-3, torch.bfloat16: 1e-3 * slower}
        monkeypatch.setattr(subject, "_seconds", took.__getitem__)
        subject.bf16_is_fast.cache_clear()
        assert subject.bf16_is_fast() is fast
    subject.bf16_is_fast.cache_clear()
