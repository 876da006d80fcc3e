"""The plug-in of ms-swift, against a stand-in for its map of callbacks."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integrations.stand_in import provide
from tune_stoppers.rules import Patience

REPOSITORY = Path(__file__).parents[2]


def test_its_file_registers_a_callback_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ms-swift imports it, from the path that the module prints; the rule is in a variable."""
    known: dict[str, Any] = {}
    provide(monkeypatch, swift__callbacks={"callbacks_map": known})
    printed = subprocess.run(
        [sys.executable, "-m", "tune_stoppers.integrations.swift_plugin"],
        capture_output=True, text=True, check=True, cwd=REPOSITORY,
    ).stdout.strip()  # fmt: skip
    runpy.run_path(printed)
    monkeypatch.setenv("TUNE_STOPPERS", "RuleCallback(Patience(2), 'eval_loss', 'min')")
    assert known["tune_stoppers"]("their arguments", "their trainer").rule == Patience(2)
    monkeypatch.delenv("TUNE_STOPPERS")
    with pytest.raises(ValueError, match="needs the environment variable TUNE_STOPPERS"):
        known["tune_stoppers"]("their arguments", "their trainer")
