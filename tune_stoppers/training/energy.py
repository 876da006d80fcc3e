"""Energy as this machine's own counters tell it: NVML for GPUs, RAPL for CPUs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

POWERCAP = Path("/sys/class/powercap")  # RAPL, as Linux shows it
PACKAGES = "intel-rapl:[0-9]*"  # AMD's too; a package's parts are "intel-rapl:0:1"
NVIDIA = Path("/dev/nvidiactl")  # there where NVIDIA's driver is
JOULES_PER_KWH = 3.6e6
NOTHING = (
    "A budget of kwh needs a counter of energy, and this machine has none that can be read. "
    "GPUs (NVML): {gpus}. CPUs (RAPL): {cpus}. Without one, give gpu_hours or money instead."
)
HALF = (
    "A budget of kwh would leave the GPUs out, which this machine has and whose counters cannot be "
    "read: {gpus}."
)


class Counter(NamedTuple):
    """Something that counts joules, from any zero."""

    name: str
    read: Callable[[], float]
    wraps_at: float = 0.0  # joules after which it begins again at zero; 0: never


class EnergyMeter:
    """Joules that this machine has used since the meter was made: all GPUs and CPU packages.

    It is the machine that is metered, whoever uses it, idle or not. RAPL's counters wrap, at the
    earliest after some minutes under load: a meter that is asked more rarely than that counts too
    little.

    Raises `ValueError` if no counter can be read, or not those of the GPUs that are there, with
    what is missing.
    """

    def __init__(self, counters: list[Counter] | None = None) -> None:
        self._counters = found_counters() if counters is None else counters
        self._last = [counter.read() for counter in self._counters]
        self._used = 0.0

    @property
    def names(self) -> list[str]:
        """What is metered."""
        return [counter.name for counter in self._counters]

    def joules(self) -> float:
        """Since the meter was made."""
        now = [counter.read() for counter in self._counters]
        for counter, before, after in zip(self._counters, self._last, now, strict=True):
            gone = after - before
            self._used += gone if gone >= 0 else max(gone + counter.wraps_at, 0.0)
        self._last = now
        return self._used


def found_counters() -> list[Counter]:
    """Those of this machine; `ValueError` as `EnergyMeter` says."""
    gpus, no_gpus = nvml_counters()
    cpus, no_cpus = rapl_counters(POWERCAP)
    if not gpus and NVIDIA.exists():
        raise ValueError(HALF.format(gpus=no_gpus))
    if not gpus and not cpus:
        raise ValueError(NOTHING.format(gpus=no_gpus, cpus=no_cpus))
    return gpus + cpus


def rapl_counters(folder: Path) -> tuple[list[Counter], str]:
    """A counter for each CPU package, and why there is none: "" if there is one."""
    packages = sorted(p for p in folder.glob(PACKAGES) if p.name.count(":") == 1)
    if not packages:
        return [], f"there is no {folder}/intel-rapl:0 (a virtual machine seldom has one)"
    counters = []
    for package in packages:
        try:
            _joules(package / "energy_uj")
            wraps_at = _joules(package / "max_energy_range_uj")
        except (OSError, ValueError) as error:
            return [], f"{package}/energy_uj cannot be read ({error}): let its group or all read it"
        counters.append(Counter(package.name, _reading(package / "energy_uj"), wraps_at))
    return counters, ""


def nvml_counters() -> tuple[list[Counter], str]:
    """A counter for each GPU of the machine, and why there is none: "" if there is one."""
    try:
        import pynvml
    except ImportError:
        return [], "pynvml is not installed: pip install 'tune_stoppers[energy]'"
    try:
        pynvml.nvmlInit()
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
        ]
        counters = [Counter(f"GPU {i}", _gpu(pynvml, h)) for i, h in enumerate(handles)]
        for counter in counters:
            counter.read()
    except pynvml.NVMLError as error:
        return [], f"NVML says: {error}"
    return counters, "" if counters else "NVML knows no GPU"


def _gpu(pynvml: Any, handle: Any) -> Callable[[], float]:
    return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3  # from mJ


def _reading(path: Path) -> Callable[[], float]:
    return lambda: _joules(path)


def _joules(path: Path) -> float:
    return int(path.read_text()) / 1e6  # from µJ
