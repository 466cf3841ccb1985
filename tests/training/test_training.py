"""The training loop, its ledger, and the passes over data."""

import math
from dataclasses import replace
from itertools import islice, pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders.layered import RNG, VECTORS, layered, model_of, samples
from poison_audit.errors import DivergedError, PlanError
from poison_audit.models.seeds import Rng
from poison_audit.records import Recipe
from poison_audit.training import loop
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend
from poison_audit.training.modes import last_blocks
from poison_audit.training.scoring import correct, logits, losses


def train(model, *, steps=5, objective=lambda mean: mean, ledger=None, rng=RNG, lr=0.1, **settings):
    ledger = ledger or Ledger()
    batches = ((batch,) for batch in shuffled(VECTORS, 4, rng.named("batches")))
    descend(model, batches, objective, steps=steps, lr=lr, ledger=ledger, rng=rng, **settings)
    return ledger


# descend


def test_descend_charges_every_batch_and_keeps_every_loss():
    model, ledger = layered(), Ledger()
    pairs = zip(shuffled(VECTORS, 4, RNG), shuffled(VECTORS, 3, RNG), strict=False)
    descend(model, pairs, lambda a, b: a - 0 * b, steps=5, lr=0.1, ledger=ledger, rng=RNG)
    assert ledger.spent == 5 * 7
    assert len(ledger.losses) == 5


def test_frozen_parts_keep_every_bit_under_momentum_decay_and_noise():
    model = layered()
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    train(
        model,
        parameters=["1.0.weight", "1.0.bias", "1.1.weight", "1.1.bias"],
        **dict(noise=0.1, momentum=0.9, weight_decay=0.1, batch_norm="train"),
    )
    after = model.module.state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    # 1.2 has no parameters, so it goes only with all of them together.
    assert moved == {key for key in before if key.startswith(("1.0", "1.1"))}


@pytest.mark.parametrize("batch_norm", ["eval", "train", "joint"])
def test_running_statistics_move_only_when_asked(batch_norm):
    model = layered()
    before = {key: buffer.clone() for key, buffer in model.module.named_buffers()}
    weight = model.module[0][1].weight.clone()
    train(model, batch_norm=batch_norm)
    moved = [not torch.equal(buffer, before[key]) for key, buffer in model.module.named_buffers()]
    assert moved == [batch_norm != "eval"] * 12
    assert not torch.equal(model.module[0][1].weight, weight)  # the affine part moves anyway


def test_dropout_is_active_only_where_something_is_trained():
    model, modes = layered(), []
    for half in (0, 1):
        model.module[half][3].register_forward_hook(
            lambda part, _, __, half=half: modes.append((half, part.training))
        )
    train(model, steps=1, parameters=["1.0.weight"])
    assert modes == [(0, False), (1, True)]
    assert not any(part.training for part in model.module.modules())
    assert all(parameter.requires_grad for parameter in model.module.parameters())


def test_the_global_generator_is_left_alone_and_leaves_dropout_alone():
    digests = []
    for seed in (1, 2):
        model = layered()
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        train(model, noise=0.1)
        assert torch.equal(torch.get_rng_state(), state)
        digests.append(model.digest())
    assert digests[0] == digests[1]
    other = layered()
    train(other, noise=0.1, rng=Rng(5))
    assert other.digest() != digests[0]


class Slope(nn.Module):
    """One number, whose loss is itself: the gradient is always 1."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x):
        return self.theta.expand(len(x))


def slope(start=0.0):
    model = model_of(Slope(), lambda module, batch: module(batch.x))
    with torch.no_grad():
        model.module.theta.fill_(start)
    return model


def rates(schedule, steps):
    """Return the step sizes of a schedule, by watching the loss of `slope`."""
    model = slope()
    ledger = train(model, steps=steps, lr=1.0, schedule=schedule)
    path = [float(loss) for loss in ledger.losses] + [float(model.module.theta.detach())]
    return [before - after for before, after in pairwise(path)]


def test_schedules_by_hand():
    assert rates("constant", 4) == pytest.approx([1, 1, 1, 1])
    half = math.sqrt(0.5)
    assert rates("cosine", 4) == pytest.approx([1, (1 + half) / 2, 0.5, (1 - half) / 2])
    up, down = [1 / 3, 2 / 3, 1], [1, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7]
    assert rates("onecycle", 10) == pytest.approx(up + down)


@pytest.mark.parametrize("schedule", ["cosine", "onecycle"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100])
def test_schedules_stay_within_the_peak_and_end_near_zero(schedule, steps):
    sizes = rates(schedule, steps)
    assert all(0 < size <= 1 + 1e-12 for size in sizes)
    if steps == 100:
        assert max(sizes) == pytest.approx(1)
        assert sizes[-1] < 0.02


def test_noise_has_the_stated_deviation_in_the_gradient():
    model = model_of(nn.Linear(100, 100, bias=False), lambda m, b: 0 * m.weight.sum()[None])
    before = model.module.weight.detach().clone()
    train(model, steps=1, lr=2.0, noise=0.3)
    step = (before - model.module.weight.detach()) / 2.0
    assert float(step.std()) == pytest.approx(0.3, rel=0.03)
    assert abs(float(step.mean())) < 0.3 * 4 / 100


def test_adamw_first_step_is_the_sign_and_decays_apart_from_it():
    model = slope(start=2.0)
    train(model, steps=1, lr=0.1, optimizer="adamw", weight_decay=0.5)
    assert float(model.module.theta.detach()) == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1)


def test_no_steps_change_nothing():
    model = layered()
    before = model.digest()
    assert train(model, steps=0).spent == 0
    assert model.digest() == before


def test_unknown_parameters_are_refused():
    with pytest.raises(ValueError, match=r"no such parameters: 9\.weight"):
        train(layered(), parameters=["9.weight"])


@pytest.mark.parametrize("done", [1, 3, 8, 9])
@pytest.mark.parametrize(
    "settings",
    [
        dict(momentum=0.9, weight_decay=0.01, schedule="onecycle", batch_norm="train"),
        dict(optimizer="adamw", weight_decay=0.1, noise=0.1, schedule="cosine"),
        dict(parameters=["1.0.weight"], momentum=0.9),
        dict(),
    ],
)
def test_a_descent_goes_on_from_a_snapshot_bit_for_bit(settings, done):
    def run(start=None, watch=lambda step, take: None):
        model, ledger = layered(), Ledger()
        if start is not None:
            torch.nn.init.constant_(model.module[0][0].weight, 7.0)  # what it holds is forgotten
        rest = shuffled(VECTORS, 4, RNG.named("batches"), start=start.step if start else 0)
        descend(
            model, ((batch,) for batch in rest), lambda mean: mean, steps=9, lr=0.1,
            ledger=ledger, rng=RNG, start=start, watch=watch, **settings,
        )  # fmt: skip
        return model.digest(), ledger.curve(), ledger.spent

    kept = {}
    whole = run(watch=lambda step, take: kept.update({step: take()}))
    assert list(kept) == list(range(1, 10))
    assert kept[done].step == done
    assert run(kept[done]) == whole
    assert run(kept[done]) == whole  # the first run did not write into the snapshot


def test_batches_left_out_are_those_before():
    x = torch.rand(6, 1, 8, 8, generator=RNG.torch())
    for augment in ("none", "flip", "crop-flip"):
        whole = list(islice(shuffled(samples(6, x=x), 4, RNG, augment=augment), 7))
        rest = list(islice(shuffled(samples(6, x=x), 4, RNG, augment=augment, start=3), 4))
        for one, other in zip(whole[3:], rest, strict=True):
            assert torch.equal(one.x, other.x)
            assert torch.equal(one.y, other.y)


def test_bfloat16_is_for_the_products_only():
    seen = []
    model = layered()
    model.module[0][0].register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    ledger = train(model, steps=3, precision="bfloat16")
    assert seen == [torch.bfloat16] * 3
    assert {loss.dtype for loss in ledger.losses} == {torch.float32}
    assert {parameter.dtype for parameter in model.module.parameters()} == {torch.float32}
    whole = layered()
    wide = train(whole, steps=3)
    assert model.digest() != whole.digest()
    assert ledger.curve() == pytest.approx(wide.curve(), rel=0.05)


# divergence


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("when", [0, 60, 99])
def test_one_loss_that_is_not_finite_is_enough(bad, when):
    calls = iter(range(1000))

    def objective(mean):
        return mean + (bad if next(calls) == when else 0.0)  # the gradient stays 1

    with pytest.raises(DivergedError, match="loss is not finite by step"):
        train(slope(), steps=100, objective=objective)


def test_divergence_is_noticed_before_the_budget_is_gone():
    ledger = Ledger()
    with pytest.raises(DivergedError):
        train(slope(), steps=1000, objective=lambda mean: mean * math.nan, ledger=ledger)
    assert len(ledger.losses) == loop.CHECK_EVERY


@pytest.mark.parametrize("name", ["0.0.weight", "1.2.running_var"])
def test_weights_and_statistics_that_are_not_finite_are_named(name):
    model = layered()
    model.module.state_dict()[name].view(-1)[0] = math.nan
    with pytest.raises(DivergedError, match=rf"{name} is not finite"):
        loop.check_finite(model.module, Ledger(), 3)


# blocks and passes


def test_last_blocks_are_counted_from_the_end():
    model = layered()
    model = replace(model, blocks=(("a", "b"), ("c",), ("d", "e")))
    assert last_blocks(model, 1) == ("d", "e")
    assert last_blocks(model, 3) == ("a", "b", "c", "d", "e")
    for k in (-1, 0, 4):
        with pytest.raises(PlanError, match=rf"k = {k}, but the model has 3 blocks. Use 1..3"):
            last_blocks(model, k)


def test_recipe_settings_are_descends_own_names():
    recipe = Recipe(optimizer="adamw", momentum=0.8, weight_decay=0.01)
    settings = {"optimizer": "adamw", "momentum": 0.8, "weight_decay": 0.01, "nesterov": False}
    assert loop.recipe_settings(recipe) == settings


def test_passes_are_in_order_in_eval_mode_and_restore_the_modes():
    model = layered()
    model.module.train()
    expected = model.clone().module.eval()(VECTORS.x).detach()
    for size in (3, 100):
        torch.testing.assert_close(logits(model, VECTORS, size=size), expected)
    assert all(part.training for part in model.module.modules())

    def each(module, batch):
        return F.cross_entropy(module(batch.x), batch.y % 3, reduction="none")

    found = losses(replace(model, loss=each), VECTORS, size=4)
    by_hand = -expected.log_softmax(1)[torch.arange(10), VECTORS.y % 3]
    torch.testing.assert_close(found, by_hand)
    right = correct(model, replace(VECTORS, y=VECTORS.y % 3))
    assert right.tolist() == [int(row.argmax()) == i % 3 for i, row in enumerate(expected)]
