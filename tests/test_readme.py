"""The Python blocks of README.md and docs/ run as they stand, and print what comments say."""

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = re.compile(r"^```python\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
BLOCKS = PYTHON.findall((ROOT / "README.md").read_text())
RECIPES = sorted(ROOT.glob("docs/*.md"))  # the blocks of each build on each other


def expected_output(block: str) -> list[str]:
    """The comments right below a print, which say what it prints."""
    shown = [(line, after) for line, after in pairwise(block.splitlines())]
    return [after[2:] for line, after in shown if line.startswith("print(") and after[:2] == "# "]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n", 1)[0])
def test_block_runs(block: str, tmp_path: Path) -> None:
    """A newcomer who pastes the block into a file sees it work."""
    check_output(block, tmp_path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_runs(path: Path, tmp_path: Path) -> None:
    """Whoever follows it has something that works at its end."""
    blocks = PYTHON.findall(path.read_text())
    assert any(expected_output(block) for block in blocks)
    check_output("\n\n".join(blocks), tmp_path)


def test_recipes_are_found() -> None:
    """And the README leads to each."""
    readme = (ROOT / "README.md").read_text()
    assert {path.stem for path in RECIPES} >= {
        "adding_a_rule",
        "adding_a_scheduler",
        "freed_resources",
    }
    assert all(f"(docs/{path.name})" in readme for path in RECIPES)


def check_output(code: str, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(code)
    environment = os.environ | {"HOME": str(tmp_path)}  # Ray writes to ~/ray_results
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for line in expected_output(code):
        assert line in done.stdout


def test_readme_has_its_examples() -> None:
    """The blocks are found, and some of them say what they print."""
    assert len(BLOCKS) >= 4
    assert sum(len(expected_output(block)) for block in BLOCKS) >= 2
