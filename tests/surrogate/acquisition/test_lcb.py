"""Which configuration starts next."""

import math

import numpy as np
import pytest

from tune_stoppers.surrogate.acquisition.lcb import LowerConfidenceBound
from tune_stoppers.surrogate.trial_scores import TrialLosses, normal_scores


def configs(n, seed):
    chance = np.random.default_rng(seed)
    return [{"lr": float(10 ** chance.uniform(-5, -1)), "seed": i} for i in range(n)]


def loss_of(config):
    return (math.log10(config["lr"]) + 3) ** 2


def reports(known):
    return [(config, TrialLosses((loss_of(config),), loss_of(config))) for config in known]


def test_it_starts_what_promises_most() -> None:
    """Its picks are far better than those waiting, nearly all in the best fifth."""
    known, waiting = configs(40, 1), configs(100, 2)
    order = LowerConfidenceBound(explore=0.0)
    known_reports, picked = reports(known), []
    for number in range(10):
        pick = order.choose(waiting, known_reports, picks=40 + number)
        config = waiting.pop(pick.position)
        picked.append(loss_of(config))
        known_reports += reports([config])
        assert "the model expects" in pick.why
    best_fifth = sorted(map(loss_of, configs(100, 2)))[20]
    assert sum(loss <= best_fifth for loss in picked) >= 8


def test_at_first_and_now_and_then_the_order_given_holds() -> None:
    """Before eight trials have reported, and for one pick in ten."""
    order, waiting = LowerConfidenceBound(), configs(50, 2)
    for n in range(8):
        assert order.choose(waiting, reports(configs(n, 1)), picks=n).position == 0
    known = reports(configs(40, 1))
    told = [order.choose(waiting, known, picks=n) for n in range(200)]
    given = [pick for pick in told if "random exploration" in pick.why]
    assert 8 <= len(given) <= 35
    assert {pick.position for pick in given} == {0}


def test_the_same_sweep_gets_the_same_picks() -> None:
    """Also from an order that was made anew, after a restore: the random part is the pick's own."""
    waiting, known = configs(300, 2), reports(configs(60, 1))
    one = LowerConfidenceBound().choose(waiting, known, picks=60)
    assert LowerConfidenceBound().choose(waiting, known, picks=60) == one


def test_trials_on_their_way_keep_others_from_the_same_place() -> None:
    """An order that looks for what is unknown does not send three workers to one place."""
    known = reports(configs(12, 1))
    waiting = configs(30, 2)
    order = LowerConfidenceBound(explore=0.0, optimism=10.0)
    first = order.choose(waiting, known, picks=12)
    again = order.choose(waiting, known, [dict(waiting[first.position])] * 3, picks=12)
    assert again.position != first.position


def test_large_sweeps_are_thinned() -> None:
    """Of 1,000 known and 1,000 waiting, a pick is still a good one."""
    known, waiting = reports(configs(1_000, 1)), configs(1_000, 2)
    place = LowerConfidenceBound(explore=0.0).choose(waiting, known, picks=1_000).position
    assert loss_of(waiting[place]) < 0.3


def test_one_alone_is_not_compared() -> None:
    """A searcher with a limit leaves one waiting at a time: no model is made for it."""
    pick = LowerConfidenceBound(explore=0.0).choose(
        configs(1, 2), reports(configs(40, 1)), picks=40
    )
    assert pick == (0, "no other one waits")


def test_nothing_to_learn_from_is_said() -> None:
    """Configurations that are all alike start in the order given."""
    known = [({"lr": 1}, TrialLosses((), float(n))) for n in range(10)]
    pick = LowerConfidenceBound(explore=0.0).choose([{"lr": 1}] * 3, known, picks=10)
    assert pick.position == 0
    assert "do not differ" in pick.why


def test_trials_that_all_diverged_are_no_error() -> None:
    """Every loss infinite: all are equally bad."""
    known = [(config, TrialLosses((math.inf,), math.inf)) for config in configs(10, 1)]
    assert (
        0 <= LowerConfidenceBound(explore=0.0).choose(configs(5, 2), known, picks=10).position < 5
    )


def test_pairs_are_compared_where_both_have_been() -> None:
    """A young trial that leads at the first rung is no worse for having had less time."""
    standings = [
        TrialLosses((5.0, 1.0), 1.0),  # the oldest
        TrialLosses((4.0,), 4.0),  # led it at the first rung
        TrialLosses((6.0,), 6.0),
        TrialLosses((), 9.0),  # not at a rung yet: by the best so far
    ]
    scores = normal_scores(standings)
    assert scores.argsort().tolist() == [1, 0, 2, 3]
    assert normal_scores([TrialLosses((), 1.0), TrialLosses((), 1.0)]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"least": 1}, "least must be >= 2, got 1"),
        ({"explore": 1.5}, "explore must be <= 1, got 1.5"),
        ({"optimism": -1}, "optimism must be >= 0, got -1"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
    ],
)
def test_bad_parameters_are_named(given, message) -> None:
    """One clear error, with the value given."""
    with pytest.raises(ValueError, match=message):
        LowerConfidenceBound(**given)


def test_scores_among_some_are_in_the_same_order() -> None:
    """Compared with every second one, the others keep their places."""
    standings = [TrialLosses((float(i),), float(i)) for i in range(20)]
    some = normal_scores(standings, np.arange(0, 20, 2))
    assert (np.argsort(some, kind="stable") == np.arange(20)).all()
    assert some == pytest.approx(normal_scores(standings), abs=0.35)


class Tagged:
    """A prior that knows what the model cannot see: texts that all differ are names to it."""

    def __init__(self, sign=1.0):
        self.sign = sign

    def expected(self, configs):
        return np.array([self.sign * float(config["tag"]) for config in configs])


def tagged(n, seed):
    chance = np.random.default_rng(seed)
    return [
        {"lr": float(chance.uniform()), "tag": str(value)} for value in chance.standard_normal(n)
    ]


def as_tagged(known):
    return [(config, TrialLosses((), float(config["tag"]))) for config in known]


def test_a_prior_goes_first_and_is_kept_where_it_comes_true() -> None:
    """Where it is contradicted the model chooses as it does without one."""
    known, waiting = tagged(12, 1), tagged(20, 2)
    best = int(np.argmin([float(config["tag"]) for config in waiting]))
    options = {"explore": 0.0, "optimism": 0.5}
    order = LowerConfidenceBound(Tagged(), **options)
    first = order.choose(waiting, [], picks=0)
    assert first.position == best
    assert first.why.startswith("earlier sweeps expect it ")
    assert order.choose(waiting, [], picks=4).position == 0  # one in five is the next given
    later = order.choose(waiting, as_tagged(known), picks=12)
    assert later.position == best
    assert "the model expects" in later.why
    assert "; earlier sweeps expect it " in later.why
    plain = LowerConfidenceBound(**options).choose(waiting, as_tagged(known), picks=12)
    wrong = LowerConfidenceBound(Tagged(-1.0), **options)
    assert wrong.choose(waiting, as_tagged(known), picks=12).position == plain.position != best
