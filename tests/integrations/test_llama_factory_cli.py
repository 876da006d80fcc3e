"""LLaMA-Factory's `run_exp`, a stand-in here, called with the callback of its YAML."""

from pathlib import Path
from typing import Any

import pytest

from tests.integrations.stand_in import provide
from tune_stoppers.integrations.llama_factory_cli import main
from tune_stoppers.rules import Patience

YAML = """
stage: sft
learning_rate: 1.0e-4
tune_stoppers:
  rule: Patience(2)
  metric: eval_loss
  mode: min
"""


def test_its_own_keys_and_the_callback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ours, which it would not know; overridden on the command line."""
    called: dict[str, Any] = {}
    provide(monkeypatch, llamafactory__train__tuner={"run_exp": called.update})
    (tmp_path / "train.yaml").write_text(YAML)
    main([str(tmp_path / "train.yaml"), "learning_rate=0.5", "do_train=true"])
    assert called["args"] == {"stage": "sft", "learning_rate": 0.5, "do_train": True}
    assert [callback.rule for callback in called["callbacks"]] == [Patience(2)]


def test_what_it_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How it is used, and where the rule goes."""
    monkeypatch.delenv("TUNE_STOPPERS", raising=False)
    with pytest.raises(SystemExit, match=r"usage: .*CONFIG\.yaml"):
        main([])
    (tmp_path / "train.yaml").write_text("stage: sft")
    with pytest.raises(ValueError, match="has no key tune_stoppers"):
        main([str(tmp_path / "train.yaml")])
    with pytest.raises(ValueError, match="'lr' is no key=value"):
        main([str(tmp_path / "train.yaml"), "lr"])
