"""BatchNorm's statistics computed anew: exact ones, by NumPy and by PyTorch's own training pass."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders.layered import model_of
from poison_audit.errors import DivergedError
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.training import recalibrate
from poison_audit.training.ledger import Ledger
from poison_audit.training.recalibrate import norm_layers, recalibrated


def network(norm: type = nn.BatchNorm2d) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(2, 4, 3), norm(4), nn.ReLU(), nn.Dropout(0.5),
            nn.Conv2d(4, 3, 2), norm(3), nn.Flatten(), nn.Linear(3 * 9, 2),
        )  # fmt: skip
        for name, layer in norm_layers(net).items():  # spoiled, with parameters of its own
            nn.init.normal_(layer.weight)
            layer.running_mean.fill_(float(name))
            layer.running_var.fill_(0.01)
    return net


def pictures(n: int) -> Samples:
    x = torch.rand(n, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    x += torch.linspace(0, 3, n)[:, None, None, None]  # a table in an order
    return Samples(ids=tuple(map(str, range(n))), x=x, y=torch.zeros(n, dtype=torch.int64))


def test_a_batch_gives_what_a_pass_in_training_mode_leaves():
    model, samples = model_of(network()), pictures(200)
    twin = model.clone().module
    for layer in norm_layers(twin).values():
        layer.train()
        layer.momentum = 1.0
    twin.eval()
    for layer in norm_layers(twin).values():
        layer.train()
    with torch.no_grad():
        twin(samples.x)
    made = recalibrated(model, samples).module
    for name, layer in norm_layers(made).items():
        for stored in ("running_mean", "running_var"):
            expected = getattr(norm_layers(twin)[name], stored)
            torch.testing.assert_close(getattr(layer, stored), expected, rtol=1e-5, atol=1e-6)


def test_of_many_batches_the_first_layer_has_the_statistics_of_all(monkeypatch):
    monkeypatch.setattr(recalibrate, "BATCH", 7)
    model, samples = model_of(network()), pictures(100)
    made = recalibrated(model, samples).module
    with torch.no_grad():
        given = model.module[0](samples.x).double().numpy().transpose(1, 0, 2, 3).reshape(4, -1)
    np.testing.assert_allclose(made[1].running_mean, given.mean(1), rtol=1e-6)
    np.testing.assert_allclose(made[1].running_var, given.var(1, ddof=1), rtol=1e-6)


def test_a_later_layer_is_given_what_batches_make_of_the_earlier(monkeypatch):
    monkeypatch.setattr(recalibrate, "BATCH", 25)
    model, samples = model_of(network()), pictures(100)
    made = recalibrated(model, samples).module
    order = Rng(0).named("recalibrate").numpy().permutation(100)
    given = []
    with torch.no_grad():
        for rows in order.reshape(4, 25):
            first = model.module[0](samples.x[rows])
            normed = F.batch_norm(first, None, None, model.module[1].weight, model.module[1].bias,
                                  training=True)  # fmt: skip
            given.append(model.module[4](normed.relu()).numpy().transpose(1, 0, 2, 3))
    flat = np.concatenate(given, axis=1).reshape(3, -1).astype(np.float64)
    np.testing.assert_allclose(made[5].running_mean, flat.mean(1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(made[5].running_var, flat.var(1, ddof=1), rtol=1e-4)


def test_only_the_statistics_move_and_the_input_keeps_every_bit():
    model, ledger = model_of(network()), Ledger()
    before = model.digest()
    made = recalibrated(model, pictures(30), ledger=ledger)
    again = recalibrated(model, pictures(30))
    assert model.digest() == before != made.digest() == again.digest()
    old, new = model.module.state_dict(), made.module.state_dict()
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert moved == {f"{i}.running_{what}" for i in (1, 5) for what in ("mean", "var")}
    assert ledger.spent == pytest.approx(10)
    assert not made.module.training
    assert not any(part._forward_pre_hooks for part in made.module.modules())


def test_layers_that_refuse_to_train_here_are_recalibrated_as_others():
    samples = pictures(40)
    plain = recalibrated(model_of(network()), samples)
    synced = recalibrated(model_of(network(nn.SyncBatchNorm)), samples)
    assert plain.digest() == synced.digest()


def test_without_batch_norm_nothing_changes_and_nothing_is_charged():
    ledger = Ledger()
    model = model_of(nn.Sequential(nn.Flatten(), nn.Linear(72, 2), nn.LayerNorm(2)))
    assert recalibrated(model, pictures(5), ledger=ledger).digest() == model.digest()
    assert ledger.spent == 0


def test_a_layer_that_no_pass_reaches_keeps_its_statistics():
    net = network()
    net.aside = nn.BatchNorm2d(3)
    net.forward = lambda x: nn.Sequential(*list(net.children())[:-1])(x)
    made = recalibrated(model_of(net), pictures(10)).module
    assert torch.equal(made.aside.running_var, torch.ones(3))


def test_statistics_that_are_not_finite_are_refused():
    samples = pictures(5)
    broken = replace(samples, x=samples.x * torch.inf)
    with pytest.raises(DivergedError, match="statistics of 1 are not finite"):
        recalibrated(model_of(network()), broken)
    with pytest.raises(ValueError, match="need samples"):
        recalibrated(model_of(network()), samples.at([]))


def test_where_memory_gives_out_batches_are_smaller(monkeypatch):
    model, samples, tried = model_of(network()), pictures(40), []

    def short(module, batch):
        tried.append(len(batch))
        if len(batch) > 10:
            raise torch.OutOfMemoryError
        return module(batch.x)

    made = recalibrated(replace(model, logits=short), samples)
    assert max(tried[1:]) <= 40
    assert sum(n for n in tried if n <= 10) == 40
    assert torch.isfinite(made.module[5].running_var).all()
