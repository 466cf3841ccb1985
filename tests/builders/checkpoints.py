"""A small network, its model, and what is wrong with a checkpoint."""

import pytest
import torch
from torch import nn

from poison_audit.errors import InputError
from poison_audit.models.checkpoint import load_model
from poison_audit.models.image import NORMALIZE, CifarResNet, CifarResNetSpec, image_classifier
from poison_audit.models.model import Batch

SPEC = CifarResNetSpec((1, 1), 4)
ARCH = "cifar-resnet:1-1:w4"
NONE = NORMALIZE["none"]
X = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network(seed: int = 0, **options) -> CifarResNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = CifarResNet(SPEC, **{"channels": 3, "classes": 5, **options})
        for name, tensor in module.state_dict().items():
            if name.endswith(("running_mean", "running_var")):
                tensor.uniform_(0.5, 1.5)
    return module.eval()


def a_model(module: nn.Module, *, arch: str = ARCH, normalize=NORMALIZE["cifar10"]):
    return image_classifier(module, build=network, arch=arch, classes=5, normalize=normalize)


def problems_of(path, **options) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        load_model(path, **options)
    return tuple(map(str, caught.value.problems))


def state(seed=0):
    return network(seed).state_dict()


def prefixed(prefix, tensors=None):
    return {f"{prefix}{name}": tensor for name, tensor in (tensors or state()).items()}


def answers(loaded, x=X):
    return loaded.model.logits(loaded.model.module, Batch(x, torch.zeros(len(x)).long()))
