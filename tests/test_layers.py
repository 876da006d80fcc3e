"""Imports go one way: `LEVELS` says which."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import tune_stoppers

ROOT = Path(tune_stoppers.__file__).parent
LEVELS = {
    0: ("core", "codec", "metrics", "result_keys", "expressions", "forecast", "moved"),
    1: ("rules", "surrogate", "advice"),
    2: ("journal", "rule_texts", "comparisons"),
    3: ("training", "recipes", "testing"),
    4: ("experiment", "integrations"),
    5: ("recorded",),
    6: ("history",),
    7: ("tune",),
    8: ("backtest",),
    9: ("report",),
    10: ("cli",),
    11: ("__main__",),
}
LEVEL = {name: level for level, names in LEVELS.items() for name in names}
RAY_FOLDERS = ("tune", "backtest")
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def names_imported(path):
    """Absolute module names that a file imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if node.module == "tune_stoppers":
                yield from (public(alias.name) for alias in node.names)
            else:
                yield node.module


def public(name):
    """Where a name of the package's face really lives."""
    return f"tune_stoppers.{tune_stoppers._WHERE.get(name, name)}"


def layer(path):
    """The first part of a file's place below the package: core, rules, tune, …"""
    return path.relative_to(ROOT).with_suffix("").parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_nothing_from_above(path):
    """And every file has its place in the order."""
    here = layer(path)
    assert here in LEVEL, f"{here} has no level yet: give it one above"
    for name in names_imported(path):
        package, _, rest = name.partition(".")
        if package != "tune_stoppers" or not rest:
            continue
        there = rest.split(".")[0]
        allowed = there == here or LEVEL[there] < LEVEL[here] or LEVEL[here] == 0 == LEVEL[there]
        assert allowed, f"{path.relative_to(ROOT)} imports {name}, which is above it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_long_file_says_why_it_is_one(path):
    """A file has one idea and at most 350 lines; its docstring gives the reason for more."""
    text = path.read_text(encoding="utf-8")
    if len(text.splitlines()) > 350:
        assert "Over 350 lines" in (ast.get_docstring(ast.parse(text)) or ""), "say why it is long"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_ray_is_imported_in_two_folders_only(path):
    """A rule and a plain loop run without Ray."""
    if layer(path) not in RAY_FOLDERS:
        assert "ray" not in {name.split(".")[0] for name in names_imported(path)}


@pytest.mark.parametrize("folder", ["rules", "core", "codec.py", "metrics.py"])
def test_a_rule_knows_no_clock_no_chance_and_no_files(folder):
    """Core and rules are pure."""
    below = ROOT / folder
    files = [below] if below.is_file() else sorted(below.rglob("*.py"))
    assert files, f"there is no {below}"
    banned = {"time", "datetime", "random", "os", "pathlib", "io", "torch", "numpy", "transformers"}
    for path in files:
        used = banned & {name.split(".")[0] for name in names_imported(path)}
        assert not used, f"{path.relative_to(ROOT)} imports {used}"


HEAVY = ("ray", "torch", "transformers", "pandas")


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import tune_stoppers; dir(tune_stoppers)", ()),
        ("import tune_stoppers.rules, tune_stoppers.testing, tune_stoppers.journal.lines", ()),
        ("from tune_stoppers import PatienceStopper", ("ray",)),
    ],
)
def test_importing_the_package_is_light(statement, heavy):
    """Ray, torch and transformers come with the first name that needs them."""
    code = f"{statement}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    loaded = set(json.loads(process.stdout))
    assert {name for name in HEAVY if name in loaded} - {"pandas"} >= set(heavy)
    if not heavy:
        assert not {name for name in HEAVY if name in loaded}


@pytest.mark.parametrize("command", ["explain", "best", "report", "watch"])
def test_what_reads_an_experiment_loads_neither_ray_nor_torch_nor_pandas(command, tmp_path):
    """They would take seconds, for a folder of text."""
    folder = Path(__file__).parent / "experiment" / "version_0_1" / "auto"
    arguments = [
        command,
        str(folder),
        *(["-o", str(tmp_path / "page.html")] * (command == "report")),
    ]
    code = f"from tune_stoppers.cli import main; main({arguments!r})\nimport sys\n"
    code += "print('loaded', *sorted({'ray', 'torch', 'pandas'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    assert done.stdout.splitlines()[-1].strip() == "loaded"


def test_every_public_name_can_be_loaded():
    """What `dir` lists is there, and a name that is not says so."""
    for name in tune_stoppers.__all__:
        assert getattr(tune_stoppers, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'PatientStopper'"):
        tune_stoppers.PatientStopper  # noqa: B018
