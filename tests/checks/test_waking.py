"""Ways of waking a model: rounding by PyTorch's own quantiser, the same draws for every model."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from builders.attacked import case_of, mlp, pictures
from builders.layered import model_of
from poison_audit.checks import waking
from poison_audit.checks.waking import (
    ALONE,
    RECALIBRATED,
    TAUGHT,
    clean_part,
    rate,
    relearned,
    rounded,
    woken,
)
from poison_audit.errors import DivergedError
from poison_audit.models.seeds import Rng

RNG = Rng(7)


def test_weights_are_rounded_as_a_quantiser_with_a_scale_a_channel_does():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(20, 4))
    with torch.no_grad():
        net[0].weight[2] = 0  # a channel without a scale
        net[3].bias.uniform_(-1, 1)
    model = model_of(net)
    before, made = model.digest(), rounded(model).module
    assert model.digest() == before
    for place in (0, 3):
        weight = net[place].weight.detach()
        scales = (weight.flatten(1).abs().amax(1) / 127).clamp(min=1e-12)
        zeros = torch.zeros(len(weight), dtype=torch.int32)
        quantised = torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -128, 127)
        torch.testing.assert_close(made[place].weight, quantised, rtol=1e-6, atol=0)
        assert torch.equal(made[place].bias, net[place].bias)
    assert torch.equal(made[1].weight, net[1].weight)
    assert torch.equal(rounded(model_of(made)).module[3].weight, made[3].weight)


def test_every_model_is_woken_with_the_same_draws_and_keeps_its_bits():
    model = mlp(1)
    case = case_of(model, retain=pictures(2, 60))
    before = model.digest()
    once, again = (woken(model, case, TAUGHT[1], RNG, lr=0.01) for _ in range(2))
    assert model.digest() == before != once.digest() == again.digest()
    other = woken(mlp(2), case, TAUGHT[1], RNG, lr=0.01)
    assert other.digest() != once.digest()
    made = {w: woken(model, case, w, RNG, lr=0.01).digest() for w in (*ALONE[1:], *TAUGHT)}
    assert len({*made.values(), before}) == 6  # no way is another one


def test_poisons_are_learned_among_the_clean_samples_as_often_as_those(monkeypatch):
    given = []
    monkeypatch.setattr(waking, "relearned", lambda model, samples, rng, lr: given.append(samples))
    case = case_of(mlp(1), retain=pictures(2, 60))
    for how in (ALONE[2], *TAUGHT):
        woken(case.model, case, how, RNG, lr=0.01)
    assert [len(samples) for samples in given] == [60, 61, 65, 80]
    rows = [{row.numpy().tobytes() for row in samples.x[60:]} for samples in given]
    assert rows[1] < rows[2] < rows[3]  # each of the larger ones holds the smaller
    assert rows[3] <= {row.numpy().tobytes() for row in case.forget.x}


def test_clean_samples_are_drawn_from_all_of_retain(monkeypatch):
    monkeypatch.setattr(waking, "SAMPLES", 50)
    case = case_of(mlp(1), retain=pictures(2, 400))
    part = clean_part(case, RNG)
    assert len(part) == 50
    assert part.ids == clean_part(case, RNG).ids != clean_part(case, Rng(8)).ids
    places = [int(name[1:]) for name in part.ids]
    assert min(places) < 50 < 350 < max(places)


@pytest.mark.parametrize(
    ("how", "lr", "forget"),
    [(RECALIBRATED, 0.01, 20), (ALONE[2], None, 20), (TAUGHT[2], 0.1, 19)],
)
def test_what_cannot_be_woken_is_none(how, lr, forget):
    case = case_of(mlp(1), forget=pictures(3, forget))
    assert woken(case.model, case, how, RNG, lr=lr) is None


def test_the_rate_is_the_largest_that_costs_the_yardstick_no_accuracy(monkeypatch):
    case = case_of(mlp(1))
    lost = {None: 0.0, 0.01: 0.3, 0.003: 0.021, 0.001: 0.019, 0.0003: 0.0}
    tried = []

    def learn(model, samples, rng, *, lr):
        tried.append(lr)
        if lr == 0.003:
            raise DivergedError("no")
        return replace(model, arch=str(lr))

    def right(model, case):
        return 0.9 - next((v for k, v in lost.items() if str(k) == model.arch), 0.0)

    monkeypatch.setattr(waking, "relearned", learn)
    monkeypatch.setattr(waking, "right", right)
    assert rate(case.model, case, RNG) == 0.001
    assert tried == [0.01, 0.003, 0.001]
    monkeypatch.setattr(waking, "RATES", (0.01,))
    assert rate(case.model, case, RNG) is None


def test_learning_on_trains_for_a_fixed_number_of_steps(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        waking, "descend", lambda model, batches, objective, **how: seen.update(how)
    )
    relearned(mlp(1), pictures(2, 60), RNG, lr=0.003)
    assert (seen["steps"], seen["lr"], seen["momentum"]) == (40, 0.003, 0.9)
