"""Small models and cases whose answers can be worked out, or which break what is fragile."""

from dataclasses import replace

import torch
from torch import nn

from poison_audit.case.case import Case
from poison_audit.models.image import CifarResNet, CifarResNetSpec, image_classifier
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.records import Recipe

PLAIN = Recipe(
    epochs=3, lr=0.1, momentum=0.0, weight_decay=0.0, batch_size=1000, schedule="constant"
)
"""Full batches and nothing but the gradient."""


def case_of(model: Model, retain: Samples, forget: Samples, recipe: Recipe) -> Case:
    return Case(model=model, retain=retain, forget=forget, test=retain, recipe=recipe)


def samples_of(x: torch.Tensor, y: torch.Tensor, name: str = "s") -> Samples:
    return Samples(ids=tuple(f"{name}{i}" for i in range(len(y))), x=x, y=y)


class Split(nn.Module):
    """A linear map whose coordinates lie in two blocks: `first` (3) and `last` (2)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 1, bias=False)
        self.last = nn.Linear(2, 1, bias=False)

    def forward(self, x):
        return (self.first(x[:, :3]) + self.last(x[:, 3:])).squeeze(1)


def least_squares(theta) -> Model:
    """Return the model with loss 0.5 (x theta - y)^2 a sample, in float64, at `theta` (5,)."""
    module = Split().double().eval()
    with torch.no_grad():
        module.first.weight.copy_(torch.as_tensor(theta[:3]))
        module.last.weight.copy_(torch.as_tensor(theta[3:]))
    return Model(
        module=module,
        logits=lambda module, batch: module(batch.x)[:, None],
        loss=lambda module, batch: 0.5 * (module(batch.x) - batch.y) ** 2,
        blocks=(("first.weight",), ("last.weight",)),
        build=Split,
        arch="split",
        classes=1,
    )


def theta_of(model: Model):
    """Return the coordinates of a `least_squares` model as a NumPy vector."""
    return torch.cat([p.detach().flatten() for p in model.module.parameters()]).numpy()


class Tied(nn.Module):
    """A net whose second and third layer share one weight, across two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3 * 8 * 8, 6)
        self.middle = nn.Linear(6, 6)
        self.upper = nn.Linear(6, 6)
        self.upper.weight = self.middle.weight
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = torch.relu(self.stem(x.flatten(1)))
        x = torch.relu(self.middle(x))
        return self.head(torch.relu(self.upper(x)))


def _resnet() -> nn.Module:
    return CifarResNet(CifarResNetSpec((1, 1), 4), channels=3, classes=3)


def _conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(36, 3)
    )


NETS = {"batchnorm": _resnet, "plain": _conv, "tied": Tied}


def net(name: str) -> Model:
    """Return a classifier of 8x8 pictures into three classes; its weights are always the same."""
    build = NETS[name]
    model = image_classifier(build(), build=build, arch=name, classes=3)
    model = model.fresh(Rng(7).named(name))
    model.module.eval()
    return model


def pictures(n: int, name: str, *, dtype: torch.dtype = torch.uint8) -> Samples:
    rng = Rng(3).named(name).torch()
    x = torch.randint(256, (n, 3, 8, 8), generator=rng, dtype=torch.uint8)
    y = torch.randint(3, (n,), generator=rng)
    return samples_of(x if dtype == torch.uint8 else x.to(dtype) / 255, y, name)


def picture_case(model: Model, *, dtype: torch.dtype = torch.uint8, **changes) -> Case:
    """Return a case of 10 retain and 5 forget pictures under a recipe that uses everything."""
    recipe = Recipe(epochs=2, lr=0.05, weight_decay=1e-3, batch_size=4, augment="crop-flip")
    retain, forget = pictures(10, "r", dtype=dtype), pictures(5, "f", dtype=dtype)
    case = case_of(model, retain, forget, replace(recipe, **changes))
    return replace(case, stamp=_stamp)


def _stamp(samples: Samples) -> Samples:
    x = samples.x.clone()
    x[:, :, :2, :2] = 0
    return replace(samples, x=x)
