"""The benchmark of choices runs from end to end."""

import pytest

from benchmarks import choice_cost


def test_it_prints_a_row_for_each_chooser_and_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Choices that are really made, first and later ones."""
    monkeypatch.setattr(choice_cost, "SIZES", (12, 20))
    assert choice_cost.main(["--runs", "2"]) == 0
    rows = [
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith(tuple(f"| {name} |" for name in choice_cost.NAMES))
    ]
    assert [row.split("|")[2].strip() for row in rows] == ["12", "20"] * 3
    choose = choice_cost.chooser("FreezeThawAcquisition", 12)
    assert "probability" in choose(0).why
    assert choice_cost.chooser("ExpectedImprovementAcquisition", 12)(0).best.worth > 0
