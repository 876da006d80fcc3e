"""A reader finds a module's tests by its name."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
FOLDERS = {"faults", "safety", "gpu"}  # of everything at once: what breaks, attacks, a GPU
CROSS_CUTTING = {
    "test_contract",  # every rule of one trial
    "test_contract_sweep",  # every rule across trials
    "test_four_places",  # one rule wherever it runs
    "test_going_on",  # an old sweep's checkpoints in a new one
    "test_known_defects",
    "test_layers",
    "test_mirror",
    "test_packaging",
    "test_parity",
    "test_pickle_midcurve",
    "test_readme",
    "test_site",  # what `make docs` shows
    "experiment/test_version_0_1",  # folders that an earlier version wrote
    "tune/schedulers/test_record_format",  # states that an earlier version wrote
    "backtest/test_fidelity",  # the replay beside Ray's own controller
    "training/test_real_model",
    "tune/schedulers/test_class_trainables",  # what follows for every scheduler, as the next two
    "tune/schedulers/test_golden",
    "tune/schedulers/test_restore_properties",
}
FILES = sorted(path.relative_to(TESTS) for path in TESTS.rglob("test_*.py"))


def module_of(path: Path) -> Path | None:
    """The module that `path` names: `rules/test_x.py` and `rules/test_x_more.py` rules/x.py."""
    top = ROOT if path.parts[0] in ("benchmarks", "experiments") else ROOT / "tune_stoppers"
    words = path.stem.split("_")[1:]
    names = ("_".join(words[:count]) for count in range(len(words), 0, -1))
    found = (top / path.parent / f"{name}.py" for name in names)
    return next((module for module in found if module.exists()), None)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_test_is_where_its_module_is(path: Path) -> None:
    """Or on the short list of those that are about several."""
    if path.parts[0] not in FOLDERS and str(path.with_suffix("")) not in CROSS_CUTTING:
        assert module_of(path), f"tests/{path} names no module: move it, or list it above"


def test_the_list_has_nothing_that_is_gone() -> None:
    """Nor what a module has come to be named like."""
    names = {str(path.with_suffix("")) for path in FILES}
    assert names >= CROSS_CUTTING
    assert not any(module_of(Path(f"{name}.py")) for name in CROSS_CUTTING)
