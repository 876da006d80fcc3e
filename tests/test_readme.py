"""The README's Python blocks run as they stand, and print what their comments say."""

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(), flags=re.DOTALL | re.MULTILINE)


def expected_output(block: str) -> list[str]:
    """The comments right below a print, which say what it prints."""
    shown = [(line, after) for line, after in pairwise(block.splitlines())]
    return [after[2:] for line, after in shown if line.startswith("print(") and after[:2] == "# "]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n", 1)[0])
def test_block_runs(block: str, tmp_path: Path) -> None:
    """A newcomer who pastes the block into a file sees it work."""
    script = tmp_path / "example.py"
    script.write_text(block)
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
    for line in expected_output(block):
        assert line in done.stdout


def test_readme_has_its_examples() -> None:
    """The blocks are found, and some of them say what they print."""
    assert len(BLOCKS) >= 4
    assert sum(len(expected_output(block)) for block in BLOCKS) >= 2
