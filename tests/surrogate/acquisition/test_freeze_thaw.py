"""Whether to start a new trial or go on with a paused one, and which."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from tune_stoppers.surrogate.acquisition import freeze_thaw as thaw
from tune_stoppers.surrogate.acquisition.freeze_thaw import (
    LEFT,
    OWN,
    Candidate,
    FreezeThawAcquisition,
    StartedTrial,
)
from tune_stoppers.surrogate.gaussian_process import JITTER
from tune_stoppers.surrogate.trial_scores import TrialLosses, normal_scores

FIRST_RUNG = 0.04


def configs(n: int, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [{"lr": float(10 ** rng.uniform(-5, -1)), "seed": i} for i in range(n)]


def loss_of(config: dict[str, Any]) -> float:
    return (math.log10(config["lr"]) + 3) ** 2


def begun(config: dict[str, Any], loss: float | None = None, **more: Any) -> StartedTrial:
    """A trial that is at the first of the rungs 0.04, 0.12, 0.36, and waits there."""
    loss = loss_of(config) if loss is None else loss
    given = {"done": FIRST_RUNG, "ahead": 0.08, "beyond": 0.88, "waits": True}
    return StartedTrial(config, TrialLosses((loss,), loss), **given | more)


def choose(
    new: list[dict[str, Any]], trials: list[StartedTrial], awaited: Any = (), **more: Any
) -> Candidate:
    """What an order says that leaves nothing to chance."""
    given: dict[str, Any] = {"first_rung": FIRST_RUNG, "picks": len(trials)}
    offer = FreezeThawAcquisition(explore=0.0).choose(new, trials, awaited, **given | more)
    assert offer is not None
    return offer


# -- the formula ---------------------------------------------------------------------------------


def test_the_formula_by_hand() -> None:
    """Three trials of one configuration at different ages: beliefs by plain conditioning.

    How a trial ends is g + h, what is seen of it g + h + e, where g is the same for all.
    """
    trials = [
        begun({}, 1.0, done=0.04, waits=True, ahead=0.1, beyond=0.8),
        begun({}, 2.0, done=0.36, waits=True, ahead=0.7, beyond=0.0),
        begun({}, 3.0, done=1.0, waits=False, ahead=0.0, beyond=0.0),
    ]
    order = FreezeThawAcquisition()
    offer = order.choose([], trials, first_rung=FIRST_RUNG, picks=0)
    assert offer is not None
    process = order._model._process
    assert process is not None

    g, noise = process.scale, process.noise
    h = OWN * noise
    e = (1 - OWN) * noise * np.array([1 - (1 - LEFT) * math.sqrt(t.done) for t in trials])
    seen = normal_scores([t.standing for t in trials])
    told = g + np.diag(h + e + JITTER)  # covariance of what is seen
    asked = g + np.diag([h] * 3)  # of how they end, and with what is seen
    mean = asked @ np.linalg.solve(told, seen)
    sd = np.sqrt(np.diag(asked - asked @ np.linalg.solve(told, asked)))
    target = [mean[1:].min(), mean[::2].min()]
    chances = [norm.cdf((t - m) / s) for t, m, s in zip(target, mean, sd, strict=False)]
    worth = [chances[0] / (0.1 + chances[0] * 0.8), chances[1] / 0.7]
    best = int(np.argmax(worth))
    assert offer.position == best
    assert offer.probability == pytest.approx(chances[best], rel=1e-3)
    assert offer.worth == pytest.approx(worth[best], rel=1e-3)
    assert f"({mean[best]:+.2f} ± {sd[best]:.2f} of a normal score" in offer.why


def test_a_new_one_of_which_nothing_is_known_is_like_any_other() -> None:
    """One of so many, that must come to the first rung, and to the end if it is the best."""
    assert FreezeThawAcquisition().worth_of_any(9, 0.04) == pytest.approx(0.1 / (0.04 + 0.1 * 0.96))
    assert FreezeThawAcquisition().worth_of_any(0, 1.0) == 1.0


# -- who is worth most ---------------------------------------------------------------------------


def worst_first(n: int) -> list[dict[str, Any]]:
    return sorted(configs(n, 1), key=loss_of, reverse=True)


def test_a_promising_trial_that_waits_goes_before_a_new_one() -> None:
    """The best of twelve, where the new ones are like the worst of them."""
    known = worst_first(12)
    offer = choose([{"lr": 1e-5, "seed": 0}, {"lr": 1.1e-5, "seed": 1}], [begun(c) for c in known])
    assert offer.position == 2 + 11
    assert offer.probability > 0.3


def test_a_promising_new_one_goes_before_those_that_wait() -> None:
    """The best is running: those that wait are far from it, and one new one is next to it."""
    known = worst_first(30)
    trials = [begun(c, waits=place < 10) for place, c in enumerate(known)]
    new = [{"lr": 1e-5, "seed": 0}, {"lr": known[-1]["lr"] * 1.001, "seed": 1}]
    assert choose(new, trials).position == 1


def test_what_a_resume_costs_shifts_the_choice() -> None:
    """Of two that are alike in all else the nearer; and rather a new one than a dear resume."""
    known = worst_first(12)
    trials = [begun(c, waits=place == 11) for place, c in enumerate(known)]
    twin = begun(known[-1], ahead=0.5)
    assert choose([], [*trials, twin]).position == 11
    assert choose([], [twin, *trials]).position == 12
    new = [{"lr": known[-1]["lr"] * 1.01, "seed": 1}]
    assert choose(new, trials).position == 1 + 11
    trials[11] = trials[11]._replace(ahead=1.5)
    assert choose(new, trials).position == 0


def test_an_early_report_says_less_than_a_late_one() -> None:
    """Of two with the same loss the younger may still be anything."""
    trials = [begun({}, float(n), done=0.9, waits=False) for n in range(8)]

    def chance_of(done: float) -> float:
        return choose([], [*trials, begun({}, 7.0, done=done)]).probability

    assert chance_of(0.04) > 1.2 * chance_of(0.9)


def test_what_has_next_to_no_chance_is_chosen_only_if_there_is_nothing_else() -> None:
    """However little it takes to find out."""
    ended = [begun({}, loss, done=1.0, waits=False) for loss in (1.0, 5.0, 6.0, 7.0, 8.0)]
    fair = begun({}, 2.0, ahead=0.96, beyond=0.0)
    poor = begun({}, 6.5, ahead=1e-4, beyond=0.95)
    any_chance = choose([], [fair, poor, *ended])
    assert any_chance.position == 1
    better = choose([], [fair, poor, *ended], least_probability=1.5 * any_chance.probability)
    assert better.position == 0
    assert better.probability > 2 * any_chance.probability
    alone = choose([], [poor, *ended], least_probability=0.9)
    assert (alone.position, alone.probability < 0.9) == (0, True)


def test_trials_on_their_way_keep_others_from_the_same_place() -> None:
    """Where three have been sent, there is less to find out."""
    known = [begun({"name": name}, n, waits=False) for n, name in enumerate("aabbeeff", 1)]
    new = [{"name": "c"}, {"name": "d"}]
    assert choose(new, known).position == 0
    assert choose(new, known, [{"name": "c"}] * 3).position == 1


# -- when the model has no say -------------------------------------------------------------------


def test_the_first_ones_start_in_the_order_given() -> None:
    """Until eight have reported, also while those wait."""
    new = configs(50, 2)
    for n in range(8):
        offer = choose(new, [begun(c) for c in configs(n, 1)])
        assert (offer.position, offer.why) == (0, "the first 8 trials start in the order given")
    assert "order given" not in choose(new, [begun(c) for c in configs(8, 1)]).why


def test_now_and_then_one_starts_in_the_order_given() -> None:
    """One choice in ten; but none on whether a trial goes on that has just come to a rung."""
    new, known = configs(20, 2), [begun(c) for c in configs(20, 1)]

    def given(**more: Any) -> int:
        order = FreezeThawAcquisition()
        told = [
            order.choose(new, known, first_rung=FIRST_RUNG, picks=n, **more) for n in range(100)
        ]
        return sum("random exploration" in offer.why for offer in told if offer)

    assert 3 <= given() <= 20
    assert given(arrives=True) == 0


def test_where_nothing_can_be_done_nothing_is_said() -> None:
    """No new one, and nobody waits."""
    order = FreezeThawAcquisition()
    assert order.choose([], [], first_rung=FIRST_RUNG, picks=0) is None
    known = [begun(c, waits=False) for c in configs(9, 1)]
    assert order.choose([], known, first_rung=FIRST_RUNG, picks=9) is None


def test_one_alone_goes_on() -> None:
    """There is no other to compare it with."""
    offer = choose([], [begun({"lr": 1e-3})])
    assert offer == (0, 1.0, 1.0, "no other one is there to compare with")


# -- odd sweeps ----------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{}, {"lr": 1e-3}, {"opt": {"lr": None, "name": "sgd"}}])
def test_configurations_that_do_not_differ_are_compared_by_what_is_seen(config: Any) -> None:
    """The best of those that wait."""
    losses = [4.0, 5.0, 1.0, 3.0, 6.0, 7.0, 8.0, 9.0, 2.0]
    offer = choose([], [begun(dict(config), loss) for loss in losses])
    assert offer.position == 2


def test_trials_that_all_diverged_are_no_error() -> None:
    """Every loss infinite: all are equally bad, and a choice is made."""
    trials = [
        StartedTrial(c, TrialLosses((), math.inf), 1.0, 0.0, 0.0, False) for c in configs(10, 1)
    ]
    assert 0 <= choose(configs(5, 2), trials).position < 5
    waiting = [begun(c, math.inf) for c in configs(10, 1)]
    assert 0 <= choose([], waiting).position < 10


def test_the_same_sweep_gets_the_same_choice() -> None:
    """Also from an order that was made anew, after a restore, and where chance thins it."""
    new, known = configs(300, 2), [begun(c) for c in configs(150, 1)]
    order = FreezeThawAcquisition()
    one = order.choose(new, known, first_rung=FIRST_RUNG, picks=7)
    assert FreezeThawAcquisition().choose(new, known, first_rung=FIRST_RUNG, picks=7) == one
    assert order.choose(new, known, first_rung=FIRST_RUNG, picks=7) == one


def test_large_sweeps_are_thinned() -> None:
    """Of 300 new ones, with 150 that have ended, the choice is still a good one."""
    known = [begun(c, done=1.0, waits=False) for c in configs(150, 1)]
    new = configs(300, 2)
    places = [choose(new, known, picks=n).position for n in range(5)]
    assert all(loss_of(new[place]) < 0.3 for place in places)
    assert max(places) >= thaw.MOST_ASKED  # a place among all


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"least": 1}, "least must be >= 2, got 1"),
        ({"explore": 1.5}, "explore must be <= 1, got 1.5"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
    ],
)
def test_bad_parameters_are_named(given: Any, message: str) -> None:
    """One clear error, with the value given."""
    with pytest.raises(ValueError, match=message):
        FreezeThawAcquisition(**given)


def test_a_prior_goes_first_and_is_kept_where_it_comes_true() -> None:
    """Of configurations that do not differ in anything that the model can see.

    Trials that have begun are judged with it too; a prior that is contradicted changes nothing.
    """

    class Tagged:
        def __init__(self, sign: float) -> None:
            self.sign = sign

        def expected(self, configs: Any) -> Any:
            return np.array([self.sign * float(config["tag"]) for config in configs])

    def tagged(n: int, seed: int) -> list[dict[str, Any]]:
        chance = np.random.default_rng(seed)
        return [
            {"lr": float(chance.uniform()), "tag": str(value)}
            for value in chance.standard_normal(n)
        ]

    new = tagged(20, 2)
    trials = [begun(config, float(config["tag"]), waits=False) for config in tagged(12, 1)]
    best = int(np.argmin([float(config["tag"]) for config in new]))

    def chosen(prior: Any, known: list[StartedTrial], picks: int) -> Candidate:
        order = FreezeThawAcquisition(prior, explore=0.0)
        offer = order.choose(new, known, first_rung=FIRST_RUNG, picks=picks)
        assert offer is not None
        return offer

    assert chosen(Tagged(1), [], 0).position == best
    assert chosen(Tagged(1), [], 4).position == 0  # one in five is the next given
    later = chosen(Tagged(1), trials, 12)
    assert later.position == best
    assert "; earlier sweeps expect it " in later.why
    assert chosen(Tagged(-1), trials, 12).position == chosen(None, trials, 12).position != best
