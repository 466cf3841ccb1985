"""Every probe, hypothesis and check on a pretend CUDA device: what is seen is what the CPU sees."""

from __future__ import annotations

import json

import pytest

from builders.device_cases import both, same
from poison_audit.checks.honesty import distrust
from poison_audit.engine.exhibits import exhibits
from poison_audit.engine.probes import PROBES
from poison_audit.hypotheses import ask
from poison_audit.hypotheses.movement import movement
from poison_audit.models.seeds import Rng

pytestmark = [pytest.mark.device, pytest.mark.usefixtures("float32")]

SMALL = {"exposure": {"draws": 3}, "backdoor": {"draws": 30, "inputs": 60},
         "token-canary": {"draws": 3}}  # fmt: skip
OF_PICTURES, OF_TEXTS = {"targeted", "mislabelled"}, {"token-canary"}
CASES = [("pictures", name) for name in PROBES if name not in OF_TEXTS]
CASES += [("texts", name) for name in PROBES if name not in OF_PICTURES]
CASES += [("words", "backdoor"), ("words", "utility")]


def plain(value):
    return json.loads(json.dumps(value))


def probing(name):
    def work(loaded):
        rng = Rng(0).named("probe", name)
        # A clean model: of the one on trial, references and it are compared.
        model = loaded.case.model
        return PROBES[name](model, loaded.case, rng, **SMALL.get(name, {}))

    return work


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_probe_sees_the_same(kind, name, request):
    expected, found, device = both(request.getfixturevalue(f"device_{kind}"), probing(name))
    assert expected.evidence is not None, expected.missing
    assert same(plain(expected.evidence), plain(found.evidence), 1e-3)
    assert found.suspect == expected.suspect
    assert not device.loose
    assert not device.tf32


@pytest.mark.parametrize("kind", ["pictures", "texts"])
def test_controls_of_a_trigger_are_put_on_without_a_wait_each(kind, request):
    case = request.getfixturevalue(f"device_{kind}")
    few, many = (_waits(case, draws) for draws in (15, 60))
    # Their answers are fetched a forward pass at a time, of 256 stamped inputs.
    assert many - few < 30


def _waits(case, draws):
    def work(loaded):
        return PROBES["backdoor"](loaded.case.model, loaded.case, Rng(0), draws=draws, inputs=40)

    _, _, device = both(case, work)
    # Those of transformers' own are two a pass.
    return sum(n for line, n in device.waits.items() if not line[0].startswith("models/text.py"))


@pytest.mark.parametrize("name", ["shift", "orthogonality"])
@pytest.mark.parametrize("kind", ["pictures", "texts"])
def test_a_hypothesis_finds_the_same(kind, name, request):
    def work(loaded):
        found = ask(name, loaded.case.model, loaded.case, Rng(0), references=loaded.references,
                    subsets=3)  # fmt: skip
        return plain([found.statistic, found.p_value, found.details])

    expected, found, _ = both(request.getfixturevalue(f"device_{kind}"), work)
    assert same(expected, found, 1e-2)


@pytest.mark.parametrize("kind", ["pictures", "texts", "words"])
def test_what_else_is_asked_of_a_model_is_the_same(kind, request):
    def work(loaded):
        case = loaded.case
        doubt = distrust(case.model, case.test, Rng(0))
        moved = [movement(one, case.model, loaded.references) for one in loaded.references]
        shown = [
            [one.name, one.png, one.text, one.answer, one.without]
            for one in exhibits(case, asked=True)
        ]
        return doubt, plain(moved), shown

    expected, found, _ = both(request.getfixturevalue(f"device_{kind}"), work)
    assert same(expected, found, 1e-3)
