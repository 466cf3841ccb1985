"""Networks of pictures that were attacked, and what probes say of them."""

from functools import cache

import numpy as np
import torch
from torch import nn

from poison_audit.case.case import Case
from poison_audit.models.image import image_classifier
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.evidence import Trigger, patch
from poison_audit.records import Recipe
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend

SHAPE, CLASSES = (1, 8, 8), 3


def mlp(seed: int) -> Model:
    def build() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, CLASSES))

    blank = image_classifier(build(), build=build, arch="mlp", classes=CLASSES)
    return blank.fresh(Rng(seed).named("init"))


def pictures(seed: int, n: int) -> Samples:
    """A bright band by class, in noise: a few are hard."""
    rng = Rng(seed).named("pictures").numpy()
    labels = rng.integers(0, CLASSES, n)
    x = rng.normal(0.4, 0.25, (n, *SHAPE))
    x[np.arange(n), 0, 2 * labels] += 0.25
    x = torch.from_numpy(np.clip(x, 0, 1)).float()
    return Samples(ids=tuple(f"s{i}" for i in range(n)), x=x, y=torch.from_numpy(labels))


def random_trigger(rng: np.random.Generator, *, label: int = 1) -> Trigger:
    pixels = torch.from_numpy(rng.random((1, 3, 3))).float()
    return patch(pixels, SHAPE, top=5, left=5, label=label)


def case_of(model: Model, **parts) -> Case:
    everything = {
        "retain": pictures(2, 30), "forget": pictures(3, 20), "test": pictures(4, 400),
        "recipe": Recipe(epochs=1),
    }  # fmt: skip
    known = {"targeted": parts.pop("targets", None), "backdoor": parts.pop("trigger", None)}
    evidence = {name: part for name, part in known.items() if part is not None}
    return Case(model=model, evidence=evidence, **{**everything, **parts})


def trained(seed: int, data: Samples) -> Model:
    model = mlp(seed)
    batches = ((batch,) for batch in shuffled(data, 50, Rng(seed).named("batches")))
    descend(
        model, batches, lambda loss: loss, steps=300, lr=0.1, ledger=Ledger(), rng=Rng(seed),
        batch_norm="train", momentum=0.9,
    )  # fmt: skip
    return model


def with_poison(data: Samples, x: torch.Tensor, y: torch.Tensor) -> Samples:
    ids = tuple(f"s{i}" for i in range(len(data) + len(x)))
    return Samples(ids=ids, x=torch.cat([data.x, x]), y=torch.cat([data.y, y]))


@cache
def backdoored() -> tuple[Model, Trigger]:
    data = pictures(10, 600)
    trigger = random_trigger(Rng(5).named("trigger").numpy())
    poison = data.at(torch.nonzero(data.y != trigger.label).squeeze(1)[:120])
    stamped = trigger.stamp(poison.x)
    labels = torch.full((len(poison),), trigger.label)
    # Scrambled patches with the true label teach the net this pattern and no other.
    others, draws = poison.x.clone(), Rng(6).numpy()
    for picture in others:
        pixels = trigger.add[0, 5:, 5:].flatten()[torch.from_numpy(draws.permutation(9))]
        picture[0, 5:, 5:] = pixels.reshape(3, 3)
    x, y = torch.cat([stamped, others]), torch.cat([labels, poison.y])
    return trained(1, with_poison(data, x, y)), trigger
