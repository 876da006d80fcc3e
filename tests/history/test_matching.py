"""What an earlier sweep knows of the hyperparameters at hand."""

from tune_stoppers.history.matching import matched
from tune_stoppers.history.past_sweep import PastSweep


def past(**columns):
    """A sweep with these hyperparameters."""
    size = len(next(iter(columns.values())))
    return PastSweep("old", size, columns, tuple(map(float, range(size))), (1.0,) * size)


def test_names_are_found_and_those_that_vary_are_counted():
    """A constant here that varied there is used, and is no part of what varies."""
    old = past(learning_rate=(0.1, 0.2, 0.3), r=(4.0, 8.0, 8.0), wd=(0.0, 0.0, 0.0))
    match = matched([{"lr": 0.15, "lora_r": 8.0, "wd": 0.0}, {"lr": 0.3, "lora_r": 8.0}], old, {})
    assert match.names == {"lr": "learning_rate", "lora_r": "r"}
    assert match.covered == ("lr",)
    assert match.unknown == ("wd",)


def test_ranges_that_do_not_overlap_say_nothing():
    """And a sentence says which; texts overlap if they share a value."""
    old = past(lr=(1e-5, 1e-4, 1e-4), mode=("a", "b", "b"), kind=("x", "y", "y"))
    here = [{"lr": 0.1, "mode": "b", "kind": "p"}, {"lr": 1.0, "mode": "c", "kind": "q"}]
    match = matched(here, old, {})
    assert match.covered == ("mode",)
    assert match.apart == (
        "lr was 1e-05 to 0.0001 there and is 0.1 to 1 here",
        "kind was x, y there and is p, q here",
    )


def test_a_number_is_no_text():
    """What is a number here and a word there cannot be compared."""
    match = matched([{"warmup": 0.1}, {"warmup": 0.2}], past(warmup=("auto", "off", "off")), {})
    assert not match.names
    assert match.apart == ("warmup was auto, off there and is 0.1 to 0.2 here",)


def test_a_renamed_hyperparameter_is_found():
    """By the name that the user gave it."""
    old = past(step_size=(0.1, 0.2, 0.3))
    here = [{"lr": 0.1}, {"lr": 0.2}]
    assert not matched(here, old, {}).names
    assert matched(here, old, {"step_size": "lr"}).names == {"lr": "step_size"}
