"""`BestStateKeeper`: which state is kept, that it is a copy, and that it comes back whole."""

import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from tune_stoppers.training.keeper import BestStateKeeper, NoBestStateError


@pytest.fixture(params=["memory", "disk"])
def directory(request, tmp_path):
    """The keeper's `directory` argument: none, or a folder that does not exist yet."""
    return None if request.param == "memory" else tmp_path / "best"


@pytest.fixture(autouse=True)
def same_random_generators():
    """Each test starts from the same state of all three generators."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


class Run:
    """A small training run whose every step needs all that the keeper keeps.

    Dropout draws from torch, the batch from numpy and the label noise from Python; AdamW has
    momenta and the schedule a position.
    """

    def __init__(self):
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Tanh(), nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=20)

    @property
    def parts(self):
        return self.model, self.optimizer, self.scheduler

    def train(self, steps):
        """The training loss of each step."""
        self.model.train()
        return [self._step() for _ in range(steps)]

    def _step(self):
        inputs = torch.from_numpy(np.random.randn(16, 4)).float()
        target = inputs.sum(1, keepdim=True) + random.random()
        loss = nn.functional.mse_loss(self.model(inputs), target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return loss.item()

    @torch.no_grad()
    def evaluate(self):
        self.model.eval()
        inputs = torch.linspace(-1, 1, 32).reshape(8, 4)
        return nn.functional.mse_loss(self.model(inputs), inputs.sum(1, keepdim=True)).item()


def constant(value):
    """A model of one parameter, so that its state is one number."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def offer_all(keeper, losses, model=None):
    """Offer loss after loss at steps 1, 2, …, the model's weight being the step."""
    model = model or constant(0.0)
    answers = []
    for step, loss in enumerate(losses, start=1):
        nn.init.constant_(model.weight, float(step))
        answers.append(keeper.offer(step, loss, model))
    return answers


def tiny_llama(**options):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        **options,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


def tiny_lora():
    from peft import LoraConfig, get_peft_model

    return get_peft_model(tiny_llama(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))


def train_language_model(model, steps=2):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    tokens = torch.arange(24).reshape(2, 12) % 32
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
    return optimizer


@torch.no_grad()
def language_loss(model):
    tokens = torch.arange(24).reshape(2, 12) * 7 % 32
    return model.eval()(input_ids=tokens, labels=tokens).loss.item()


# -- which state is best -----------------------------------------------------------------------


def test_the_lowest_loss_is_best(directory):
    """True is answered at each new lowest loss, and the best is the lowest of all."""
    keeper = BestStateKeeper(directory)
    assert offer_all(keeper, [3.0, 2.0, 2.5, -1.0, 0.0]) == [True, True, False, True, False]
    assert (keeper.best_step, keeper.best_loss) == (4, -1.0)


def test_a_tie_keeps_the_earlier_state(directory):
    """An equal loss does not replace the best."""
    keeper = BestStateKeeper(directory)
    assert offer_all(keeper, [1.0, 1.0]) == [True, False]
    restored = constant(0.0)
    assert keeper.restore(restored) == 1
    assert restored.weight.item() == 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_non_finite_loss_is_never_best(directory, bad):
    """NaN and infinities lose to every finite loss, first or last."""
    keeper = BestStateKeeper(directory)
    assert offer_all(keeper, [bad, 5.0, bad]) == [False, True, False]
    assert (keeper.best_step, keeper.best_loss) == (2, 5.0)


def test_restoring_without_a_best_is_an_error(directory):
    """With nothing finite offered there is no best, and `restore` says so."""
    keeper = BestStateKeeper(directory, keep="best+last")
    offer_all(keeper, [math.nan])
    assert keeper.best_step is None and keeper.best_loss is None
    with pytest.raises(NoBestStateError, match="no finite loss has been offered"):
        keeper.restore(constant(0.0))


def test_the_same_step_again_changes_nothing(directory):
    """A repeated step is no new best, even with another loss and other weights."""
    keeper = BestStateKeeper(directory)
    keeper.offer(1, 1.0, constant(1.0))
    assert keeper.offer(1, 0.5, constant(9.0)) is False
    restored = constant(0.0)
    keeper.restore(restored)
    assert (keeper.best_loss, restored.weight.item()) == (1.0, 1.0)


def test_a_rewound_run_may_improve_on_a_step_it_had_reached(directory):
    """After a restart from an earlier step, a better state of the same step becomes the best."""
    keeper = BestStateKeeper(directory)
    for step, loss, value in [(1, 3.0, 1.0), (2, 2.0, 2.0), (1, 3.0, 3.0), (2, 1.0, 4.0)]:
        keeper.offer(step, loss, constant(value))
    restored = constant(0.0)
    assert keeper.restore(restored) == 2
    assert (keeper.best_loss, restored.weight.item()) == (1.0, 4.0)


def test_numbers_of_torch_and_numpy_are_losses():
    """A one-element tensor and a numpy scalar are taken as the number they hold."""
    keeper = BestStateKeeper()
    keeper.offer(np.int64(3), torch.tensor(0.25), constant(1.0))
    assert (keeper.best_step, keeper.best_loss) == (3, 0.25)
    assert keeper.offer(4, np.float32(0.125), constant(1.0))


def test_the_epoch_comes_back_with_the_best(tmp_path):
    """Also from a folder that is opened again; None where none was given."""
    keeper = BestStateKeeper(tmp_path)
    assert keeper.best_epoch is None
    keeper.offer(10, 1.0, constant(1.0), epoch=0.5)
    assert (keeper.best_epoch, BestStateKeeper(tmp_path).best_epoch) == (0.5, 0.5)
    keeper.offer(20, 0.5, constant(1.0))
    assert keeper.best_epoch is None


@pytest.mark.parametrize("loss", [None, "0.5", True, torch.zeros(2)])
def test_a_loss_that_is_no_number_is_an_error(loss):
    """Anything but one real number is refused with its type."""
    with pytest.raises(TypeError, match=f"loss must be one real number, got {type(loss).__name__}"):
        BestStateKeeper().offer(1, loss, constant(1.0))


def test_parameters_are_checked_at_construction(tmp_path):
    """A wrong `keep`, `top_k` or `directory` is an error before training starts."""
    with pytest.raises(ValueError, match="'last'"):
        BestStateKeeper(keep="last")
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        BestStateKeeper(top_k=0)
    with pytest.raises(TypeError, match="top_k must be an int, got float"):
        BestStateKeeper(top_k=1.5)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file"):
        BestStateKeeper(tmp_path / "file")


# -- more than the best ------------------------------------------------------------------------


def test_best_and_last_are_both_at_hand(directory):
    """`keep="best+last"` restores either, and the last may be of any loss."""
    keeper = BestStateKeeper(directory, keep="best+last")
    offer_all(keeper, [2.0, 1.0, 3.0, math.nan])
    assert (keeper.best_step, keeper.last_step, keeper.steps) == (2, 4, (2, 4))
    model = constant(0.0)
    assert keeper.restore(model) == 2 and model.weight.item() == 2.0
    assert keeper.restore(model, step=4) == 4 and model.weight.item() == 4.0


def test_top_k_keeps_the_k_best(directory):
    """The k lowest losses stay, best first, and each is restored by its step."""
    keeper = BestStateKeeper(directory, top_k=2)
    assert offer_all(keeper, [3.0, 1.0, 2.0, 5.0]) == [True, True, False, False]
    assert keeper.steps == (2, 3)
    model = constant(0.0)
    keeper.restore(model, step=3)
    assert model.weight.item() == 3.0
    with pytest.raises(KeyError, match="no state of step 1 is kept; kept steps: \\[2, 3\\]"):
        keeper.restore(model, step=1)


def test_only_wanted_states_are_on_disk(tmp_path):
    """What is no longer wanted is removed, and no temporary folder stays behind."""
    offer_all(BestStateKeeper(tmp_path, keep="best+last", top_k=2), [5.0, 4.0, 3.0, 6.0, 7.0])
    assert sorted(folder.name for folder in tmp_path.iterdir()) == [
        "000002-step-2",
        "000003-step-3",
        "000005-step-5",
    ]


# -- what comes back ---------------------------------------------------------------------------


def test_the_best_state_does_not_go_on_training(directory):
    """The restored model gives its recorded loss exactly, after training has gone on."""
    run, keeper = Run(), BestStateKeeper(directory)
    run.train(5)
    recorded = run.evaluate()
    keeper.offer(5, recorded, *run.parts)
    run.train(5)
    assert run.evaluate() != recorded
    keeper.restore(run.model)
    assert run.evaluate() == recorded


def test_training_goes_on_bit_for_bit(directory):
    """With optimizer, scheduler and generators back, the curve is that of an unbroken run."""
    run, keeper = Run(), BestStateKeeper(directory)
    run.train(4)
    keeper.offer(4, 1.0, *run.parts)
    unbroken = run.train(6)
    other = Run()
    other.train(3)
    assert keeper.restore(*other.parts) == 4
    assert other.train(6) == unbroken


def test_a_restored_state_does_not_go_on_training_either(directory):
    """Training after a restore leaves the kept state as it was: it restores a second time."""
    run, keeper = Run(), BestStateKeeper(directory)
    run.train(4)
    keeper.offer(4, 1.0, *run.parts)
    curves = []
    for _ in range(2):
        keeper.restore(*run.parts)
        curves.append(run.train(5))
    assert curves[0] == curves[1]


def test_weights_alone_leave_the_generators_alone(directory):
    """Restoring without the optimizer, at the end of training, draws on as if not restored."""
    run, keeper = Run(), BestStateKeeper(directory)
    keeper.offer(1, 1.0, *run.parts)
    states = random.getstate(), torch.get_rng_state()
    unbroken = [(random.random(), np.random.rand(), torch.rand(1)) for _ in range(2)]
    random.setstate(states[0])
    np.random.seed(0)
    torch.set_rng_state(states[1])
    drawn = [(random.random(), np.random.rand(), torch.rand(1))]
    keeper.restore(run.model)
    drawn.append((random.random(), np.random.rand(), torch.rand(1)))
    assert drawn == unbroken


def test_offering_draws_no_random_number(directory):
    """A run that offers its states is the run that does not."""
    plain = Run().train(4)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    run, keeper, losses = Run(), BestStateKeeper(directory), []
    for step in range(4):
        losses += run.train(1)
        keeper.offer(step, losses[-1], *run.parts)
    assert losses == plain


@pytest.mark.parametrize("ending", [None, RuntimeError, KeyboardInterrupt])
def test_the_best_state_is_restored_on_every_ending(directory, ending):
    """`restoring` puts the best back whether the block ends by itself, an error or Ctrl-C."""
    keeper, model = BestStateKeeper(directory), constant(0.0)

    def train():
        with keeper.restoring(model):
            offer_all(keeper, [2.0, 1.0, 3.0], model)
            if ending is not None:
                raise ending

    if ending is None:
        train()
    else:
        with pytest.raises(ending):
            train()
    assert model.weight.item() == 2.0


def test_an_error_before_any_best_is_not_hidden():
    """`restoring` lets an early error through and leaves the model as it is."""
    model = constant(7.0)
    with pytest.raises(RuntimeError, match="early"), BestStateKeeper().restoring(model):
        raise RuntimeError("early")
    assert model.weight.item() == 7.0


# -- language models ---------------------------------------------------------------------------


# PEFT asks transformers for a property that transformers has renamed.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_lora_keeps_only_its_adapters(directory):
    """Of a PEFT model the trainable parameters are kept, and they reproduce the loss."""
    model, keeper = tiny_lora(), BestStateKeeper(directory)
    optimizer = train_language_model(model)
    recorded = language_loss(model)
    keeper.offer(1, recorded, model, optimizer)
    train_language_model(model)
    assert language_loss(model) != recorded

    fresh = tiny_lora()
    keeper.restore(fresh)
    assert language_loss(fresh) == recorded
    if directory is not None:
        from safetensors.torch import load_file

        [weights] = directory.glob("*/weights.safetensors")
        trained = {name for name, p in fresh.named_parameters() if p.requires_grad}
        assert set(load_file(weights)) == trained


def test_tied_weights_are_stored_once_and_restored_tied(directory):
    """Tied embeddings take room once, and are still one tensor after the restore."""
    model, keeper = tiny_llama(tie_word_embeddings=True), BestStateKeeper(directory)
    train_language_model(model)
    recorded = language_loss(model)
    keeper.offer(1, recorded, model)
    train_language_model(model)

    keeper.restore(model)
    assert language_loss(model) == recorded
    assert model.lm_head.weight is model.model.embed_tokens.weight
    if directory is not None:
        from safetensors.torch import load_file

        [weights] = directory.glob("*/weights.safetensors")
        stored = sum(tensor.numel() for tensor in load_file(weights).values())
        assert stored == sum(p.numel() for p in model.parameters())
