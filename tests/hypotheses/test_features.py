"""Finding the penultimate layer, and saying so where there is none."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from builders.heads import blobs, perceptron, pictures_of, small_case, wrap
from poison_audit.hypotheses import features
from poison_audit.hypotheses.features import design, moved
from poison_audit.hypotheses.head import solve, standardised
from poison_audit.models.image import CifarResNet, CifarResNetSpec
from poison_audit.models.seeds import Rng
from poison_audit.training.penultimate import penultimate


def test_features_of_a_perceptron():
    model, samples = wrap(perceptron), pictures_of(*blobs(0), name="s")
    _, first, squash, head = model.module
    found = penultimate(model, samples, size=7)
    with torch.no_grad():
        expected = squash(first(samples.x.flatten(1)))
    torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=1e-6)
    assert not head._forward_pre_hooks


def test_features_of_a_resnet_give_its_logits():
    def build():
        return CifarResNet(CifarResNetSpec((1, 1), 4), channels=1, classes=3)

    model, samples = wrap(build), pictures_of(*blobs(0, n=9), name="s")
    found = penultimate(model, samples, size=4)
    with torch.no_grad():
        again = model.module.fc(found.float())
        torch.testing.assert_close(again, model.logits(model.module, samples.batch()))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 4)

    def forward(self, x):
        return self.head(self.head(x.flatten(1)))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 3)

    def forward(self, x):
        return self.head(x.flatten(1)[:, :, None]).mean(dim=1)


NOT_FOUND = {
    "none": (lambda: nn.Sequential(nn.Conv2d(1, 3, (1, 4)), nn.Flatten()), 3),
    "something follows": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Tanh()), 3),
    "another size": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.Unflatten(1, (3, 2)),
                                           nn.MaxPool1d(2), nn.Flatten()), 3),
    "twice": (Twice, 4),
    "a row a token": (Tokens, 3),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_FOUND)
def test_no_penultimate_layer(name):
    build, classes = NOT_FOUND[name]
    case = dataclasses.replace(small_case(), model=wrap(build, classes=classes))
    assert penultimate(case.model, case.retain) is None
    why = design(case.model, case, Rng(0), most=100)
    assert why == "the penultimate layer could not be found"


def test_the_design_is_the_training_set():
    case = small_case(forget=15)
    found = design(case.model, case, Rng(0), most=1000)
    both = [penultimate(case.model, part) for part in (case.retain, case.forget)]
    torch.testing.assert_close(found.x, standardised(torch.cat(both)))
    assert found.labels.tolist() == case.retain.y.tolist() + case.forget.y.tolist()
    assert found.forgotten.tolist() == [False] * 45 + [True] * 15


def test_too_many_samples_are_thinned_in_proportion():
    case = small_case(forget=15)
    found = design(case.model, case, Rng(0), most=20)
    assert (found.x.shape[0], found.forgotten.sum(), found.samples) == (20, 5, 60)
    again = design(case.model, case, Rng(0), most=20)
    other = design(case.model, case, Rng(1), most=20)
    assert torch.equal(found.x, again.x)
    assert not torch.equal(found.x, other.x)


def test_what_cannot_be_used_is_told(monkeypatch):
    case = small_case()
    empty = dataclasses.replace(case, forget=case.forget.at([]))
    assert design(case.model, empty, Rng(0), most=100) == "needs forget and retain samples"
    monkeypatch.setattr(features, "MOST_WORK", 10)
    assert "5 x 3 is too large" in design(case.model, case, Rng(0), most=100)
    with torch.no_grad():
        case.model.module[1].bias[0] = torch.nan
    why = design(case.model, case, Rng(0), most=100)
    assert why == "the penultimate features are not finite"


def test_what_leaving_samples_out_moves():
    case = small_case()
    found = design(case.model, case, Rng(0), most=1000)
    whole = solve(found.x, found.y, classes=3)
    rest = solve(found.x[:45], found.y[:45], classes=3)  # retain comes first
    step = moved(found, whole, found.forgotten)
    torch.testing.assert_close(step, rest - whole, rtol=0, atol=1e-7)
    nobody = np.zeros(60, dtype=bool)
    assert moved(found, whole, nobody).abs().max() == 0
