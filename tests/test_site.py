"""docs/site: what `make docs` shows. Links: test_readme.py and the strict build check them."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import tune_stoppers
from tune_stoppers import rules

ROOT = Path(__file__).parents[1]


def stage() -> ModuleType:
    """docs/site/stage.py, which is a script."""
    spec = importlib.util.spec_from_file_location("stage", ROOT / "docs/site/stage.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_navigation() -> None:
    """Those of docs/ and of the reference."""
    shown = set(re.findall(r"[\w/]+\.md", (ROOT / "docs/site/mkdocs.yml").read_text()))
    reference = {f"reference/{name}" for name in stage().reference()}
    pages = {f"docs/{page.name}" for page in ROOT.glob("docs/*.md")} | reference
    assert pages <= shown
    assert not {page for page in shown - pages if not (ROOT / page).exists()}


def test_the_reference_has_every_public_name_once() -> None:
    """Stoppers with stoppers, schedulers with schedulers; a new name needs no line there."""
    pages = stage().reference()
    named = re.findall(r"^::: [\w.]+\.(\w+)$", "".join(pages.values()), flags=re.MULTILINE)
    public = [*tune_stoppers.__all__, *(name for name in vars(rules) if name[0].isupper())]
    assert sorted(named) == sorted([*public, "recipe", "supervised", "rewards", "core", "testing"])
    assert "AutoScheduler" in pages["schedulers.md"]
    assert "PatienceStopper" in pages["stoppers.md"]


def test_pages_are_gathered_where_their_links_lead(tmp_path: Path) -> None:
    """In the folders that they have in the repository, with pictures, made anew each time."""
    script = stage()
    script.STAGED = tmp_path / "docs"
    (tmp_path / "docs" / "old").mkdir(parents=True)
    script.main()
    for page in ("README.md", "docs/trainers.md", "benchmarks/results/small_sweeps.svg"):
        assert (tmp_path / "docs" / page).read_bytes() == (ROOT / page).read_bytes()
    assert (tmp_path / "docs/reference/rules.md").exists()
    assert not (tmp_path / "docs/old").exists()


def test_every_picture_of_a_page_is_gathered_with_it(tmp_path: Path) -> None:
    """The strict build refuses a page whose picture is missing."""
    script = stage()
    script.STAGED = tmp_path / "docs"
    script.main()
    shown = [
        page.parent / picture
        for page in script.STAGED.rglob("*.md")
        for picture in re.findall(r"!\[[^]]*\]\(([^):]+)\)", page.read_text(encoding="utf-8"))
    ]
    assert len(shown) >= 4
    assert [picture for picture in shown if not picture.exists()] == []
