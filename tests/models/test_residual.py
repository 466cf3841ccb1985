"""Residual blocks of our own against torchvision's: the same tensors, draws, answers, gradients."""

import subprocess
import sys

import pytest
import torch
from torchvision.models import resnet

from poison_audit.models import residual


@pytest.mark.parametrize("name", ["BasicBlock", "Bottleneck"])
@pytest.mark.parametrize("stride", [1, 2])
def test_blocks_are_torchvisions_to_the_bit(name, stride):
    built = []
    for house in (residual, resnet):
        torch.manual_seed(5)
        kind = getattr(house, name)
        out = 4 * kind.expansion
        shortcut = torch.nn.Conv2d(6, out, 1, stride, bias=False) if out != 6 else None
        block = kind(6, 4, stride, shortcut)
        x = torch.randn(3, 6, 8, 8, requires_grad=True)
        answers = block(x)
        answers.square().sum().backward()
        built.append((block.state_dict(), answers, x.grad))
    (ours, answer, gradient), (theirs, other, slope) = built
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert torch.equal(answer, other)
    assert torch.equal(gradient, slope)


def test_what_few_audits_need_is_not_imported_for_all():
    code = (
        "import sys, poison_audit.commands.check, poison_audit.commands.train;"
        "heavy = ('torchvision', 'transformers', 'scipy.stats', 'scipy.optimize', 'matplotlib');"
        "print([name for name in heavy if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
