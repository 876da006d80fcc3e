"""PEFT adapters: finding them in a checkpoint, and putting them into a model."""

import copy
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tune_stoppers.metrics import logger
from tune_stoppers.training.restoring import check_names_and_shapes
from tune_stoppers.training.snapshot import StateMismatchError, own_generators, unwrap

FILES = ("adapter_model.safetensors", "adapter_model.bin")
_DEFAULT = "default"  # the adapter that PEFT saves at the top, the others in folders of their name
_CHECKPOINT = re.compile(r"checkpoint-\d+")  # how the Trainer calls its folders
_PREFIX = "base_model.model."  # in files; transformers' own adapters have it in files alone

Tensors = Mapping[str, Tensor]


def adapter_files(folder: Path) -> dict[str, Path]:
    """The files of the adapters in a checkpoint, by the adapters' names.

    The Trainer's checkpoints beside a finished adapter are others of the same, not further ones.
    """
    if not folder.is_dir():
        return {}
    folders = {_DEFAULT: folder} | {
        inner.name: inner for inner in sorted(folder.iterdir()) if inner.is_dir()
    }
    found: dict[str, Path] = {}
    for name, inner in folders.items():
        for file in FILES:
            if (inner / file).exists():
                found.setdefault(name, inner / file)
    if _DEFAULT in found:
        return {name: file for name, file in found.items() if not _CHECKPOINT.fullmatch(name)}
    return found


def adapter_loader(
    model: Any, adapters: Mapping[str, Tensors], *, to_train_on: bool
) -> Callable[[], None]:
    """What loads the adapters into the model; whether they fit has been checked by then.

    Of a prompt that an encoder makes (p-tuning, a prefix with a projection) PEFT saves what it
    made, not the encoder: it can be used, and not trained on. `StateMismatchError` then, if
    `to_train_on`, and wherever an adapter does not fit.
    """
    model = unwrap(model)
    if not hasattr(model, "peft_config"):
        raise StateMismatchError(
            "the checkpoint holds a PEFT adapter, but the model has none: wrap it first, model = "
            "peft.get_peft_model(model, LoraConfig(...)) with the trial's settings."
        )
    pairs = _paired(sorted(adapters), list(model.peft_config))
    for kept, own in pairs.items():
        _check(model, own, adapters[kept])
        if to_train_on and _made_by_encoder(model, own):
            raise StateMismatchError(
                f"the checkpoint holds the finished prompt of adapter {kept!r}, not the encoder "
                "that training needs: restore the model without the optimizer, or keep states "
                "with tune_stoppers.save_state."
            )

    def load() -> None:
        for kept, own in pairs.items():
            _put(model, own, adapters[kept])

    return load


def _paired(kept: list[str], own: list[str]) -> dict[str, str]:
    """Which adapter of the model each kept one goes into: by name, or the only one there is."""
    if len(kept) == len(own) == 1:
        return {kept[0]: own[0]}
    if set(kept) != set(own):
        raise StateMismatchError(
            f"the checkpoint holds the adapters {', '.join(kept)}, the model has "
            f"{', '.join(sorted(own))}: give it adapters of the same names, "
            "model.add_adapter(name, config)."
        )
    return {name: name for name in kept}


def _check(model: Any, name: str, kept: Tensors) -> None:
    from peft import get_peft_model_state_dict  # only adapters need peft

    with own_generators(), torch.no_grad():  # a prompt is made to look at its shape
        own = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    state = model.state_dict()
    short, long = _without_prefix(own), _without_prefix(kept)
    # PEFT adds the embeddings of a vocabulary that was resized
    embeddings = {key: state[key] for key in kept.keys() & state.keys() if key not in own}
    check_names_and_shapes(f"adapter {name!r}", short | _without_prefix(embeddings), long)


def _without_prefix(tensors: Tensors) -> dict[str, Tensor]:
    return {key.removeprefix(_PREFIX): tensor for key, tensor in tensors.items()}


def _made_by_encoder(model: Any, name: str) -> bool:
    """Whether an encoder makes the adapter's prompt, unless it is only used any more."""
    if model.peft_config[name].inference_mode or not hasattr(model, "prompt_encoder"):
        return False
    encoder = dict(model.prompt_encoder.items()).get(name)
    return hasattr(encoder, "mlp_head") or bool(getattr(encoder, "prefix_projection", False))


def _put(model: Any, name: str, kept: Tensors) -> None:
    from peft import set_peft_model_state_dict

    if _made_by_encoder(model, name):
        encoder, prompt = model.prompt_encoder[name], kept["prompt_embeddings"]
        weight = encoder.embedding.weight
        if weight.shape != prompt.shape:
            embedding = nn.Embedding(prompt.shape[0], prompt.shape[1])
            encoder.embedding = embedding.to(weight.device, weight.dtype)
            encoder.prefix_projection = False
        config = copy.copy(model.peft_config[name])  # which another model may share
        config.inference_mode = True  # PEFT then uses the prompt as it is
        model.peft_config[name] = config
        logger.warning(
            "PEFT keeps the finished prompt of adapter %r, not the encoder that makes it: the "
            "model can be used as it was, but not trained on.",
            name,
        )
    if not any(key.startswith(_PREFIX) for key in model.state_dict()):
        kept = _without_prefix(kept)
    set_peft_model_state_dict(model, dict(kept), adapter_name=name)
