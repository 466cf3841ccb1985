"""Every method on a pretend CUDA device: the CPU's weights, and no step that waits for it."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from builders.device_cases import weights
from builders.pretend_cuda import pretend_cuda
from poison_audit.methods import METHODS
from poison_audit.models.seeds import Rng
from poison_audit.training.ledger import Ledger, Trail

pytestmark = [pytest.mark.device, pytest.mark.usefixtures("float32")]

ALLOWED = 120.0
OF_TRANSFORMERS = "models/text.py"
"""Networks of transformers ask the device whether a batch is padded: their own two waits a pass."""
CASES = [("pictures", name) for name in METHODS]
CASES += [("texts", name) for name in METHODS]
CASES += [("words", "gd")]


def run(name, loaded, **more):
    case, ledger = loaded.case, Ledger(allowed=ALLOWED, **more)
    return METHODS[name].run(case.model, case, Rng(0).named(name), ledger=ledger), ledger


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_method_gives_the_same_weights_and_never_waits_in_a_step(kind, name, request):
    case = request.getfixturevalue(f"device_{kind}")
    if METHODS[name].unfit(case.cpu.case):
        pytest.skip("not of this case")
    expected, cpu = run(name, case.cpu)
    with pretend_cuda() as device:
        own, marks = device.generator.get_state(), [Counter[tuple[str, str]]()]
        tell = lambda spent: marks.append(Counter(device.waits))  # noqa: E731
        found, ledger = run(name, case.cuda, tell=tell)
        assert bool((device.generator.get_state() == own).all())
    # Under AdamW an entry whose gradient is nearly zero may go either way.
    apart = (weights(expected) - weights(found)).abs() > 1e-4
    assert apart.double().mean() < 0.01
    assert ledger.spent == cpu.spent
    steps = [after - before for before, after in pairwise(marks)]
    for line, count in device.waits.items():
        if line[0].startswith(OF_TRANSFORMERS):
            assert line[1] == "_local_scalar_dense"
        elif ledger.losses:
            assert 2 * sum(line in step for step in steps) <= len(steps), line
        elif name != "head_edit":  # which reads what each edit does to the answers
            assert count < ledger.spent / 2, line
    assert not device.loose
    assert not device.tf32


@pytest.mark.parametrize("kind", ["pictures", "texts"])
def test_a_larger_budget_goes_on_to_the_same_bits(kind, request):
    case, trail = request.getfixturevalue(f"device_{kind}").cuda.case, Trail()

    def made(allowed, **more):
        ledger = Ledger(allowed=allowed, **more)
        rng = Rng(0).named("ngd")
        return METHODS["ngd"].run(case.model, case, rng, ledger=ledger).digest(), ledger.reused

    with pretend_cuda():
        made(60.0, trail=trail)
        resumed, reused = made(ALLOWED, trail=trail)
        assert reused
        assert resumed == made(ALLOWED)[0]
