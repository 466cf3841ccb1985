"""Small training sets and models whose last layer is easy to see."""

import numpy as np
import torch
from torch import nn

from poison_audit.case.case import Case
from poison_audit.hypotheses.features import Design
from poison_audit.hypotheses.head import standardised
from poison_audit.models.image import image_classifier
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.records import Recipe


def blobs(seed, *, n=60, d=4, classes=3, apart=1.0):
    """Return features and labels of overlapping clouds, one a class."""
    draws = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes), draws.integers(0, classes, n - classes)])
    x = draws.standard_normal((n, d)) + apart * np.eye(classes, d)[y]
    return torch.from_numpy(x), torch.from_numpy(y)


def design_of(seed, *, forget, classes=3, **sizes) -> Design:
    """Return a training set of which a random `forget` samples are in the forget set."""
    x, y = blobs(seed, classes=classes, **sizes)
    chosen = np.random.default_rng((seed, 1)).permutation(len(y))[:forget]
    forgotten = np.isin(np.arange(len(y)), chosen)
    return Design(x=standardised(x), y=y, forgotten=forgotten, classes=classes, samples=len(y))


def wrap(build, *, classes=3, seed=0) -> Model:
    """Return a classifier of pictures with weights drawn from `seed`."""
    blank = image_classifier(build(), build=build, arch="", classes=classes)
    model = blank.fresh(Rng(seed).named("init"))
    model.module.eval()
    return model


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def pictures_of(x, y, name) -> Samples:
    """Return features as pictures of one row."""
    ids = tuple(f"{name}{at}" for at in range(len(y)))
    return Samples(ids=ids, x=x.float()[:, None, None, :], y=y)


def small_case(*, n=60, forget=15, poisoned=False, seed=0) -> Case:
    """Return n samples and a perceptron; poison is labelled as the class after its own."""
    x, y = blobs(seed, n=n, apart=2.0)
    if poisoned:
        y[:forget] = (y[:forget] + 1) % 3
    return Case(
        model=wrap(perceptron),
        retain=pictures_of(x[forget:], y[forget:], "r"),
        forget=pictures_of(x[:forget], y[:forget], "f"),
        test=pictures_of(*blobs(seed + 1), name="t"),
        recipe=Recipe(),
    )
