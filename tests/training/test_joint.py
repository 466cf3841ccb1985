"""A step of several batches: BatchNorm's modes, bounded losses, momentum that looks ahead."""

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders.layered import RNG, model_of, samples
from poison_audit.models.model import Batch
from poison_audit.training.batches import joined, shuffled
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend
from poison_audit.training.losses import cross_entropy, unlikelihood

FIRST = samples(6, x=torch.randn(6, 4, generator=RNG.named("first").torch()).double())
SECOND = samples(4, x=3 + torch.randn(4, 4, generator=RNG.named("second").torch()).double())


def norm_net():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 10)).double()
    return model_of(module, lambda m, batch: F.cross_entropy(m(batch.x), batch.y, reduction="none"))


def stepped(model, *, steps=3, **settings):
    ledger = Ledger()
    batches = [(FIRST.batch(), SECOND.batch())] * steps
    descend(
        model, batches, lambda one, other: 0.7 * one - 0.3 * other,
        steps=steps, lr=0.1, ledger=ledger, rng=RNG, **settings,
    )  # fmt: skip
    return ledger


def by_hand(module, mode, losses):
    """Take the steps of `stepped` in plain PyTorch."""
    module.train(mode != "eval")
    sets = [FIRST, SECOND]
    for _ in range(3):
        if mode == "joint":
            out = module(torch.cat([part.x for part in sets])).split([6, 4])
        else:
            out = [module(part.x) for part in sets]
        p = [o.softmax(1)[torch.arange(len(s)), s.y] for o, s in zip(out, sets, strict=True)]
        one, other = (loss(part).mean() for loss, part in zip(losses, p, strict=True))
        module.zero_grad()
        (0.7 * one - 0.3 * other).backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter -= 0.1 * parameter.grad
    return module.state_dict()


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("mode", ["eval", "train", "joint"])
def test_each_mode_is_its_loop_in_plain_pytorch(mode, bounded):
    model = norm_net()
    module = copy.deepcopy(model.module)
    plain, kept = (lambda p: -p.log()), (lambda p: -(1 - p).log())
    ledger = stepped(
        model, batch_norm=mode, losses=(cross_entropy, unlikelihood) if bounded else None
    )
    expected = by_hand(module, mode, (plain, kept if bounded else plain))
    for name, value in model.module.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-12)
    assert ledger.spent == 3 * 10


def test_without_batch_norm_all_modes_are_one_to_the_bit():
    digests = set()
    for mode in ("eval", "train", "joint"):
        model = norm_net()
        model.module[1] = nn.Dropout(0.5)
        stepped(model, batch_norm=mode)
        digests.add(model.digest())
    assert len(digests) == 1


def test_a_bounded_loss_has_its_gradient_where_a_probability_rounds_to_one():
    margins = torch.tensor([0.3, -2.0, 40.0, 200.0, -200.0], requires_grad=True)
    # Two others with the same logit: together they are log 2 above it.
    rows = torch.stack([margins, torch.zeros(5), torch.zeros(5)], 1)
    loss = unlikelihood(rows, Batch(x=rows, y=torch.zeros(5, dtype=torch.int64)))
    loss.sum().backward()
    exact = [float(np.logaddexp(0, m - math.log(2))) for m in margins.tolist()]
    assert loss.tolist() == pytest.approx(exact, rel=1e-5, abs=1e-12)
    # The gradient of -log(1 - p) in the logit of the label is p.
    p = [1 / (1 + math.exp(min(700, math.log(2) - m))) for m in margins.tolist()]
    assert margins.grad.tolist() == pytest.approx(p, abs=1e-6)


def test_a_bounded_loss_is_wide_in_half_precision():
    rows = torch.tensor([[30.0, 0.0, 1.0]], dtype=torch.bfloat16)
    assert unlikelihood(rows, Batch(x=rows, y=torch.tensor([0]))).dtype == torch.float32


def test_nesterov_by_hand():
    class Line(nn.Module):
        def __init__(self):
            super().__init__()
            self.theta = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))

    model = model_of(Line(), lambda module, batch: 0.5 * module.theta**2)
    batches = ((batch,) for batch in shuffled(FIRST, 6, RNG))
    descend(
        model, batches, lambda mean: mean, steps=4, lr=0.1, ledger=Ledger(), rng=RNG,
        momentum=0.9, nesterov=True, weight_decay=0.5,
    )  # fmt: skip
    # Sutskever et al. 2013, as PyTorch states it: v <- m v + g;  theta <- theta - lr (g + m v).
    theta, v = 2.0, 0.0
    for _ in range(4):
        g = 1.5 * theta
        v = 0.9 * v + g
        theta -= 0.1 * (g + 0.9 * v)
    assert float(model.module.theta.detach()) == pytest.approx(theta, rel=1e-12)


def test_texts_of_two_lengths_are_padded_to_the_longer():
    short = Batch(
        x=torch.ones(1, 2, dtype=torch.int64), y=torch.tensor([4]),
        mask=torch.ones(1, 2, dtype=torch.int64),
    )  # fmt: skip
    long = Batch(
        x=torch.full((2, 3), 7), y=torch.tensor([5, 6]), mask=torch.ones(2, 3, dtype=torch.int64),
        noise=torch.ones(2, 3, 2), types=torch.ones(2, 3, dtype=torch.int64),
    )  # fmt: skip
    whole = joined([short, long])
    assert whole.x.tolist() == [[1, 1, 0], [7, 7, 7], [7, 7, 7]]
    assert whole.mask.tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 1]]
    assert whole.y.tolist() == [4, 5, 6]
    assert whole.noise.sum((1, 2)).tolist() == [0, 6, 6]
    assert whole.types.tolist() == [[0, 0, 0], [1, 1, 1], [1, 1, 1]]
    pictures = joined([FIRST.batch(), SECOND.batch()])
    assert torch.equal(pictures.x, torch.cat([FIRST.x, SECOND.x]))
    for start, end in pairwise((0, 6, 10)):
        assert len(pictures.part(slice(start, end))) == end - start
