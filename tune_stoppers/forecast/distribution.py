"""A forecast: weighted atoms, each smeared out by a logistic kernel."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FAR = 40.0  # kernel widths beyond which a logistic is 0 or 1


def levels(values: Floats | float, atoms: Floats, widths: Floats) -> Floats:
    """The logistic distribution functions of `atoms` and `widths` at `values`, broadcast."""
    return np.asarray(1 / (1 + np.exp(-np.clip((values - atoms) / widths, -FAR, FAR))))


def densities(values: Floats | float, atoms: Floats, widths: Floats) -> Floats:
    """The logistic densities of `atoms` and `widths` at `values`, broadcast."""
    small = np.exp(-np.abs(np.clip((values - atoms) / widths, -FAR, FAR)))
    return np.asarray(small / (1 + small) ** 2 / widths)


@dataclass(frozen=True, eq=False)
class Forecast:
    """The distribution of a trial's best loss over what is left of its training.

    P(future best < x) = Σ wᵢ / (1 + exp((aᵢ − x) / hᵢ)), with the `atoms` a and `widths` h in
    units of the loss, and the `weights` w summing to 1. `calibrated`: on the sweep's own trials
    the forecaster has done better than "the last value persists", at this part of training.
    """

    atoms: Floats
    weights: Floats
    widths: Floats
    calibrated: bool = False

    def probability_below(self, target: float) -> float:
        """P(future best < `target`): 0 for minus infinity, 1 for plus infinity."""
        if not np.isfinite(target):
            return float(target > 0)
        return float(self.weights @ levels(target, self.atoms, self.widths))

    def quantile(self, p: float) -> float:
        """The loss x with P(future best < x) = `p`, by bisection; 0 < `p` < 1."""
        if not 0 < p < 1:
            raise ValueError(f"p must be above 0 and below 1, got {p!r}.")
        reach = FAR * self.widths
        low, high = float((self.atoms - reach).min()), float((self.atoms + reach).max())
        for _ in range(200):
            middle = low + (high - low) / 2
            if not low < middle < high:
                break
            if self.probability_below(middle) < p:
                low = middle
            else:
                high = middle
        return high

    def density(self, loss: float) -> float:
        """The density at `loss`, per unit of the loss."""
        return float(self.weights @ densities(loss, self.atoms, self.widths))


def mixed(parts: list[Forecast], weights: Floats) -> Forecast:
    """The mixture of `parts`; `weights` sum to 1."""
    return Forecast(
        np.concatenate([part.atoms for part in parts]),
        np.concatenate([part.weights * w for part, w in zip(parts, weights, strict=True)]),
        np.concatenate([part.widths for part in parts]),
    )
