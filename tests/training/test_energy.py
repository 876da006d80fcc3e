"""Energy: counters as Linux and NVIDIA show them, and one clear error where there is none."""

import importlib.util
import pickle
from pathlib import Path

import pytest
import ray

from tune_stoppers import (
    BudgetStopper,
    EarlyStopping,
    RuleScheduler,
    Sweep,
    example_path,
    replay,
    rules,
)
from tune_stoppers.training import energy
from tune_stoppers.training.energy import Counter, EnergyMeter, nvml_counters, rapl_counters


class Packages:
    """RAPL's folder, written by hand: two packages, and a part of the first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0", "intel-rapl"):
            (folder / name).mkdir()
        self.set(0, 5_000_000)
        self.set(1, 250_000_000)
        for part in (0, 1):
            self.of(part, "max_energy_range_uj").write_text("262143328850\n")

    def of(self, package: int, file: str) -> Path:
        return self.folder / f"intel-rapl:{package}" / file

    def set(self, package: int, microjoules: int) -> None:
        self.of(package, "energy_uj").write_text(f"{microjoules}\n")


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A machine with two CPU packages and no GPU."""
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    monkeypatch.setattr(energy, "NVIDIA", tmp_path / "no driver")
    monkeypatch.setattr(energy, "nvml_counters", lambda: ([], "no GPU"))
    return Packages(tmp_path)


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    """A machine without any counter, as a virtual one is."""
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    monkeypatch.setattr(energy, "NVIDIA", tmp_path / "no driver")
    monkeypatch.setattr(energy, "nvml_counters", lambda: ([], "no GPU"))


def test_joules_of_all_packages_add_up_and_a_part_is_not_counted_twice(packages):
    """And a counter that has begun again at zero has not given anything back."""
    meter = EnergyMeter()
    assert meter.names == ["intel-rapl:0", "intel-rapl:1"]
    assert meter.joules() == 0
    packages.set(0, 7_000_000)
    packages.set(1, 251_500_000)
    assert meter.joules() == pytest.approx(3.5)
    packages.set(0, 1_000_000)
    assert meter.joules() == pytest.approx(3.5 + 262143.32885 - 7 + 1)


def test_a_counter_that_is_set_back_gives_nothing_back():
    """A driver that is loaded again begins at zero, and NVML's counters do not wrap."""
    values = iter([10.0, 30.0, 5.0, 6.0])
    meter = EnergyMeter([Counter("GPU 0", lambda: next(values))])
    assert [meter.joules() for _ in range(3)] == [20.0, 20.0, 21.0]


def test_what_cannot_be_read_is_named(tmp_path):
    """Newer kernels let only root read."""
    counters, why = rapl_counters(tmp_path / "none")
    assert not counters
    assert "there is no" in why
    packages = Packages(tmp_path)
    packages.of(1, "energy_uj").unlink()
    packages.of(1, "energy_uj").mkdir()
    counters, why = rapl_counters(tmp_path)
    assert not counters
    assert "intel-rapl:1/energy_uj cannot be read" in why


@pytest.mark.skipif(importlib.util.find_spec("pynvml") is not None, reason="pynvml is installed")
def test_without_pynvml_the_line_that_installs_it_is_told():
    """It is an extra."""
    assert nvml_counters() == (
        [],
        "pynvml is not installed: pip install 'tune_stoppers[energy]'",
    )


@pytest.mark.skipif(importlib.util.find_spec("pynvml") is None, reason="pynvml is not installed")
def test_without_a_driver_nvml_says_so():
    """Or, where there is one, its counters only grow."""
    counters, why = nvml_counters()
    assert bool(counters) != bool(why)
    for counter in counters:
        assert counter.read() <= counter.read()


@pytest.mark.parametrize(
    "make",
    [
        lambda: BudgetStopper(kwh=1),
        lambda: RuleScheduler(rules.Budget(kwh=1) | rules.Patience(3), metric="x", mode="min"),
        lambda: EarlyStopping(rules.Budget(kwh=1), mode="min"),
    ],
    ids=["stopper", "scheduler", "loop"],
)
def test_without_a_counter_the_budget_is_refused_where_it_is_made(make, nothing):
    """With what is missing; and it costs nothing where no energy is asked for."""
    with pytest.raises(ValueError, match=r"none that can be read\. GPUs \(NVML\): no GPU\. CPUs"):
        make()
    BudgetStopper(gpu_hours=1)


def test_gpus_that_cannot_be_read_are_not_left_out_in_silence(packages, monkeypatch, tmp_path):
    """The CPUs alone would be far too little."""
    monkeypatch.setattr(energy, "NVIDIA", tmp_path)
    with pytest.raises(ValueError, match="would leave the GPUs out"):
        BudgetStopper(kwh=1)


def test_a_sweep_ends_when_its_energy_is_used_also_while_no_trial_reports(packages):
    """0.001 kWh are 3600 J; what was used before it began does not count."""
    stopper = BudgetStopper(kwh=0.001)
    assert not stopper.stop_all()
    packages.set(0, 5_000_000 + 3_599_000_000)
    assert not stopper("t", {"training_iteration": 1, "time_this_iter_s": 1.0})
    copy = pickle.loads(pickle.dumps(stopper))  # what Ray keeps, restored after a while
    packages.set(0, 9_000_000_000)
    assert not copy.stop_all()
    packages.set(0, 9_001_000_000)
    result = {"training_iteration": 2, "time_this_iter_s": 1.0}
    assert copy("t", result)
    assert result["stop_reason"] == "BudgetStopper: the machine has used 0.001 of 0.001 kWh"
    assert copy.stop_all()


def test_a_loop_ends_when_its_energy_is_used_and_a_resumed_one_counts_on(packages):
    """The energy of a run that was broken off was used."""
    stop = EarlyStopping(rules.Budget(kwh=0.001), mode="min")
    packages.set(0, 5_000_000 + 2_000_000_000)
    assert not stop(1.0, step=1)
    state = stop.state_dict()
    packages.set(0, 5_000_000 + 7_000_000_000)
    resumed = EarlyStopping(rules.Budget(kwh=0.001), mode="min")
    resumed.load_state_dict(state)
    packages.set(0, 5_000_000 + 8_599_000_000)
    assert not resumed(1.0, step=2)
    packages.set(0, 5_000_000 + 8_601_000_000)
    assert resumed(1.0, step=3)


def test_a_replay_has_no_energy(packages):
    """It would count what this machine uses to replay."""
    sweep = Sweep.from_parquet(example_path())
    for ruled in (
        {"stopper": BudgetStopper(kwh=1)},
        {"scheduler": RuleScheduler(rules.Budget(kwh=1), metric=sweep.metric, mode=sweep.mode)},
    ):
        with pytest.raises(ValueError, match="A replay knows no energy"):
            replay(sweep, **ruled)


def test_a_cluster_of_several_machines_is_refused_at_the_first_report(packages, monkeypatch):
    """Their trials' energy is not to be read from here."""
    stopper = BudgetStopper(kwh=1)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}, {"Alive": False}, {"Alive": True}])
    with pytest.raises(ValueError, match="this cluster has 2: give gpu_hours or money"):
        stopper("t", {"training_iteration": 1, "time_this_iter_s": 1.0})
