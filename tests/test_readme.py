"""README.md and docs/: the Python blocks run and print what comments say, and links lead somewhere.

A block of the README stands by itself. The blocks of a page in docs/ build on each other and run
as one script.
"""

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = sorted(ROOT.glob("docs/*.md"))
RESULTS = [*ROOT.glob("*/RESULTS.md"), *ROOT.glob("benchmarks/results/*.md")]
PAGES = sorted([*ROOT.glob("*.md"), *RESULTS, *DOCS])
PYTHON = re.compile(r"^```python\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
FENCED = re.compile(r"^```.*?^```", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", flags=re.MULTILINE)


def blocks_of(page: Path) -> list[str]:
    return PYTHON.findall(page.read_text())


def expected_output(block: str) -> list[str]:
    """The comments right below a print, which say what it prints."""
    shown = [(line, after) for line, after in pairwise(block.splitlines())]
    return [after[2:] for line, after in shown if line.startswith("print(") and after[:2] == "# "]


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


@pytest.mark.parametrize("block", blocks_of(README), ids=lambda block: block.split("\n", 1)[0])
def test_block_runs(block: str, tmp_path: Path) -> None:
    """A newcomer who pastes the block into a file sees it work."""
    assert expected_output(block)
    check_output(block, tmp_path)


@pytest.mark.parametrize("page", [*filter(blocks_of, DOCS)], ids=lambda page: page.stem)
def test_page_runs(page: Path, tmp_path: Path) -> None:
    """Whoever follows it has something that works at its end."""
    code = "\n\n".join(blocks_of(page))
    assert expected_output(code)
    check_output(code, tmp_path)


def test_the_readme_and_the_recipes_have_their_blocks() -> None:
    """The tests above find something to run."""
    assert any("scheduler = AutoScheduler(" in block for block in blocks_of(README))
    assert {page.stem for page in DOCS if blocks_of(page)} >= {
        "adding_a_rule",
        "adding_a_scheduler",
        "freed_resources",
        "replay",
        "strategies",
        "trainers",
    }


def test_the_readme_fits_two_screens() -> None:
    """What is longer goes to docs/."""
    assert len(README.read_text().splitlines()) <= 130


def test_the_index_has_a_line_for_each_page() -> None:
    """And the README leads to the index."""
    index = ROOT / "docs" / "README.md"
    lines = index.read_text().splitlines()
    assert "(docs/README.md)" in README.read_text()
    for page in DOCS:
        entries = [line for line in lines if line.startswith(f"- [{page.name}]({page.name}): ")]
        assert len(entries) == (page != index), page.name


def anchors_of(page: Path) -> set[str]:
    """What GitHub makes of the headings of a page."""
    headings = HEADING.findall(FENCED.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> list[str]:
    """The relative links of a page to a file or heading that is not there."""
    dead = []
    for link in LINK.findall(FENCED.sub("", page.read_text())):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    """A file that is not there, a heading that is not, and neither in a code block."""
    page = tmp_path / "page.md"
    page.write_text(
        "# A page (here)\n[a](gone.md) [b](#a-page-here) [c](#gone) [d](page.md#gone)\n"
        "[e](https://gone.example/x)\n```\n# Gone\n[f](gone.md)\n```\n"
    )
    assert dead_links(page) == ["gone.md", "#gone", "page.md#gone"]
