"""The plug-in of axolotl, against a stand-in for the interface of its plug-ins."""

import importlib
import sys
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from tests.integrations.stand_in import provide
from tune_stoppers.rules import Patience

MAPPING = {"rule": "Patience(2)", "metric": "eval_loss", "mode": "min"}


class BasePlugin:
    """What axolotl calls is there, and does nothing."""

    def get_input_args(self) -> str | None:
        return None

    def add_callbacks_pre_trainer(self, cfg: Any, model: Any) -> list[Any]:
        return []


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Loaded as axolotl does: by the name of its module and class."""
    provide(monkeypatch, axolotl__integrations__base={"BasePlugin": BasePlugin})
    monkeypatch.delenv("TUNE_STOPPERS", raising=False)
    name = "tune_stoppers.integrations.axolotl_plugin"
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name).EarlyStoppingPlugin()


def test_the_key_of_the_configuration_becomes_a_callback(plugin: Any) -> None:
    """A mapping or a line; nothing without it, and then the environment."""
    (callback,) = plugin.add_callbacks_pre_trainer({"tune_stoppers": MAPPING}, None)
    assert callback.rule == Patience(2)
    line = "RuleCallback(Patience(3), 'eval_loss', 'min')"
    (callback,) = plugin.add_callbacks_pre_trainer({"tune_stoppers": line}, None)
    assert callback.rule == Patience(3)
    assert plugin.add_callbacks_pre_trainer({}, None) == []


def test_the_environment_will_do(plugin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the configuration has no key."""
    monkeypatch.setenv("TUNE_STOPPERS", "RuleCallback(3, 'eval_loss', 'min')")
    assert len(plugin.add_callbacks_pre_trainer({"tune_stoppers": None}, None)) == 1


def test_the_schema_of_the_key_is_found_by_its_name(plugin: Any) -> None:
    """As axolotl adds it to its own."""
    module, _, name = plugin.get_input_args().rpartition(".")
    schema = getattr(sys.modules[module], name)
    assert issubclass(schema, BaseModel)
    assert schema(tune_stoppers=MAPPING).tune_stoppers == MAPPING
    assert schema().tune_stoppers is None
    with pytest.raises(ValidationError):
        schema(tune_stoppers=3)
