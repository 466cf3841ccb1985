"""Networks that end in softmax are taken for what they are: the same logits as without it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from builders import small_case
from builders.tiny import net, pictures
from poison_audit.atomic import from_json
from poison_audit.cli import invoke
from poison_audit.models.image import image_classifier
from poison_audit.models.outputs import answers_chances, of_chances
from poison_audit.training.scoring import input_gradients, losses, margins
from poison_audit.verdict.record import AuditRecord


def ending_in(last: nn.Module):
    """A network, and the same with one more layer."""
    plain = net("plain")
    module = nn.Sequential(plain.module, last).eval()
    more = image_classifier(module, build=lambda: module, arch="softmax", classes=3)
    return plain, more


def test_softmax_is_seen_and_nothing_else_is_taken_for_it():
    batch = pictures(16, "a").batch()
    plain, chances = ending_in(nn.Softmax(1))
    assert answers_chances(chances, batch)
    assert not answers_chances(plain, batch)
    for last in (nn.LogSoftmax(1), nn.Sigmoid(), nn.ReLU()):
        assert not answers_chances(ending_in(last)[1], batch)


def test_losses_margins_and_gradients_are_those_without_the_softmax():
    samples = pictures(16, "a")
    plain, chances = ending_in(nn.Softmax(1))
    taken = of_chances(chances)
    torch.testing.assert_close(losses(taken, samples), losses(plain, samples))
    torch.testing.assert_close(
        margins(taken, samples.batch()), margins(plain, samples.batch()), atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(
        input_gradients(taken, samples), input_gradients(plain, samples), atol=1e-6, rtol=1e-3
    )


def test_an_impossible_class_has_a_finite_loss():
    _, chances = ending_in(nn.Sequential(nn.Hardtanh(0, 1), _One()))
    assert torch.isfinite(losses(of_chances(chances), pictures(4, "a"))).all()


class _One(nn.Module):
    def forward(self, x):
        return torch.eye(3)[x.argmax(1)]


FACTORY = """
import torch
from poison_audit.models.image import CifarResNet, CifarResNetSpec

class Chances(CifarResNet):
    def forward(self, x):
        return torch.softmax(super().forward(x), 1)

def build():
    return Chances(CifarResNetSpec((1,), 4), channels=1, classes=3)
"""


def test_a_trial_of_such_a_network_measures_the_same(case, capsys):
    (case / "ends_in_softmax.py").write_text(FACTORY, "utf-8")
    asked = ["probe", "model.safetensors", "--forget", "forget.csv", *small_case.FLAGS, "-q"]
    plain = invoke([*asked, "--out", "plain"])
    other = invoke([*asked, "--out", "other", "--factory", "ends_in_softmax:build"])
    assert plain == other
    scores = []
    for out in ("plain", "other"):
        record = from_json(AuditRecord, (case / out / "report.json").read_text("utf-8"))
        assert record.doubts == ()
        assert any("softmax" in limit for limit in record.limits) is (out == "other")
        scores.append([f.statistic for f in record.findings if f.statistic is not None])
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-3, atol=1e-3)
