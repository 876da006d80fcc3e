"""The prior of a sweep at hand: what is expected, how much it is trusted, what is said of it."""

import json
import pickle

import numpy as np
import pytest
from scipy.stats import kendalltau

from tune_stoppers import example_path
from tune_stoppers.codec import pack, unpack
from tune_stoppers.history import History
from tune_stoppers.history.sources import LORA_FOLDER, contents_of
from tune_stoppers.recorded.sweep import Sweep

ALIKE = ("docstring", "problems", "translate_fr")  # over the same space
LORA = [Sweep.from_parquet(LORA_FOLDER / f"lora_{name}.parquet") for name in ALIKE]


def finals(sweep):
    metric, mode = sweep.objective()
    return np.array([curve.losses(metric, mode).min() for curve in sweep])


def configs_of(sweep, *names):
    return [{name: curve.config[name] for name in names} for curve in sweep]


def dealt(sweep, seed=0):
    """The same sweep, its outcomes dealt out anew among the configurations."""
    order = np.random.default_rng(seed).permutation(len(sweep))
    frame = sweep.frame
    ids = sweep.trial_ids
    other = {ids[a]: sweep.curves[b].config for a, b in enumerate(order)}
    for name in [column for column in frame if column.startswith("config/")]:
        frame[name] = [other[trial][name[len("config/") :]] for trial in frame["trial_id"]]
    return Sweep.from_frame(frame, name="dealt", metric="eval_loss", mode="min")


@pytest.mark.parametrize("left_out", range(3))
def test_other_sweeps_rank_the_configurations_of_a_new_one(left_out):
    """Recorded LoRA fine-tunes: two of them know a good part of the third's ranking."""
    new = LORA[left_out]
    prior = History.of([s for s in LORA if s is not new]).prior(list(new.configs.values()))
    assert kendalltau(prior.expected, finals(new))[0] > 0.35
    assert prior.trust == 1
    misses = np.abs(prior.expected) < 3 * np.maximum(prior.sd, 1)
    assert misses.all()
    assert (prior.sd > 0.1).all()


def test_outcomes_that_mean_nothing_expect_little():
    """With outcomes dealt out at random the ranking is one at random, and the belief is weak."""
    new, *others = LORA
    configs = list(new.configs.values())
    prior = History.of([dealt(sweep) for sweep in others]).prior(configs)
    right = History.of(others).prior(configs)
    assert abs(kendalltau(prior.expected, finals(new))[0]) < 0.2
    assert prior.expected.std() < 0.75 * right.expected.std()


def test_names_and_units_of_another_sweep():
    """Aliases, nesting, a metric to be maximised, in per cent: the same is expected."""
    old, new = LORA[0], LORA[1]
    names = ("learning_rate", "lora_rank")
    plain = History.of(old).prior(configs_of(new, *names))
    nested = [
        {"opt": {"lr": c["learning_rate"]}, "r": c["lora_rank"]} for c in configs_of(new, *names)
    ]
    frame = old.frame
    frame["score"] = 100 - 100 * frame["eval_loss"]
    turned = Sweep.from_frame(frame, name=old.name, metric="score", mode="max")
    other = History.of(turned).prior(nested)
    assert other.expected == pytest.approx(plain.expected, abs=1e-3)
    assert any("opt/lr (there learning_rate), r (there lora_rank)" in line for line in other.said)


def test_trust_is_the_share_of_what_varies_that_is_known():
    """And it is said what is not; a seed is no hyperparameter."""
    configs = [{"lr": 10.0**-k, "prompt": f"p{k % 2}", "seed": k} for k in range(2, 5)]
    prior = History.of(LORA[0]).prior(configs)
    assert prior.trust == 0.5
    (line,) = prior.said
    assert line.endswith(
        "60 trials; 1 of the 2 hyperparameters that vary here: lr (there learning_rate); nothing "
        "is known of prompt."
    )


def test_nothing_in_common():
    """Nothing is expected of anything, and each sweep is told of in a sentence."""
    prior = History.of(LORA[:1]).prior([{"depth": 1}, {"depth": 2}])
    assert (prior.expected == 0).all()
    assert (prior.sd == 1).all()
    assert prior.trust == 0
    assert "varied none of the hyperparameters that vary here (depth)" in prior.said[0]
    far = History.of(LORA[:1]).prior([{"lr": 10.0}, {"lr": 20.0}])
    assert far.trust == 0
    assert "lr was 1.248e-05 to 0.02853 there and is 10 to 20 here" in far.said[0]


def test_a_sweep_that_knows_much_less_than_another_is_left_out():
    """It would say of most hyperparameters nothing."""
    new = LORA[2]
    configs = configs_of(new, "learning_rate", "lora_rank", "schedule")
    small = Sweep.from_frame(
        LORA[1].frame[["trial_id", "training_iteration", "eval_loss", "config/schedule"]],
        name="small",
        metric="eval_loss",
        mode="min",
    )
    alone = History.of(LORA[0]).prior(configs)
    both = History.of([LORA[0], small]).prior(configs)
    assert both.expected.tolist() == alone.expected.tolist()
    assert both.said[1] == (
        "small is left out: it knows 1 of the 3 hyperparameters that vary here, another sweep 3."
    )


def test_a_growing_pool_keeps_what_was_expected():
    """As with a searcher, which suggests one configuration after another."""
    history = History.of(LORA[:2])
    configs = list(LORA[2].configs.values())
    few, many = history.prior(configs[:10]), history.prior(configs)
    assert many.expected[:10] == pytest.approx(few.expected)
    one = history.prior(configs[:1])
    assert one.trust == 1
    assert history.prior([]).expected.shape == (0,)


def test_it_survives_pickle_and_a_journal():
    """Without the files that it came from, and with the same beliefs."""
    history = History.of(LORA, rename={"targets": "modules"})
    configs = [{"lr": 1e-3, "modules": "qv"}, {"lr": 1e-5, "modules": "all"}]
    prior = history.prior(configs)
    text = json.dumps(pack(history))
    assert len(text) < 50_000
    for copy in (pickle.loads(pickle.dumps(history)), unpack(json.loads(text), History)):
        assert copy == history
        assert copy.prior(configs).expected.tolist() == prior.expected.tolist()
        assert copy.prior(configs).said == prior.said
    assert History.of(history) is history


def test_a_rename_of_nothing_is_said():
    """A misspelt name would else be lost without a word."""
    history = History.of(LORA[0], rename={"lora_rnk": "rank"})
    assert history.said == ("rename: no earlier sweep has 'lora_rnk'. Did you mean 'lora_rank'?",)


def test_the_sweep_of_the_package_is_history_too():
    """The example, read by its path."""
    history = History.of(example_path())
    assert len(history.sweeps) == 1


def test_a_sweep_can_be_left_out():
    """By its content, as it is thinned or whole, and that is said; others stay as they were."""
    history = History.of(LORA)
    contents = contents_of(LORA[1])
    fewer = history.without(contents, "no reason")
    assert [sweep.name for sweep in fewer.sweeps] == [LORA[0].name, LORA[2].name]
    assert fewer.said == (f"{LORA[1].name} is left out of the history: no reason.",)
    assert fewer.without(contents, "no reason") is fewer
    configs = list(LORA[1].configs.values())
    alone = History.of([LORA[0], LORA[2]])
    assert (fewer.prior(configs).expected == alone.prior(configs).expected).all()
