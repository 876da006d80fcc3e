"""Hypothesis strategies for curves as they come: gaps, ties, NaN, repeated and earlier steps.

Importing this module loads the profile of the suite: the same examples in every run.
"""

from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st

from tune_stoppers.core import Report

settings.register_profile(
    "tune_stoppers", derandomize=True, max_examples=30, deadline=None, database=None
)
settings.load_profile("tune_stoppers")

NONFINITE = (float("nan"), float("inf"), float("-inf"))

finite_losses = st.one_of(
    st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]),  # ties, zero and both signs
    st.floats(-100, 100, allow_nan=False),
    st.sampled_from([-1.7e308, 1.7e308, 5e-324]),  # whose sums overflow, whose halves vanish
)
losses = st.one_of(finite_losses, finite_losses, st.sampled_from(NONFINITE))
maybe_losses = st.one_of(losses, losses, losses, st.none())


class Arrival(NamedTuple):
    """A report with what an adapter hears beside it."""

    report: Report
    checkpoint: bool
    since_restore: int | None


@st.composite
def curves(draw, *, max_size: int = 15, metrics: tuple[str, ...] = ("grad_norm",)) -> list[Report]:
    """Reports of one trial as a rule sees them: steps with gaps and repeats, never falling."""
    step, reports = draw(st.sampled_from([0.0, 1.0, 5.0])), []
    for loss in draw(st.lists(maybe_losses, max_size=max_size)):
        carried = {key: draw(losses) for key in metrics if draw(st.booleans())}
        reports.append(Report("trial", step, loss, carried))
        step += draw(st.sampled_from([0.0, 1.0, 1.0, 1.0, 0.5, 7.0]))
    return reports


@st.composite
def arrivals(draw, *, max_size: int = 25) -> list[Arrival]:
    """Reports of one trial as an adapter sees them: restarts, repeats, clocks that run back."""
    step, since, found = 0, 0, []
    for loss in draw(st.lists(maybe_losses, max_size=max_size)):
        kind = draw(st.sampled_from(["on", "on", "on", "repeat", "restart", "backwards"]))
        if kind == "on" or not found:
            step, since = step + draw(st.sampled_from([1, 1, 3])), since + 1
        elif kind == "restart":
            step, since = draw(st.integers(1, max(step, 1))), 1
        elif kind == "backwards":
            step, since = max(step - 1, 1), since + 1
        report = Report("trial", step, loss)
        found.append(Arrival(report, draw(st.booleans()), since))
    return found
