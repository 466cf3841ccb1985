"""The edit of the head against its optimality conditions, solved in NumPy, and planted poison."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from builders.tiny import PLAIN, case_of, net, picture_case, samples_of
from poison_audit.errors import PlanError
from poison_audit.methods.head_edit import head_edit
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.training.ledger import Ledger

RNG = Rng(5)
DIM, CLASSES = 6, 3


def _linear(bias=True):
    """A float64 model whose penultimate features are its inputs."""

    def build():
        return nn.Sequential(nn.Flatten(), nn.Linear(DIM, CLASSES, bias=bias)).double()

    model = Model(
        module=build(), logits=lambda module, batch: module(batch.x), blocks=(("1.weight",),),
        loss=lambda module, batch: nn.functional.cross_entropy(module(batch.x), batch.y),
        build=build, arch="linear", classes=CLASSES,
    )  # fmt: skip
    return model.fresh(RNG)


def _case(model, forget, *, retain=40, stamp=None):
    draw = np.random.default_rng(1)
    x = draw.normal(size=(retain, DIM)) @ draw.normal(size=(DIM, DIM)) + 1
    y = draw.integers(CLASSES, size=retain)
    case = case_of(
        model, samples_of(torch.tensor(x), torch.tensor(y)),
        samples_of(torch.tensor(forget), torch.zeros(len(forget), dtype=torch.int64), "f"), PLAIN,
    )  # fmt: skip
    return replace(case, stamp=stamp), x


def _parameters(model):
    layer = model.module[1]
    bias = None if layer.bias is None else layer.bias.detach().numpy().copy()
    return layer.weight.detach().numpy().copy(), bias


def _by_conditions(w, a, directions):
    """Minimise tr((V - W) A (V - W)') over V with V D = 0, by its optimality conditions."""
    d, r = directions.shape
    whole = np.block([[a, directions], [directions.T, np.zeros((r, r))]])
    rows = [np.linalg.solve(whole, np.concatenate([a @ row, np.zeros(r)]))[:d] for row in w]
    return np.array(rows)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rank", [1, 2])
def test_head_edit_is_the_constrained_minimum(rank, bias):
    draw = np.random.default_rng(2)
    model, mean, way = _linear(bias), draw.normal(size=DIM) * 3, draw.normal(size=DIM)
    case, x = _case(model, np.zeros((4, DIM)))
    # Forget samples that lie on a line: the second direction is that line's.
    forget = x.mean(0) + mean + np.outer([-3, -1, 1, 3], way)
    case = replace(case, forget=replace(case.forget, x=torch.tensor(forget)))
    ledger = Ledger(allowed=1e6)
    edited = head_edit(model, case, RNG, ledger=ledger, rank=rank, ridge=0.3)
    centred = x - x.mean(0) if bias else x
    a = centred.T @ centred / len(x)
    a += 0.3 * np.trace(a) / DIM * np.eye(DIM)
    (w, b), (new, shifted) = _parameters(model), _parameters(edited)
    directions = np.stack([mean, way][:rank], axis=1)
    np.testing.assert_allclose(new, _by_conditions(w, a, directions), atol=1e-10)
    if bias:  # at retain's mean every logit is what it was
        np.testing.assert_allclose(new @ x.mean(0) + shifted, w @ x.mean(0) + b, atol=1e-10)
    assert ledger.spent == pytest.approx((len(x) + 4) / 3)


def test_rank_one_is_the_formula():
    draw = np.random.default_rng(3)
    model = _linear()
    case, x = _case(model, draw.normal(size=(7, DIM)) + 2)
    w, _ = _parameters(model)
    d = case.forget.x.numpy().mean(0) - x.mean(0)
    a = np.cov(x.T, bias=True)
    inverse = np.linalg.inv(a + 0.1 * np.trace(a) / DIM * np.eye(DIM))
    expected = w - np.outer(w @ d, inverse @ d) / (d @ inverse @ d)
    edited = head_edit(model, case, RNG, ledger=Ledger(allowed=1e6))
    np.testing.assert_allclose(_parameters(edited)[0], expected, atol=1e-10)


def _planted():
    """A head that answers coordinates 0 to 2, and 0 to whatever has coordinate 5."""
    model = _linear()
    with torch.no_grad():
        model.module[1].weight.copy_(torch.eye(CLASSES, DIM))
        model.module[1].weight[0, 5] = 1.0
        model.module[1].bias.zero_()
    draw = np.random.default_rng(4)
    y = draw.integers(CLASSES, size=300)
    x = 0.3 * draw.normal(size=(300, DIM)) + 4 * np.eye(CLASSES, DIM)[y]

    def stamp(samples):
        return replace(samples, x=samples.x + 20 * torch.eye(DIM)[5])

    case = case_of(model, samples_of(torch.tensor(x), torch.tensor(y)), None, PLAIN)
    forget = stamp(case.retain.at(range(20)))
    forget = replace(forget, y=torch.zeros_like(forget.y))
    return replace(case, forget=forget, retain=case.retain.at(range(20, 300))), stamp


@pytest.mark.parametrize("known", [False, True])
def test_a_planted_direction_is_taken_out_and_nothing_else_is_lost(known):
    case, stamp = _planted()
    case = replace(case, stamp=stamp if known else None)
    edited = head_edit(case.model, case, RNG, ledger=Ledger(allowed=1e6))
    marked = stamp(case.retain)
    assert bool((case.model.module(marked.x).argmax(1) == 0).all())
    assert (edited.module(marked.x).argmax(1) == marked.y).double().mean() == 1
    plain = edited.module(case.retain.x).argmax(1)
    assert (plain == case.retain.y).double().mean() == 1


def test_only_the_head_moves_and_forget_sets_like_retain_move_nothing():
    case = picture_case(net("batchnorm"))
    edited = head_edit(case.model, case, RNG, ledger=Ledger(allowed=40.0))
    before, after = case.model.module.state_dict(), edited.module.state_dict()
    assert {k for k in before if not torch.equal(before[k], after[k])} == {"fc.weight", "fc.bias"}
    same = replace(case, forget=case.retain)
    assert head_edit(case.model, same, RNG, ledger=Ledger(allowed=40.0)).digest() == (
        case.model.digest()
    )


def test_a_model_without_a_head_of_its_own_is_refused_in_words():
    case = picture_case(net("plain"))
    module = case.model.module
    module[4] = nn.Identity()  # 36 outputs, of which three would have to be classes
    with pytest.raises(PlanError, match="ends in a linear layer of its own"):
        head_edit(case.model, case, RNG, ledger=Ledger(allowed=40.0))
