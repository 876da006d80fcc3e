"""Modules of version 0.1, which pickles of its sweeps name: a clear line where Ray looks for one.

`Tuner.restore` unpickles schedulers and stoppers by the names of their modules. Those of 0.1 have
moved, and what they kept has another form. So a restore is refused with what to do, instead of
with a name that tells the user nothing. What reads the folder itself (`explain`, `report`, `best`,
`replay`) reads experiments of 0.1 as before.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

PACKAGE = "tune_stoppers"
MOVED = {
    "": ("recorder track"),
    "forecast": ("bank past"),
    "report": (
        "best cards charts endings explain explained from_experiment from_replay "
        "journalled listing marks markup page rows story svg tables"
    ),
    "rules": (
        "adaptive_patience audit bound_asha budget diminishing divergence dumped fold "
        "forecast freeze_thaw gradient_norm multi_metric overfit patience pauses "
        "per_trial promotion recovery rerun rollback rung slope spec sweep_rule "
        "threshold"
    ),
    "surrogate": ("model order process space thaw"),
    "training": ("judge rule_callback"),
    "tune": (
        "budget_stopper by_hand callback calling_trial combined diminishing_stopper "
        "experiment forecast_stopper forgotten inside judged privates results "
        "rule_stopper runs saved shared_track state train_runs train_workers "
        "trainer_checks trainer_note"
    ),
    "tune.schedulers": ("held pace"),
}


def refusal(name: str) -> ModuleNotFoundError:
    """The error for a module, or a class in one, of version 0.1."""
    return ModuleNotFoundError(
        f"{name} is of tune_stoppers 0.1. A sweep that 0.1 saved is restored by that version. This "
        "one reads its folder: explain, report, best, replay.",
        name=name,
    )


class _OfVersion01(MetaPathFinder):
    """Finds nothing, and says so where the name is one of 0.1's."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        folder, _, name = fullname.rpartition(".")
        if name in MOVED.get(folder.removeprefix(PACKAGE).lstrip("."), "").split():
            raise refusal(fullname)
        return None


def watch_imports() -> None:
    """Look at imports that found nothing; called once, when the package is imported."""
    if not any(isinstance(finder, _OfVersion01) for finder in sys.meta_path):
        sys.meta_path.append(_OfVersion01())
