"""Stand-ins for what does not install here: as much of its documented interface as is used."""

import sys
import types
from typing import Any

import pytest


def provide(monkeypatch: pytest.MonkeyPatch, **modules: dict[str, Any]) -> None:
    """Modules of these names (`__` for a dot) with these contents, and the packages above them."""
    for name, contents in modules.items():
        parts = name.split("__")
        for count in range(1, len(parts) + 1):
            path = ".".join(parts[:count])
            module = types.ModuleType(path)
            module.__path__ = []
            monkeypatch.setitem(sys.modules, path, module)
        vars(sys.modules[".".join(parts)]).update(contents)
