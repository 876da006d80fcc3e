"""What each scheduler does to three recorded sweeps, line by line, as it was when last looked at.

To renew a golden journal after a change that is meant, delete it and run this test twice.
"""

from pathlib import Path

import pytest

import tune_stoppers as ts
from tune_stoppers import Sweep, replay, rules

GOLDEN = Path(__file__).parent / "golden"
SCHEDULERS = {
    "bound_asha": lambda max_t: ts.BoundASHAScheduler(max_t, time_attr="training_iteration"),
    "promotion": lambda max_t: ts.PromotionASHAScheduler(max_t),
    "rollback": lambda max_t: ts.RollbackScheduler(4, lr_key="learning_rate"),  # recovery alone
    "rule": lambda max_t: ts.RuleScheduler(rules.Patience(4)),
}


@pytest.fixture(scope="module")
def sweeps() -> list[Sweep]:
    """The recorded example sweep in three parts of 48 trials."""
    whole = Sweep.from_parquet(ts.example_path())
    return [
        Sweep(whole.curves[part::3], name=f"part {part}", metric=whole.metric, mode=whole.mode)
        for part in range(3)
    ]


@pytest.mark.parametrize("part", range(3))
@pytest.mark.parametrize("name", SCHEDULERS)
def test_journal_is_as_it_was(sweeps: list[Sweep], name: str, part: int) -> None:
    """The same sweep gives the same decisions at the same times, for the same reasons."""
    sweep = sweeps[part]
    result = replay(sweep, SCHEDULERS[name](sweep.max_t), workers=4, seed=part)
    lines = [
        f"{row.time:g} {row.trial_id} {row.step} {row.action} {row.by} {row.reason}".rstrip()
        for row in result.journal.itertuples()
        if row.action != "start"
    ]
    path = GOLDEN / f"{name}_{part}.txt"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        pytest.fail(f"{path.name} was missing and has been written: look at it and run again.")
    assert lines == path.read_text(encoding="utf-8").splitlines()
