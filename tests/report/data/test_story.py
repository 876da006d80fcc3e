"""What a story works out of its trials."""

import math

import pytest

from tune_stoppers.report.data.story import Ending, Span, Story, TrialStory, Would

DONE = Ending("finished", "finished", "ran to the last step")


def told(values, *, config=None, mode="min", ending=DONE, times=None, **more) -> TrialStory:
    curve = tuple((float(step), value) for step, value in enumerate(values, start=1))
    finite = [(v if mode == "min" else -v, s) for s, v in curve if math.isfinite(v)]
    loss, step = min(finite, default=(math.nan, math.nan))
    return TrialStory(
        trial_id=more.pop("trial_id", f"t{id(values)}"),
        config=config or {},
        curve=curve,
        times=tuple(times or [math.nan] * len(curve)),
        ending=ending,
        best_step=step,
        best_value=loss if mode == "min" else -loss,
        last_step=float(len(values)),
        reports=len(values),
        **{"spent": float(len(values))} | more,
    )


def story_of(*trials: TrialStory, mode="min", **more) -> Story:
    known = {"name": "s", "source": "experiment", "place": "/s", "rule": "", "metric": "loss"}
    known |= {"time_attr": "step", "clock": "s", "basis": ""}
    return Story(trials=trials, mode=mode, **known | more)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_best_trial_in_both_modes(mode):
    """Trials without a finite value are not ranked."""
    sign = 1 if mode == "min" else -1
    trials = [told([sign * v], mode=mode, trial_id=str(v)) for v in (3.0, 1.0, 2.0)]
    story = story_of(*trials, told([math.nan], mode=mode), mode=mode)
    assert [trial.trial_id for trial in story.ranked] == ["1.0", "2.0", "3.0"]
    assert story.best.trial_id == "1.0"
    assert story_of(told([math.nan])).best is None


def test_the_best_so_far_follows_the_clock_and_the_envelope_the_steps():
    """A trial that started later may be better at an earlier step."""
    first = told([3.0, 2.0], times=[1.0, 2.0], trial_id="first")
    second = told([1.0, 0.5], times=[3.0, 4.0], trial_id="second")
    story = story_of(first, second)
    assert [(time, value) for time, value, _ in story.incumbent] == [
        *((1.0, 3.0), (2.0, 2.0), (3.0, 1.0), (4.0, 0.5)),
    ]
    assert story.envelope == ((1.0, 3.0), (1.0, 1.0), (2.0, 0.5))


def test_lanes_are_as_many_as_ran_at_a_time():
    """One that begins when another ends takes its lane; hosts are apart."""
    spans = [(0, 2, "a"), (1, 3, "a"), (2, 4, "a"), (0, 9, "b")]
    trials = [told([1.0], spans=(Span(begin, end, place),)) for begin, end, place in spans]
    lanes = [(place, [span.begin for span, _ in lane]) for place, lane in story_of(*trials).lanes]
    assert lanes == [("a", [0, 2]), ("a", [1]), ("b", [0])]


def test_parameters_are_ordered_by_what_they_tell():
    """What is the same in all is not swept; values of several kinds are categories."""
    odd = (1, "auto", None, True)
    trials = [
        told(
            [float(lr)],
            config={"seed": lr * 7 % 12, "odd": odd[lr % 4], "lr": lr, "opt": "x" * (lr // 6)},
        )
        for lr in range(12)
    ]
    story = story_of(*trials)
    assert [p.name for p in story.swept][:2] == ["lr", "opt"]
    lr, opt = story.swept[:2]
    assert story.strength(lr) > story.strength(opt) > 0.8
    assert not next(p for p in story.parameters if p.name == "odd").numeric
    same = story_of(*(told([1.0], config={"same": 1}) for _ in range(12)))
    assert same.swept == []


def test_of_few_trials_nothing_is_said_of_their_parameters():
    """They keep the order first met."""
    story = story_of(*(told([float(n)], config={"a": 1 - n, "lr": n}) for n in range(2)))
    assert [p.name for p in story.swept] == ["a", "lr"]
    assert all(math.isnan(story.strength(p)) for p in story.swept)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_trial_is_judged_by_what_it_trained(mode):
    """Not by the untrained model, which is better than one that diverged, and alike in all."""
    sign = 1 if mode == "min" else -1
    good = told([sign * 9.0, sign * 3.0], mode=mode, untrained=1.0)
    worse = told([sign * 9.0, sign * 10.0], mode=mode, untrained=1.0)
    diverged = told([sign * 9.0, math.nan], mode=mode, untrained=1.0)
    only = told([sign * 9.0], mode=mode, untrained=1.0)
    story = story_of(good, worse, diverged, only, mode=mode)
    assert story.outcomes[:3] == (3.0, 10.0, math.inf)
    assert math.isnan(story.outcomes[3])
    assert story.judged == 3


def test_an_integer_too_large_for_a_float_is_no_number():
    """A configuration may hold any: such a parameter has categories."""
    (huge,) = story_of(*(told([1.0], config={"huge": 10**400 + n}) for n in range(2))).parameters
    assert not huge.numeric


def test_a_dry_run_counts_only_what_came_after_its_decisions():
    """And what would have been found before them."""
    stopped = told([3.0, 1.0], would=Would(1.0, "why", 7.0, 1))
    story = story_of(stopped, told([2.0, 1.5]))
    assert (story.dry_run.spared, story.dry_run.best_value) == (7.0, 1.5)
    assert story_of(told([1.0])).dry_run is None


def test_causes_are_grouped_by_kind_and_then_by_number():
    """Those that ran through come first, what failed late."""
    endings = [("failed", "failed"), ("stopped", "A"), ("stopped", "B"), ("stopped", "B")]
    trials = [told([1.0], ending=Ending(kind, cause, "")) for kind, cause in endings]
    assert list(story_of(*trials, told([1.0])).causes) == ["finished", "B", "A", "failed"]


def test_nothing_spent_is_no_share():
    """Instead of a division by zero."""
    assert math.isnan(story_of(told([1.0], spent=0.0)).share)


def test_what_is_not_known_is_in_no_sum():
    """A trial whose savings nobody can tell, beside one whose can; and alone."""
    unknown = told([1.0], saved=math.nan, cut_short=True)
    story = story_of(told([1.0] * 3, saved=1.0, cut_short=True), unknown)
    assert (story.spent, story.saved, story.share) == (4.0, 1.0, 0.2)
    assert math.isnan(story_of(unknown).share)


def test_to_lack_a_hyperparameter_is_a_choice():
    """Clipped at 1 or not at all: it was swept. Of numbers that differ, trials without are left
    out; of words, none is one."""
    configs = [
        {"clip": None, "lr": 0.1, "schedule": "cosine"},
        {"clip": 1.0, "lr": 0.2, "schedule": "linear"},
        {"clip": 1.0},
    ]
    story = story_of(*(told([1.0], config=config) for config in configs))
    assert {p.name: (p.distinct, p.numeric) for p in story.swept} == {
        "clip": (["1.0", "none"], False),
        "lr": ([0.1, 0.2], True),
        "schedule": (["cosine", "linear", "none"], False),
    }
