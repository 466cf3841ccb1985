"""Small networks and pictures for gradient matching."""

import torch
from torch import nn

from poison_audit.models.image import image_classifier
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.targeted.gradient_matching import gradient_match

RNG = Rng(11)
EPSILON = 0.1


def small(activation=nn.ReLU, *, norm=True):
    """Return a net for 6x6 pictures of 3 classes, BatchNorm's statistics away from their start."""

    def build():
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4) if norm else nn.Identity(),
            activation(),
            nn.Conv2d(4, 4, 3, stride=2),
            activation(),
            nn.Flatten(),
            nn.Linear(4, 3),
        )

    blank = image_classifier(
        build(), build=build, arch="small", classes=3, normalize=((0.4,), (0.3,))
    )
    model = blank.fresh(RNG.named("init"))
    if norm:
        model.module[1].running_mean.copy_(torch.randn(4, generator=RNG.named("bn").torch()) / 10)
        model.module[1].running_var.copy_(torch.tensor([0.5, 1.0, 1.5, 2.0]))
    model.module.eval()
    return model


def pictures(n, labels, name):
    x = torch.rand(n, 1, 6, 6, generator=RNG.named(name).torch())
    return Samples(
        ids=tuple(f"{name}-{i}" for i in range(n)), x=x, y=torch.tensor(labels, dtype=torch.int64)
    )


# Two targets: of class 0 to become 1, and of class 2 to become 0; poison 3 works for none.
POISONS = pictures(7, [1, 0, 1, 2, 0, 1, 0], "poison")
GROUPS = [[5, 0, 2], [1, 6, 4]]
TARGETS = pictures(2, [0, 2], "target")
ADVERSARIAL = torch.tensor([1, 0])


def match(model, *, rng=RNG, poisons=POISONS, groups=GROUPS, targets=TARGETS, labels=ADVERSARIAL,
          **numbers):  # fmt: skip
    settings = {"epsilon": EPSILON, "steps": 8, "restarts": 2} | numbers
    return gradient_match(model, poisons, groups, targets, labels, rng, **settings)
