"""TRL's own command line, run with the callback of its YAML."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers.trainer
import yaml

from tests.training.test_hf_trl import quiet, run_of, settings, tiny  # noqa: F401
from tune_stoppers.integrations.trl_cli import main


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Data sets are prepared in the test's own folder; nothing is left in every Trainer."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.delenv("TUNE_STOPPERS", raising=False)
    before = list(transformers.trainer.DEFAULT_CALLBACKS)
    yield
    assert before == transformers.trainer.DEFAULT_CALLBACKS


def config_of(folder: Path, model: str, **more: Any) -> str:
    """The path of a YAML for `trl sft`, with rows that count upwards."""
    rows = [{"prompt": run_of(i, 3) + " ", "completion": run_of(i + 3, 4)} for i in range(16)]
    (folder / "data").mkdir()
    (folder / "data" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = settings(folder / "out", max_steps=12, eval_strategy="steps", eval_steps=2)
    config |= {"model_name_or_path": model, "dataset_name": str(folder / "data")}
    config |= {"dataset_test_split": "train", "max_length": 16} | more
    del config["gradient_checkpointing"]
    (folder / "sft.yaml").write_text(yaml.safe_dump(config))
    return str(folder / "sft.yaml")


# TRL 1.16 gives every Trainer a value by a name that transformers 5.23 calls old
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
def test_sft_ends_by_the_rule_in_its_yaml(tmp_path: Path, tiny: str) -> None:  # noqa: F811
    """Two evaluations that are no better for "max"; what else TRL reads is as it was."""
    rule = {"rule": "Patience(2)", "metric": "eval_loss", "mode": "max"}
    path = config_of(tmp_path, tiny, tune_stoppers=rule)
    callback = main(["sft", "--config", path, "--learning_rate", "0.02"])
    assert callback.reason.startswith("Patience: 2 of 2 evaluations without improvement")
    assert callback.stopped
    assert (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize("arguments", [[], ["chat"], ["--config"]])
def test_usage(arguments: list[str]) -> None:
    """What it takes."""
    with pytest.raises(SystemExit, match=r"trl_cli \{sft,dpo,grpo"):
        main(arguments)


def test_without_a_rule_it_says_where_one_goes(tmp_path: Path) -> None:
    """Instead of training without one."""
    (tmp_path / "a.yaml").write_text("learning_rate: 0.1")
    with pytest.raises(ValueError, match="no key tune_stoppers, and the environment no TUNE_STOPP"):
        main(["sft", "--config", str(tmp_path / "a.yaml")])
