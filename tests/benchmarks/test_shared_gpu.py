"""The recorded sweep that shared a GPU, under each scheduler."""

import pytest

from benchmarks import shared_gpu
from tune_stoppers import Sweep


def test_the_table_has_a_row_for_each_scheduler(capsys: pytest.CaptureFixture[str]) -> None:
    """No stopping makes all reports, in the time that the recording says."""
    assert shared_gpu.main(["--orders", "1"]) == 0
    _, _, whole, *others = capsys.readouterr().out.strip().splitlines()
    assert whole.startswith("| no stopping | 576 (1.00) | 513 (1.00) |")
    assert [row.split(" | ")[0] for row in others] == ["| Ray ASHA, defaults", "| AutoScheduler"]


def test_who_sleeps_reports_what_was_recorded() -> None:
    """Seconds between reports sum up to the trial's time; configurations are told apart."""
    sweep = Sweep.from_parquet(shared_gpu.RECORDING)
    known = list(shared_gpu.curves_of(sweep))
    assert len({str(config) for config, _ in known}) == len(sweep) == 24
    for curve, (_, played) in zip(sweep, known, strict=True):
        assert sum(seconds for seconds, _ in played) == pytest.approx(curve.seconds[-1])
        assert [loss for _, loss in played] == curve.metrics["eval_loss"].tolist()
