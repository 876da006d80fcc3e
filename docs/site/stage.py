"""Gathers what the documentation site shows, in the folders it has in the repository.

`python docs/site/stage.py` copies the pages and pictures to `build/docs`, so that links between
them hold as they do on GitHub, and writes `reference/`, a page for each part of the public face,
from which mkdocstrings fills in signatures and docstrings. `make docs` runs it.
"""

import ast
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
STAGED = ROOT / "build" / "docs"
PAGES = (
    "*.md",
    "LICENSE",
    "docs/*.md",
    "docs/img/*",
    "*/RESULTS.md",
    "experiments/*.png",
    "benchmarks/results/*",
)

# where a public name lives -> its page of the reference; the longest beginning counts
PARTS = {
    "tune.stoppers": "stoppers",
    "tune.schedulers": "schedulers",
    "tune.progress": "following",
    "tune.trackers": "following",
    "tune.suggest": "replay",
    "backtest": "replay",
    "recorded": "replay",
    "experiment": "experiments",
    "report": "experiments",
    "advice": "advice",
    "": "training",
}
TITLES = {
    "stoppers": "Stoppers",
    "schedulers": "Schedulers",
    "training": "In a trial, a Trainer, a loop, Optuna",
    "rules": "Rules",
    "experiments": "Best states and reasons of a sweep",
    "following": "Following a sweep",
    "replay": "Replay and recorded sweeps",
    "advice": "Advice",
}
PARAMETERS_ALONE = ("stoppers", "schedulers", "rules")  # their methods are called by others
MODULES = {  # documented as wholes
    "recipes": (
        "Recipes",
        tuple(f"tune_stoppers.recipes.{name}" for name in ("recipe", "supervised", "rewards")),
    ),
    "own_rules": ("Rules of your own", ("tune_stoppers.core", "tune_stoppers.testing")),
}


def public_names() -> dict[str, str]:
    """Each name of `tune_stoppers` and the module that it lives in; nothing is imported."""
    tree = ast.parse((ROOT / "tune_stoppers" / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_WHERE":
            found: dict[str, str] = ast.literal_eval(node.value)
            return found
    raise LookupError("tune_stoppers/__init__.py has no _WHERE")


def rules() -> dict[str, str]:
    """Each name of `tune_stoppers.rules` and the module that it comes from."""
    tree = ast.parse((ROOT / "tune_stoppers/rules/__init__.py").read_text(encoding="utf-8"))
    return {
        alias.name: (node.module or "").removeprefix("tune_stoppers.")
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def page_of(module: str) -> str:
    """The page of the reference for what lives in `module`."""
    return PARTS[max((part for part in PARTS if module.startswith(part)), key=len)]


def reference() -> dict[str, str]:
    """The pages of the reference: file name and text."""
    pages = {page: [f"# {title}", ""] for page, title in TITLES.items()}
    named = [(page_of(module), name, module) for name, module in public_names().items()]
    named += [("rules", name, module) for name, module in rules().items()]
    for page, name, module in sorted(named):
        pages[page] += [f"::: tune_stoppers.{module}.{name}"]
        if page in PARAMETERS_ALONE:
            pages[page] += ["    options:", "      members: false"]
        pages[page] += [""]
    for page, (title, modules) in MODULES.items():
        pages[page] = [f"# {title}", ""]
        for module in modules:
            pages[page] += [f"::: {module}", "    options:", "      show_root_heading: false", ""]
    return {f"{page}.md": "\n".join(lines) for page, lines in pages.items()}


def main() -> None:
    """Make `build/docs` anew."""
    shutil.rmtree(STAGED, ignore_errors=True)
    for pattern in PAGES:
        for path in sorted(ROOT.glob(pattern)):
            there = STAGED / path.relative_to(ROOT)
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, there)
    folder = STAGED / "reference"
    folder.mkdir()
    for name, text in reference().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
