"""Every method on a pretend CUDA device: the CPU's weights, and no step that waits for it."""

from __future__ import annotations

import pytest
import torch

from builders.device_cases import both, weights
from poison_audit.methods import METHODS
from poison_audit.models.seeds import Rng
from poison_audit.training.ledger import Ledger

pytestmark = [pytest.mark.device, pytest.mark.usefixtures("float32")]

ALLOWED = 120.0


def running(name):
    def work(loaded):
        case, ledger = loaded.case, Ledger(allowed=ALLOWED)
        return METHODS[name].run(case.model, case, Rng(0).named(name), ledger=ledger), ledger

    return work


CASES = [("pictures", name) for name in METHODS]
CASES += [("texts", name) for name in METHODS]
CASES += [("words", "gd")]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_method_gives_the_same_weights_and_never_waits_in_a_step(kind, name, request):
    case = request.getfixturevalue(f"device_{kind}")
    if METHODS[name].unfit(case.cpu.case):
        pytest.skip("not of this case")
    (expected, cpu), (found, ledger), device = both(case, running(name))
    assert torch.allclose(weights(expected), weights(found), rtol=1e-3, atol=1e-4)
    assert ledger.spent == cpu.spent
    # What is looked at once a descent: whether all is finite.
    steps = len(ledger.losses) or ledger.spent
    waits = {line: n for line, n in device.waits.items() if "check_finite" not in line[0]}
    assert not {line: n for line, n in waits.items() if n >= steps}
    assert not device.loose
    assert not device.tf32
