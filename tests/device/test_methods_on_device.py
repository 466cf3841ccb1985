"""Every method on a pretend CUDA device: the CPU's weights, and no step that waits."""

from __future__ import annotations

import pytest
import torch

from builders.device_cases import both, weights
from poison_audit.methods import METHODS
from poison_audit.models.seeds import Rng
from poison_audit.training.ledger import Ledger

pytestmark = pytest.mark.device

ALLOWED = 240.0


def runs(name, allowed=ALLOWED):
    def work(loaded):
        ledger = Ledger(allowed=allowed)
        model = METHODS[name].run(loaded.case.model, loaded.case, Rng(0).named(name), ledger=ledger)
        return model, ledger

    return work


CASES = [("pictures", name) for name in METHODS]
CASES += [("texts", name) for name in METHODS]
CASES += [("words", "gd")]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_method(kind, name, request):
    case = request.getfixturevalue(kind)
    if METHODS[name].unfit(case.cpu.case):
        pytest.skip("not of this case")
    (expected, cpu), (found, ledger), device = both(case, runs(name))
    assert torch.allclose(weights(expected), weights(found), rtol=1e-3, atol=1e-4)
    assert cpu.spent == ledger.spent
    steps = len(ledger.losses) or ledger.spent
    waits = {k: v for k, v in device.waits.items() if v >= steps}
    print(kind, name, steps, waits, dict(device.loose), dict(device.tf32))
